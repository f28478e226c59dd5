//! Faults that tests ask for, and what requests were counted.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::StatusCode;
use tokio::sync::watch;

use crate::error::ApiError;

/// Requests that fail.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// How many are left to fail.
    pub requests: u64,
    /// What they are answered: 429, 500, 503 ...
    pub code: u16,
    /// Seconds for the header `Retry-After`.
    pub retry_after: Option<u64>,
    /// Only this verb (`list`, `watch`, `patch` ...).
    pub verb: Option<String>,
    /// Only this resource (`pods`).
    pub resource: Option<String>,
}

/// The faults of a server, shared with whoever asks for them.
pub struct Faults {
    state: Mutex<State>,
    cut: watch::Sender<Cut>,
}

/// How often watches were cut; a watch ends when a number is no longer what it was at its start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cut {
    /// At once, between two events.
    pub now: u64,
    /// In the middle of the next event.
    pub in_event: u64,
    /// With an ERROR event that says 410.
    pub gone: u64,
    /// Not an end: every watch that takes bookmarks gets one now.
    pub bookmark: u64,
}

#[derive(Default)]
struct State {
    delay: Duration,
    failures: Vec<Failure>,
    watches_gone: u64,
    counts: BTreeMap<(String, String), u64>,
    refusals: Vec<String>,
}

impl Faults {
    pub fn new() -> Self {
        Self { state: Mutex::default(), cut: watch::Sender::new(Cut::default()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Told of every cut.
    pub fn cuts(&self) -> watch::Receiver<Cut> {
        self.cut.subscribe()
    }

    /// Cuts, in the way that `change` says.
    pub fn cut(&self, change: impl FnOnce(&mut Cut)) {
        self.cut.send_modify(change);
    }

    /// Every answer waits this long.
    pub fn set_delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// How long an answer waits.
    pub fn delay(&self) -> Duration {
        self.state().delay
    }

    /// Adds requests that fail.
    pub fn fail(&self, failure: Failure) {
        self.state().failures.push(failure);
    }

    /// The next watches begin and end with 410.
    pub fn watches_gone(&self, watches: u64) {
        self.state().watches_gone = watches;
    }

    /// Whether a watch that begins now is one of those.
    pub fn watch_is_gone(&self) -> bool {
        let mut state = self.state();
        let gone = state.watches_gone > 0;
        state.watches_gone = state.watches_gone.saturating_sub(1);
        gone
    }

    /// Counts a request, and fails it if one was to fail.
    pub fn meet(&self, verb: &str, resource: &str) -> Result<(), ApiError> {
        let mut state = self.state();
        *state.counts.entry((verb.to_owned(), resource.to_owned())).or_default() += 1;
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|it| it == is);
        let failure = state.failures.iter_mut().find(|failure| {
            failure.requests > 0 && fits(&failure.verb, verb) && fits(&failure.resource, resource)
        });
        let Some(failure) = failure else { return Ok(()) };
        failure.requests -= 1;
        let code = StatusCode::from_u16(failure.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let error = ApiError::injected(code, failure.retry_after);
        state.failures.retain(|failure| failure.requests > 0);
        Err(error)
    }

    /// How many requests there were of each verb and resource.
    pub fn counts(&self) -> BTreeMap<(String, String), u64> {
        self.state().counts.clone()
    }

    /// Notes what roles did not allow.
    pub fn refused(&self, message: String) {
        self.state().refusals.push(message);
    }

    /// What roles did not allow, as clients were told.
    pub fn refusals(&self) -> Vec<String> {
        self.state().refusals.clone()
    }

    /// Begins to count anew.
    pub fn reset_counts(&self) {
        self.state().counts.clear();
    }

    /// Takes back what was asked for and has not happened yet.
    pub fn clear(&self) {
        let mut state = self.state();
        let counts = std::mem::take(&mut state.counts);
        let refusals = std::mem::take(&mut state.refusals);
        *state = State { counts, refusals, ..State::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_requests_fail_as_were_asked_for() {
        let faults = Faults::new();
        faults.fail(Failure {
            requests: 1,
            code: 429,
            retry_after: Some(2),
            verb: Some("list".into()),
            resource: None,
        });
        assert!(faults.meet("get", "pods").is_ok());
        let error = faults.meet("list", "pods").expect_err("asked for");
        assert_eq!((error.code.as_u16(), error.retry_after()), (429, Some(2)));
        assert!(faults.meet("list", "pods").is_ok());
        assert_eq!(faults.counts()[&("list".to_owned(), "pods".to_owned())], 2);
    }
}
