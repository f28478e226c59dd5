//! The table of routes against the specification, read aloud.

#![no_main]

use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};
use mesh_common::{
    matching::route::{Outcome, Request, Routes, path, reference},
    model::{
        HeaderMatch, NamespacedName, PathMatch, PathModifier, Pattern, QueryMatch, Route,
        RouteKind, RouteMatch, RouteParent, RouteRule, TextMatch, Timeouts,
    },
};

const METHODS: [Method; 3] = [Method::GET, Method::POST, Method::PUT];
const NAMES: [&str; 3] = ["x", "y", "x-z"];
/// Few, so that what is asked for is often there.
const VALUES: [&str; 5] = ["1", "2", "1,2", "a b", ""];
const ELEMENTS: [&str; 4] = ["a", "b", "ab", ""];
/// `x=1` and what is close to it, as clients write it.
const PARAMETERS: [&str; 8] =
    ["x=1", "%78=1", "x=2", "y=a+b", "y=a%20b", "x-z", "x=%31%2C2", "y=1=2"];
/// What the rest is made of.
const PIECES: [&str; 15] =
    ["/", "a", "b", "A", "=", "&", "+", "%61", "%2", "%ff", "1", ",", ".", "é", ""];
/// Compiled once: that takes longer than all the rest.
static PATTERNS: LazyLock<[Pattern; 6]> = LazyLock::new(|| {
    let pattern = |text: &str| text.parse().expect("a literal pattern");
    ["/a.*", "/[ab]+", ".*b", "[12]", "a|b", ""].map(pattern)
});

fuzz_target!(|bytes: &[u8]| {
    // Where the bytes end, so does the case.
    let _ = compare(&mut Unstructured::new(bytes));
});

fn compare(u: &mut Unstructured<'_>) -> Result<()> {
    let kind = *u.choose(&[RouteKind::Http, RouteKind::Grpc])?;
    let mut routes = Vec::new();
    for at in 0..u.int_in_range(1..=5)? {
        routes.push(route(u, kind, at)?);
    }
    let shared: Vec<_> = routes.iter().cloned().map(Arc::new).collect();
    let table = Routes::attached(&shared, &service(), 80, "shop");
    for _ in 0..u.int_in_range(1..=4_u8)? {
        let (method, path) = (u.choose(&METHODS)?, path_text(u)?);
        let query = if u.arbitrary()? { Some(text(u, &PARAMETERS, "&")?) } else { None };
        let mut headers = HeaderMap::new();
        for _ in 0..u.int_in_range(0..=3_u8)? {
            let value =
                if u.ratio(1, 8)? { b"\xff".to_vec() } else { text(u, &VALUES, "")?.into_bytes() };
            let value = HeaderValue::from_bytes(&value).expect("no control characters");
            headers.append(*u.choose(&NAMES)?, value);
        }
        let request = Request { method, path: &path, query: query.as_deref(), headers: &headers };
        let met = table.find(request);
        assert_eq!(met, reference::find(&routes, request), "{request:?}");
        let explained = table.explain(request);
        let decides = explained.iter().find(|it| matches!(it.outcome, Outcome::Decides));
        assert_eq!(decides.map(|it| it.met), met, "{request:?} is explained otherwise");
        if let Some(met) = met {
            let modifier = PathModifier::Prefix(path_text(u)?.into());
            path::modified(&path, &modifier, &met.by.path);
        }
    }
    Ok(())
}

fn service() -> NamespacedName {
    NamespacedName::new("shop", "web")
}

/// A path, a query or a value: now and then anything, else several of `parts`.
fn text(u: &mut Unstructured<'_>, parts: &[&str], between: &str) -> Result<String> {
    let is_free = u.ratio(1, 8)?;
    let (parts, between) = if is_free { (&PIECES[..], "") } else { (parts, between) };
    let most = if is_free { 6 } else { 3 };
    let count = if between.is_empty() && !is_free { 1 } else { u.int_in_range(1..=most)? };
    let parts: Vec<_> = (0..count).map(|_| u.choose(parts).copied()).collect::<Result<_>>()?;
    Ok(parts.join(between))
}

fn path_text(u: &mut Unstructured<'_>) -> Result<String> {
    Ok(format!("/{}", text(u, &ELEMENTS, "/")?))
}

fn text_match(u: &mut Unstructured<'_>, values: &[&str]) -> Result<TextMatch> {
    Ok(if u.ratio(1, 4)? {
        TextMatch::Pattern(u.choose(&*PATTERNS)?.clone())
    } else {
        TextMatch::Exact(text(u, values, "")?.into())
    })
}

fn path_match(u: &mut Unstructured<'_>, kind: RouteKind) -> Result<PathMatch> {
    if kind == RouteKind::Grpc {
        let mut part =
            || if u.arbitrary()? { text_match(u, &ELEMENTS).map(Some) } else { Ok(None) };
        return Ok(PathMatch::Grpc { service: part()?, method: part()? });
    }
    Ok(match u.int_in_range(0..=2_u8)? {
        0 => PathMatch::Exact(path_text(u)?.into()),
        1 => PathMatch::Prefix(path_text(u)?.trim_end_matches('/').into()),
        _ => PathMatch::Pattern(u.choose(&*PATTERNS)?.clone()),
    })
}

fn route_match(u: &mut Unstructured<'_>, kind: RouteKind) -> Result<RouteMatch> {
    let path = path_match(u, kind)?;
    let method = if u.ratio(1, 4)? { Some(u.choose(&METHODS)?.clone()) } else { None };
    let (mut headers, mut query) = (Vec::new(), Vec::new());
    for name in NAMES {
        if u.ratio(1, 4)? {
            headers.push(HeaderMatch {
                name: HeaderName::from_static(name),
                value: text_match(u, &VALUES)?,
            });
        }
        if u.ratio(1, 4)? {
            query.push(QueryMatch { name: name.into(), value: text_match(u, &VALUES)? });
        }
    }
    Ok(RouteMatch { path, method, headers, query })
}

fn route(u: &mut Unstructured<'_>, kind: RouteKind, at: u8) -> Result<Route> {
    let mut rules = Vec::new();
    for rule in 0..u.int_in_range(0..=3_u8)? {
        let mut matches = Vec::new();
        for _ in 0..u.int_in_range(0..=3_u8)? {
            matches.push(route_match(u, kind)?);
        }
        rules.push(RouteRule {
            name: rule.to_string().into(),
            matches,
            filters: Vec::new(),
            backends: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
        });
    }
    Ok(Route {
        name: NamespacedName::new("shop", &format!("r{at}")),
        kind,
        created: u.int_in_range(0..=1)?,
        parents: vec![RouteParent { service: service(), port: None }],
        hostnames: Vec::new(),
        rules,
    })
}
