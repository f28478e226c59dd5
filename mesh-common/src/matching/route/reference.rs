//! The specification, read aloud: what [`Routes`](super::Routes) is compared with.

use std::cmp::Reverse;

use http::{HeaderMap, HeaderName};

use super::{Met, Request};
use crate::model::{PathMatch, Route, RouteMatch, TextMatch};

/// Of all matches of `routes`, which hold for one client and are of one kind, that accept `request`,
/// the first in order.
pub fn find<'r>(routes: &'r [Route], request: Request<'_>) -> Option<Met<'r>> {
    let mut accepting = Vec::new();
    for route in routes {
        for (at, rule) in route.rules.iter().enumerate() {
            for by in rule.matches.iter().filter(|wanted| accepts(wanted, request)) {
                accepting.push((at, Met { route, rule, by }));
            }
        }
    }
    // The sort is stable: matches of one rule stay in order.
    accepting.sort_by_key(|(at, Met { route, by, .. })| {
        let specific = (path_rank(&by.path), Reverse(by.method.is_some()));
        let asks_for = (Reverse(by.headers.len()), Reverse(by.query.len()));
        (specific, asks_for, route.created, &route.name, *at)
    });
    accepting.first().map(|(_, met)| *met)
}

/// How early a path is asked: the kind, then what is longest.
fn path_rank(path: &PathMatch) -> (u8, Reverse<usize>, Reverse<usize>) {
    let written = |text: &Option<TextMatch>| Reverse(text.as_ref().map_or(0, TextMatch::written));
    match path {
        PathMatch::Exact(_) => (0, Reverse(0), Reverse(0)),
        PathMatch::Pattern(pattern) => (1, Reverse(pattern.as_str().len()), Reverse(0)),
        PathMatch::Prefix(prefix) => (2, Reverse(prefix.len()), Reverse(0)),
        PathMatch::Grpc { service, method } => (3, written(service), written(method)),
    }
}

fn accepts(wanted: &RouteMatch, request: Request<'_>) -> bool {
    let elements = |path: &str| -> Vec<String> { path.split('/').map(str::to_owned).collect() };
    let asked = elements(request.path);
    let path = match &wanted.path {
        PathMatch::Exact(exact) => **exact == *request.path,
        PathMatch::Pattern(pattern) => pattern.matches(request.path),
        PathMatch::Prefix(prefix) => asked.starts_with(&elements(prefix)),
        PathMatch::Grpc { service, method } => {
            let is = |wanted: &Option<TextMatch>, text: &str| match wanted {
                Some(wanted) => wanted.matches(text),
                None => true,
            };
            asked.len() == 3
                && asked[0].is_empty()
                && is(service, &asked[1])
                && is(method, &asked[2])
        }
    };
    let headers = wanted.headers.iter().all(|wanted| {
        let value = header(request.headers, &wanted.name);
        value.is_some_and(|value| wanted.value.matches(&value))
    });
    let query = wanted.query.iter().all(|wanted| {
        let mut parameters = request.query.iter().flat_map(|query| query.split('&'));
        let value = parameters.find_map(|parameter| {
            let mut parts = parameter.splitn(2, '=').map(decoded);
            let name = parts.next().unwrap_or_default();
            (name == *wanted.name).then(|| parts.next().unwrap_or_default())
        });
        value.is_some_and(|value| wanted.value.matches(&value))
    });
    let method = wanted.method.as_ref().is_none_or(|method| method == request.method);
    path && headers && query && method
}

/// All values of `name`, with commas between them, where all are text.
fn header(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values = headers.get_all(name).iter().map(|it| String::from_utf8(it.as_bytes().to_vec()));
    let values: Vec<String> = values.collect::<Result<_, _>>().ok()?;
    (!values.is_empty()).then(|| values.join(","))
}

/// As HTML forms encode it, one byte after the other.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let hex = behind.get(..2).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let hex = hex.and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        (rest, bytes) = match (first, hex) {
            (b'%', Some(byte)) => (&behind[2..], [bytes, vec![byte]].concat()),
            (b'+', _) => (behind, [bytes, vec![b' ']].concat()),
            _ => (behind, [bytes, vec![*first]].concat()),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
