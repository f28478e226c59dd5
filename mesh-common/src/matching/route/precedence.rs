//! The order in which matches are asked.

use std::cmp::Reverse;

use crate::model::{NamespacedName, PathMatch, Route, RouteMatch, TextMatch};

/// How specific a match is; the smallest is asked first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Precedence<'r> {
    path: PathRank,
    method: Reverse<bool>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    created: i64,
    name: &'r NamespacedName,
    rule: usize,
    by: usize,
}

/// How specific a path is. Routes of both kinds are never asked together.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathRank {
    Exact,
    Pattern { written: Reverse<usize> },
    Prefix { written: Reverse<usize> },
    Grpc { service: Reverse<usize>, method: Reverse<usize> },
}

/// The precedence of match `by` of rule `rule` of `route`.
pub(super) fn precedence<'r>(
    route: &'r Route,
    rule: usize,
    by: usize,
    wanted: &RouteMatch,
) -> Precedence<'r> {
    let written = |text: &Option<TextMatch>| Reverse(text.as_ref().map_or(0, TextMatch::written));
    let path = match &wanted.path {
        PathMatch::Exact(_) => PathRank::Exact,
        PathMatch::Pattern(pattern) => {
            PathRank::Pattern { written: Reverse(pattern.as_str().len()) }
        }
        PathMatch::Prefix(prefix) => PathRank::Prefix { written: Reverse(prefix.len()) },
        PathMatch::Grpc { service, method } => {
            PathRank::Grpc { service: written(service), method: written(method) }
        }
    };
    Precedence {
        path,
        method: Reverse(wanted.method.is_some()),
        headers: Reverse(wanted.headers.len()),
        query: Reverse(wanted.query.len()),
        created: route.created,
        name: &route.name,
        rule,
        by,
    }
}
