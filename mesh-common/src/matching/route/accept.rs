//! Whether one match accepts a request.

use http::Method;

use super::{Request, header, path, query};
use crate::model::{HeaderMatch, PathMatch, QueryMatch, RouteMatch, TextMatch};

/// Whether `request` has all that `wanted` asks for.
pub(super) fn accepts(wanted: &RouteMatch, request: Request<'_>) -> bool {
    accepts_method(wanted, request)
        && accepts_path(&wanted.path, request.path)
        && wanted.headers.iter().all(|wanted| accepts_header(wanted, request))
        && wanted.query.iter().all(|wanted| accepts_query(wanted, request))
}

/// Something that a match asks for and a request has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch<'m> {
    /// The path.
    Path(&'m PathMatch),
    /// The method.
    Method(&'m Method),
    /// A header.
    Header(&'m HeaderMatch),
    /// A query parameter.
    Query(&'m QueryMatch),
}

/// All that `wanted` asks for and `request` has not; nothing where it [`accepts`] it.
pub(super) fn mismatches<'m>(wanted: &'m RouteMatch, request: Request<'_>) -> Vec<Mismatch<'m>> {
    let path = (!accepts_path(&wanted.path, request.path)).then_some(Mismatch::Path(&wanted.path));
    let method = wanted.method.as_ref().filter(|_| !accepts_method(wanted, request));
    let headers = wanted.headers.iter().filter(|it| !accepts_header(it, request));
    let query = wanted.query.iter().filter(|it| !accepts_query(it, request));
    (path.into_iter())
        .chain(method.map(Mismatch::Method))
        .chain(headers.map(Mismatch::Header))
        .chain(query.map(Mismatch::Query))
        .collect()
}

fn accepts_method(wanted: &RouteMatch, request: Request<'_>) -> bool {
    wanted.method.as_ref().is_none_or(|method| method == request.method)
}

fn accepts_header(wanted: &HeaderMatch, request: Request<'_>) -> bool {
    let value = header::value(request.headers, &wanted.name);
    value.is_some_and(|value| wanted.value.matches(&value))
}

fn accepts_query(wanted: &QueryMatch, request: Request<'_>) -> bool {
    let value = query::first(request.query, &wanted.name);
    value.is_some_and(|value| wanted.value.matches(&value))
}

fn accepts_path(wanted: &PathMatch, asked: &str) -> bool {
    match wanted {
        PathMatch::Exact(exact) => **exact == *asked,
        PathMatch::Prefix(prefix) => path::after_prefix(asked, prefix).is_some(),
        PathMatch::Pattern(pattern) => pattern.matches(asked),
        PathMatch::Grpc { service, method } => {
            let is = |wanted: &Option<TextMatch>, text: &str| {
                wanted.as_ref().is_none_or(|wanted| wanted.matches(text))
            };
            path::grpc(asked).is_some_and(|called| is(service, called.0) && is(method, called.1))
        }
    }
}
