//! Refusals are logged once a caller and reason: an attacker or a broken peer that comes back
//! a thousand times a second must not fill a disk. Flows and metrics count every one.

use std::{
    collections::HashSet,
    fmt::Display,
    mem::{Discriminant, discriminant},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{LOCK, failure::Failure};
use crate::capture::enroll::Pod;

/// How many callers and reasons are remembered; then everything is forgotten and may be logged
/// once more.
const REMEMBERED: usize = 1024;

/// What was logged already.
#[derive(Default)]
pub(super) struct RefusalLog {
    seen: Mutex<HashSet<Refusal>>,
}

/// What counts as the same refusal. The peer's own words are no part of it: a stranger who says
/// something new each time would be logged each time.
type Refusal = (IpAddr, Arc<str>, Discriminant<Failure>);

impl RefusalLog {
    /// Logs that `caller` at `address` was refused by `pod`, unless that was said before.
    pub(super) fn warn(&self, caller: impl Display, address: IpAddr, pod: &Pod, failure: &Failure) {
        if self.is_new((address, pod.uid.clone(), discriminant(failure))) {
            tracing::warn!(%caller, callee = %pod.identity, pod = %pod.name, reason = %failure, "refused");
        }
    }

    fn is_new(&self, refusal: Refusal) -> bool {
        let mut seen = self.seen.lock().expect(LOCK);
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        seen.insert(refusal)
    }
}

/// Lets one message through a minute, whoever meets the same trouble.
#[derive(Default)]
pub(super) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether it is time for a message, which then counts as said.
    pub(super) fn is_due(&self) -> bool {
        let mut said = self.0.lock().expect(LOCK);
        let is_due = said.is_none_or(|at| at.elapsed() >= Duration::from_secs(60));
        if is_due {
            *said = Some(Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_is_told_once_in_a_while() {
        let seldom = Seldom::default();
        assert!(seldom.is_due());
        assert!(!seldom.is_due());
    }

    #[test]
    fn says_everything_once_and_stays_bounded() {
        let log = RefusalLog::default();
        let of = |address: u32, words: &str| {
            let failure = Failure::Handshake(words.to_owned());
            (IpAddr::from(address.to_be_bytes()), Arc::from("pod"), discriminant(&failure))
        };
        assert!(log.is_new(of(1, "who I am")));
        assert!(!log.is_new(of(1, "who I am now")));
        for number in 0..2 * REMEMBERED as u32 {
            log.is_new(of(number, ""));
        }
        assert!(log.seen.lock().expect(LOCK).len() <= REMEMBERED);
    }
}
