//! How long to wait before the next try: twice as long each time, up to a cap, with jitter so that
//! a cluster of agents does not knock at one door in step.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    time::Duration,
};

/// Doubling waits between a first one and a cap.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits that begin around `first` and end around `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, next: first }
    }

    /// The next wait: somewhere between half of the nominal one and all of it.
    pub fn wait(&mut self) -> Duration {
        let nominal = self.next;
        self.next = (nominal * 2).min(self.cap);
        nominal / 2 + (nominal / 2).mul_f64(fraction())
    }

    /// Begins again, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A number from 0 to 1, different each time. Good enough to spread load, not to keep a secret.
pub fn fraction() -> f64 {
    // Every RandomState has other keys; that saves a random number generator.
    let bits = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(bits >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_cap_and_begins_again() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for nominal in [1, 2, 4, 5, 5] {
            let nominal = Duration::from_secs(nominal);
            let wait = backoff.wait();
            assert!(wait >= nominal / 2 && wait <= nominal, "{wait:?} for {nominal:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= Duration::from_secs(1));
    }

    #[test]
    fn fractions_differ_and_stay_in_range() {
        let drawn: Vec<_> = (0..100).map(|_| fraction()).collect();
        assert!(drawn.iter().all(|it| (0.0..=1.0).contains(it)));
        assert!(drawn.iter().any(|it| *it != drawn[0]));
    }
}
