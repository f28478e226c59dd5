//! Refusals are logged once a caller and reason: an attacker or a broken peer that comes back
//! a thousand times a second must not fill a disk. Flows and metrics count every one.

use std::{collections::HashSet, fmt::Display, sync::Mutex};

use super::{LOCK, failure::Failure};
use crate::capture::enroll::Pod;

/// How many callers and reasons are remembered; then everything is forgotten and may be logged
/// once more.
const REMEMBERED: usize = 1024;

/// What was logged already.
#[derive(Default)]
pub(super) struct RefusalLog {
    seen: Mutex<HashSet<String>>,
}

impl RefusalLog {
    /// Logs that `caller` was refused by `pod`, unless that was said before.
    pub(super) fn warn(&self, caller: impl Display, pod: &Pod, failure: &Failure) {
        if self.is_new(format!("{caller} {} {failure}", pod.identity)) {
            tracing::warn!(%caller, callee = %pod.identity, pod = %pod.name, reason = %failure, "refused");
        }
    }

    fn is_new(&self, refusal: String) -> bool {
        let mut seen = self.seen.lock().expect(LOCK);
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        seen.insert(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_everything_once_and_stays_bounded() {
        let log = RefusalLog::default();
        assert!(log.is_new("a".into()));
        assert!(!log.is_new("a".into()));
        for number in 0..2 * REMEMBERED {
            log.is_new(number.to_string());
        }
        assert!(log.seen.lock().expect(LOCK).len() <= REMEMBERED);
    }
}
