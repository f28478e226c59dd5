//! All matches of some routes, filed by path.
//!
//! A request looks at those with its very path, at those with a prefix of it, and at those that
//! cannot be filed by path at all. Of each only the best is asked for, and nothing that is worse
//! than what was already found: how many routes there are hardly matters.

use std::{collections::HashMap, sync::Arc};

use super::{
    Request,
    bucket::{Bucket, Rank},
    precedence::precedence,
};
use crate::model::{PathMatch, Route, RouteMatch, TextMatch};

/// Where a match is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) route: usize,
    pub(super) rule: usize,
    pub(super) by: usize,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    /// Every match, best first: its index is its rank.
    ranked: Vec<At>,
    exact: HashMap<Box<str>, Bucket>,
    prefixes: HashMap<Box<str>, Bucket>,
    /// Length of the longest prefix: a path of a thousand slashes has no thousand to look up.
    longest_prefix: usize,
    others: Bucket,
}

impl Table {
    pub(super) fn new(routes: &[Arc<Route>]) -> Self {
        let mut ranked: Vec<At> = Vec::new();
        for (route, of) in routes.iter().enumerate() {
            for (rule, of) in of.rules.iter().enumerate() {
                ranked.extend((0..of.matches.len()).map(|by| At { route, rule, by }));
            }
        }
        ranked.sort_by_cached_key(|at| precedence(routes, *at));
        let mut table = Self::default();
        for (rank, at) in ranked.iter().enumerate() {
            let wanted = wanted(routes, *at);
            table.bucket(&wanted.path).insert(rank, wanted);
        }
        table.ranked = ranked;
        table
    }

    /// The best match that accepts `request`.
    pub(super) fn find(&self, routes: &[Arc<Route>], request: Request<'_>) -> Option<At> {
        let mut best: Option<Rank> = None;
        let mut look_into = |bucket: &Bucket| {
            let wanted = |rank: Rank| wanted(routes, self.ranked[rank]);
            best = bucket.best(request, best, wanted).or(best);
        };
        if let Some(bucket) = self.exact.get(request.path) {
            look_into(bucket);
        }
        look_into(&self.others);
        for prefix in prefixes(request.path, self.longest_prefix) {
            if let Some(bucket) = self.prefixes.get(prefix) {
                look_into(bucket);
            }
        }
        best.map(|rank| self.ranked[rank])
    }

    /// Every match, best first.
    pub(super) fn ranked(&self) -> impl Iterator<Item = At> {
        self.ranked.iter().copied()
    }

    fn bucket(&mut self, path: &PathMatch) -> &mut Bucket {
        match path {
            PathMatch::Exact(exact) => self.exact.entry((**exact).into()).or_default(),
            PathMatch::Prefix(prefix) => self.prefix_bucket(prefix),
            PathMatch::Grpc {
                service: Some(TextMatch::Exact(service)),
                method: Some(TextMatch::Exact(method)),
            } => self.exact.entry(format!("/{service}/{method}").into()).or_default(),
            PathMatch::Grpc { service: Some(TextMatch::Exact(service)), .. } => {
                self.prefix_bucket(&format!("/{service}"))
            }
            PathMatch::Pattern(_) | PathMatch::Grpc { .. } => &mut self.others,
        }
    }

    fn prefix_bucket(&mut self, prefix: &str) -> &mut Bucket {
        self.longest_prefix = self.longest_prefix.max(prefix.len());
        self.prefixes.entry(prefix.into()).or_default()
    }
}

pub(super) fn wanted(routes: &[Arc<Route>], at: At) -> &RouteMatch {
    &routes[at.route].rules[at.rule].matches[at.by]
}

/// `path` itself and what stands before each of its slashes, longest first, at most `longest`
/// bytes each.
fn prefixes(path: &str, longest: usize) -> impl Iterator<Item = &str> {
    let whole = (path.len() <= longest).then_some(path);
    // The slash behind a prefix of the longest length still counts.
    let end = path.len().min(longest + 1);
    let slashes = path.as_bytes()[..end].iter().enumerate().rev();
    let before = slashes.filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at]);
    whole.into_iter().chain(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_a_path_come_longest_first() {
        let of = |path, longest| prefixes(path, longest).collect::<Vec<_>>();
        assert_eq!(of("/a/bc/", 100), ["/a/bc/", "/a/bc", "/a", ""]);
        assert_eq!(of("/a/bc/", 2), ["/a", ""]);
        assert_eq!(of("/a/bc", 5), ["/a/bc", "/a", ""]);
        assert_eq!(of("*", 1), ["*"]);
        assert_eq!(of(&"/".repeat(9000), 0), [""]);
    }
}
