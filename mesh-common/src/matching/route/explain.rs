//! Why a request meets the rule that it meets, and no other.

use super::{
    Met, Request, Routes,
    accept::{Mismatch, mismatches},
    precedence::{Criterion, precedence},
};

/// A match of the routes and what came of it for one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Considered<'a> {
    /// The match.
    pub met: Met<'a>,
    /// What came of it.
    pub outcome: Outcome<'a>,
}

/// What came of a match for one request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome<'a> {
    /// It decides.
    Decides,
    /// It is for the request too, and the one that decides goes before it.
    Later(Criterion),
    /// It is not for the request, which lacks all of this.
    Mismatches(Vec<Mismatch<'a>>),
}

impl Routes {
    /// Every match, in the order in which they are asked, and what comes of it for `request`. The one
    /// that decides is what [`find`](Self::find) finds.
    pub fn explain(&self, request: Request<'_>) -> Vec<Considered<'_>> {
        let found = self.table.find(&self.routes, request);
        let order = |at| precedence(&self.routes, at);
        let consider = |at| {
            let met = self.met(at);
            let outcome = match found {
                Some(found) if found == at => Outcome::Decides,
                _ => match (mismatches(met.by, request), found) {
                    (none, Some(found)) if none.is_empty() => {
                        Outcome::Later(order(found).differs_from(&order(at)))
                    }
                    (mismatches, _) => Outcome::Mismatches(mismatches),
                },
            };
            Considered { met, outcome }
        };
        self.table.ranked().map(consider).collect()
    }
}
