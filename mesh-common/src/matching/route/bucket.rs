//! The matches that share a path, filed by a header or a query parameter that they ask for.

use std::collections::HashMap;

use http::HeaderName;

use super::{Request, accept::accepts, header, query};
use crate::model::{RouteMatch, TextMatch};

/// A match's place in the order of precedence, 0 first.
pub(super) type Rank = usize;

/// Matches by the value that they ask for, best first.
type ByValue = HashMap<Box<str>, Vec<Rank>>;

#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// By the value of a header, for each name that some match asks for by equality.
    by_header: Vec<(HeaderName, ByValue)>,
    /// By the value of a query parameter, for each name likewise.
    by_query: Vec<(Box<str>, ByValue)>,
    /// Those that ask for none by equality.
    others: Vec<Rank>,
}

impl Bucket {
    /// Takes in a match; those of lower rank have to come before.
    pub(super) fn insert(&mut self, rank: Rank, wanted: &RouteMatch) {
        let header = wanted.headers.iter().find_map(|it| Some((&it.name, exact(&it.value)?)));
        let parameter = wanted.query.iter().find_map(|it| Some((&*it.name, exact(&it.value)?)));
        let ranks = match (header, parameter) {
            (Some((name, value)), _) => {
                let values = entry(&mut self.by_header, |known| known == name, || name.clone());
                values.entry(value.into()).or_default()
            }
            (None, Some((name, value))) => {
                let values = entry(&mut self.by_query, |known| **known == *name, || name.into());
                values.entry(value.into()).or_default()
            }
            (None, None) => &mut self.others,
        };
        ranks.push(rank);
    }

    /// The best match that accepts `request` and is better than `known`.
    pub(super) fn best<'r>(
        &self,
        request: Request<'_>,
        known: Option<Rank>,
        wanted: impl Fn(Rank) -> &'r RouteMatch,
    ) -> Option<Rank> {
        let mut best = known;
        let mut found = None;
        let mut ask = |ranks: &[Rank]| {
            let better = ranks.iter().take_while(|rank| best.is_none_or(|best| **rank < best));
            if let Some(rank) = better.copied().find(|rank| accepts(wanted(*rank), request)) {
                best = Some(rank);
                found = best;
            }
        };
        for (name, values) in &self.by_header {
            let value = header::value(request.headers, name);
            if let Some(ranks) = value.and_then(|it| values.get(&*it)) {
                ask(ranks);
            }
        }
        for (name, values) in &self.by_query {
            if let Some(ranks) = query::first(request.query, name).and_then(|it| values.get(&*it)) {
                ask(ranks);
            }
        }
        ask(&self.others);
        found
    }
}

fn exact(value: &TextMatch) -> Option<&str> {
    match value {
        TextMatch::Exact(exact) => Some(exact),
        TextMatch::Pattern(_) => None,
    }
}

/// The values filed under the key that `is` it, which is `make`d where it is not there yet.
fn entry<K>(
    entries: &mut Vec<(K, ByValue)>,
    is: impl Fn(&K) -> bool,
    make: impl FnOnce() -> K,
) -> &mut ByValue {
    let at = entries.iter().position(|(key, _)| is(key)).unwrap_or_else(|| {
        entries.push((make(), ByValue::new()));
        entries.len() - 1
    });
    &mut entries[at].1
}
