//! Whether one match accepts a request.

use super::{Request, header, path, query};
use crate::model::{PathMatch, RouteMatch, TextMatch};

/// Whether `request` has all that `wanted` asks for.
pub(super) fn accepts(wanted: &RouteMatch, request: Request<'_>) -> bool {
    wanted.method.as_ref().is_none_or(|method| method == request.method)
        && accepts_path(&wanted.path, request.path)
        && wanted.headers.iter().all(|wanted| {
            header::value(request.headers, &wanted.name)
                .is_some_and(|value| wanted.value.matches(&value))
        })
        && wanted.query.iter().all(|parameter| {
            query::first(request.query, &parameter.name)
                .is_some_and(|value| parameter.value.matches(&value))
        })
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
