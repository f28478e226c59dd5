//! Whether what has to go on in the agent goes on, for `/livez`: one that is stuck had better be
//! started anew, because what it captured is refused meanwhile.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a loop may take for one turn. Each turns every two seconds where nothing is wrong.
const STUCK: Duration = Duration::from_secs(30);

/// When a loop turned last.
#[derive(Debug)]
pub struct Pulse(Mutex<Instant>);

impl Default for Pulse {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Pulse {
    /// Says that it turns.
    pub fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// As if it had not turned for a second too long.
    #[cfg(test)]
    pub fn stop(&self) {
        let before = Instant::now().checked_sub(STUCK + Duration::from_secs(1));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = before.expect("up for a minute");
    }

    /// When it turned last.
    pub fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loops that have to turn.
#[derive(Debug, Default)]
pub struct Liveness {
    pulses: Mutex<Vec<(&'static str, Arc<Pulse>)>>,
}

impl Liveness {
    /// Has the loop that is called `name` watched from now on.
    pub fn watch(&self, name: &'static str, pulse: Arc<Pulse>) {
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner).push((name, pulse));
    }

    /// What does not go on, one a line.
    pub fn stuck(&self) -> Vec<String> {
        let pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        let stuck = pulses.iter().map(|(name, pulse)| (name, pulse.last().elapsed()));
        stuck
            .filter(|(_, since)| *since > STUCK)
            .map(|(name, since)| format!("{name} is stuck for {} s", since.as_secs()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_turn_is_stuck_and_named() {
        let (liveness, stuck) = (Liveness::default(), Arc::<Pulse>::default());
        liveness.watch("heartbeat", Arc::default());
        liveness.watch("enrolment", Arc::clone(&stuck));
        assert!(liveness.stuck().is_empty());
        stuck.stop();
        assert_eq!(liveness.stuck(), ["enrolment is stuck for 31 s"]);
        stuck.beat();
        assert!(liveness.stuck().is_empty());
    }
}
