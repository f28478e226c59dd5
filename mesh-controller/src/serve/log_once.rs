//! Refusals that are worth one line, not one a retry.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A refusal that goes on is said again after so long.
const AGAIN: Duration = Duration::from_secs(3600);
/// So many different refusals are told apart; beyond it somebody is making them up.
const MOST: usize = 1024;

/// Remembers what was logged.
#[derive(Default)]
pub(super) struct LogOnce {
    said: Mutex<Option<(Instant, BTreeSet<String>)>>,
}

impl LogOnce {
    /// Whether `what` has not been said within the hour.
    pub fn is_new(&self, what: String) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, texts) = said.get_or_insert_with(|| (Instant::now(), BTreeSet::new()));
        if since.elapsed() > AGAIN {
            (*since, *texts) = (Instant::now(), BTreeSet::new());
        }
        texts.len() < MOST && texts.insert(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_each_thing_once_and_not_without_end() {
        let log = LogOnce::default();
        assert!(log.is_new("a".into()));
        assert!(!log.is_new("a".into()));
        let said = (0..2 * MOST).filter(|at| log.is_new(at.to_string())).count();
        assert_eq!(said, MOST - 1);
    }
}
