//! The order in which matches are asked.

use std::{cmp::Reverse, sync::Arc};

use super::table::{At, wanted};
use crate::model::{NamespacedName, PathMatch, Route, TextMatch};

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

/// What puts one match before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// Its path is more specific.
    Path,
    /// It asks for a method.
    Method,
    /// It asks for more headers.
    Headers,
    /// It asks for more query parameters.
    Query,
    /// Its route is older.
    Age,
    /// Its route comes first by namespace and name.
    Name,
    /// It is in an earlier rule of the same route.
    Rule,
    /// It is an earlier match of the same rule.
    Match,
}

impl Precedence<'_> {
    /// The first that tells it from `other`.
    pub(super) fn differs_from(&self, other: &Self) -> Criterion {
        let differs = [
            (self.path != other.path, Criterion::Path),
            (self.method != other.method, Criterion::Method),
            (self.headers != other.headers, Criterion::Headers),
            (self.query != other.query, Criterion::Query),
            (self.created != other.created, Criterion::Age),
            (self.name != other.name, Criterion::Name),
            (self.rule != other.rule, Criterion::Rule),
        ];
        differs.into_iter().find(|(differs, _)| *differs).map_or(Criterion::Match, |(_, it)| it)
    }
}

/// The precedence of the match that is `at` that place of `routes`.
pub(super) fn precedence(routes: &[Arc<Route>], at: At) -> Precedence<'_> {
    let (route, wanted) = (&routes[at.route], wanted(routes, at));
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
        rule: at.rule,
        by: at.by,
    }
}
