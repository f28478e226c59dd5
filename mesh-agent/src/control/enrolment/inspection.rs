//! The look at the kernel every two seconds: hooks that someone removed, maps that get full, pods
//! that got another interface.

use std::time::{Duration, Instant};

use super::{Captor, pressure::Pressure};
use crate::status::{Hook, Status};

/// A hook that was removed is noticed within this (design: within 5 s).
const INSPECTION: Duration = Duration::from_secs(2);
/// How often maps are counted, and interfaces of pods: five empty maps of 65,536 entries take the
/// kernel some milliseconds.
const COUNTING: Duration = Duration::from_secs(10);

/// What was seen at the last look.
#[derive(Debug, Default)]
pub struct Inspection {
    looked: Option<Instant>,
    counted: Option<Instant>,
    hooks: Vec<Hook>,
    pressure: Pressure,
}

impl Inspection {
    /// Looks if it is time, tells log and status what is new, and gives back when to look again.
    pub fn look(&mut self, now: Instant, captor: &mut impl Captor, status: &Status) -> Instant {
        if let Some(at) = self.looked.filter(|at| now.duration_since(*at) < INSPECTION) {
            return at + INSPECTION;
        }
        self.looked = Some(now);
        let (hooks, counters) = captor.inspect();
        report_hooks(&self.hooks, &hooks, status);
        self.pressure.look_at_counters(now, &counters, status);
        status.set_kernel(hooks.clone(), counters);
        self.hooks = hooks;
        if self.counted.is_none_or(|at| now.duration_since(at) >= COUNTING) {
            self.counted = Some(now);
            captor.look_around();
            match captor.map_use() {
                Ok(maps) => {
                    self.pressure.look_at_maps(&maps);
                    status.set_maps(maps);
                }
                Err(error) => tracing::warn!(error, "cannot count what the kernel maps hold"),
            }
        }
        now + INSPECTION
    }
}

/// Says in log and status what was found detached and what was put back.
fn report_hooks(before: &[Hook], now: &[Hook], status: &Status) {
    for hook in now {
        let earlier = before.iter().find(|earlier| earlier.name == hook.name);
        let repaired = hook.repairs > earlier.map_or(0, |earlier| earlier.repairs);
        let name = &hook.name;
        if repaired {
            tracing::error!(hook = name, "a kernel hook was removed by someone");
            tracing::info!(hook = name, repairs = hook.repairs, "put the kernel hook back");
            status.incident(format!(
                "kernel hook {name} was found detached and was put back: something on this node \
                 removes BPF programs"
            ));
        } else if !hook.attached && earlier.is_none_or(|earlier| earlier.attached) {
            let error = hook.error.as_deref().unwrap_or_default();
            tracing::error!(hook = name, error, "a kernel hook is not attached");
        } else if hook.attached && earlier.is_some_and(|earlier| !earlier.attached) {
            tracing::info!(hook = name, "the kernel hook is attached again");
        }
    }
}
