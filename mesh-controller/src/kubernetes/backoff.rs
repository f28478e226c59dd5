//! How long to wait before the API server is asked again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(30);
/// What went well for so long is not counted as a failure.
const WELL: Duration = Duration::from_secs(10);

/// Doubles with every failure, with jitter: a server that comes back is not met by everybody at
/// once.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next wait, after something that lasted for `lasted`; `asked` is how long the server
    /// said to wait at least.
    pub fn next(&mut self, lasted: Duration, asked: Option<Duration>) -> Duration {
        if lasted >= WELL {
            self.failures = 0;
        }
        let full = FIRST.saturating_mul(1 << self.failures.min(16)).min(MOST);
        self.failures = self.failures.saturating_add(1);
        let jittered = full.mul_f64(0.5 + fastrand::f64() / 2.0);
        let asked = asked.map(|asked| asked.min(MOST).mul_f64(1.0 + fastrand::f64() / 2.0));
        jittered.max(asked.unwrap_or_default())
    }

    /// Forgets the failures.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_bound_and_spreads() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.next(Duration::ZERO, None)).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST, "{waits:?}");
        assert!(waits[11] >= MOST / 2 && waits[11] <= MOST, "{waits:?}");
        assert_ne!(waits[10], waits[11], "jitter");
        assert!(backoff.next(WELL, None) <= FIRST, "it went well meanwhile");
        assert!(backoff.next(WELL, Some(Duration::from_secs(4))) >= Duration::from_secs(4));
    }
}
