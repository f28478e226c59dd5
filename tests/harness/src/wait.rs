//! Waiting for something to become true, with a deadline and a reason when it does not.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How often a condition is looked at: small against every deadline, large against its cost.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks `look` until it finds something; fails after `deadline`, saying that `what` did not
/// happen.
///
/// An error of `look` ends the wait at once: it means that waiting longer cannot help.
pub fn until<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("waited {deadline:?} in vain: {what}");
        }
        sleep(PAUSE);
    }
}
