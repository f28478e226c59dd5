//! Whether a request is sent once more. Pure.

use std::time::Duration;

use http::{Method, StatusCode};
use mesh_common::model::Retry;

/// How many endpoints are tried where no rule says anything (design: retry once and only where
/// connecting failed).
const CONNECTS: u32 = 2;
/// Waits double, up to this many times the first.
const LONGEST: u32 = 10;

/// The tries of one request.
#[derive(Debug)]
pub(super) struct Retries<'r> {
    rule: Option<&'r Retry>,
    /// Tries that failed before.
    made: u32,
    connects: u32,
}

impl<'r> Retries<'r> {
    pub(super) fn new(rule: Option<&'r Retry>) -> Self {
        Self { rule, made: 0, connects: 0 }
    }

    /// Whether the rule asks for retries.
    pub(super) fn are_asked_for(&self) -> bool {
        self.rule.is_some()
    }

    /// How often the request was sent once more because the rule asks for that.
    pub(super) fn made(&self) -> u32 {
        self.made
    }

    /// Whether a response with `status` is to be followed by another try.
    pub(super) fn wants_status(&self, status: StatusCode) -> bool {
        self.may() && self.rule.is_some_and(|rule| rule.codes.contains(&status.as_u16()))
    }

    /// After a try that got no connection: how long to wait before the next; `None` where there is
    /// none.
    pub(super) fn after_connect(&mut self, random: f64) -> Option<Duration> {
        self.connects += 1;
        match self.rule {
            Some(_) => self.next(random),
            None => (self.connects < CONNECTS).then_some(Duration::ZERO),
        }
    }

    /// After a connection that broke, or a response that the rule does not want.
    pub(super) fn next(&mut self, random: f64) -> Option<Duration> {
        let rule = self.rule.filter(|_| self.may())?;
        let growth = 1_u32.checked_shl(self.made).unwrap_or(LONGEST).min(LONGEST);
        self.made += 1;
        // The rule's time is the least; what comes on top spreads those that failed together.
        Some(rule.backoff + (rule.backoff * growth).mul_f64(random))
    }

    fn may(&self) -> bool {
        self.rule.is_some_and(|rule| self.made < rule.attempts)
    }
}

/// Whether sending a request twice is the same as sending it once (RFC 9110, section 9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE]
        .contains(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Retry {
        Retry { codes: vec![503], attempts: 2, backoff: Duration::from_millis(10) }
    }

    #[test]
    fn a_rule_allows_so_many_retries_and_no_more() {
        let rule = rule();
        let mut retries = Retries::new(Some(&rule));
        let status = |code| StatusCode::from_u16(code).expect("a status");
        assert!(retries.wants_status(status(503)) && !retries.wants_status(status(500)));
        assert_eq!(retries.next(0.0), Some(Duration::from_millis(10)));
        assert_eq!(retries.next(1.0), Some(Duration::from_millis(30)));
        assert!(!retries.wants_status(status(503)));
        assert_eq!((retries.next(0.0), retries.after_connect(0.0)), (None, None));
        assert_eq!(retries.made(), 2);
    }

    #[test]
    fn without_a_rule_only_connecting_is_tried_again_and_once() {
        let mut retries = Retries::new(None);
        assert_eq!(retries.next(0.0), None);
        assert_eq!(retries.after_connect(0.0), Some(Duration::ZERO));
        assert_eq!(retries.after_connect(0.0), None);
        assert_eq!(retries.made(), 0);
    }

    #[test]
    fn waits_are_bounded() {
        let rule = Retry { attempts: 100, ..rule() };
        let mut retries = Retries::new(Some(&rule));
        let longest = (0..100).filter_map(|_| retries.next(1.0)).max();
        assert_eq!(longest, Some(Duration::from_millis(110)));
    }
}
