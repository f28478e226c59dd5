//! Kernel maps that get full, and those that were: said once, and not again at every look.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    capture::{MapUse, OVERFLOWS},
    status::Status,
};

/// A map is worth a new warning only once less than so many percent of it were taken.
const RELAXED: u64 = 80;
/// How often the log says at most that there was no room in a map.
const PAUSE: Duration = Duration::from_secs(60);

/// What was said, and what was not said yet.
#[derive(Debug, Default)]
pub struct Pressure {
    /// Maps that the log called almost full.
    warned: BTreeSet<&'static str>,
    overflows: BTreeMap<&'static str, Counted>,
}

#[derive(Debug)]
struct Counted {
    total: u64,
    unsaid: u64,
    said: Option<Instant>,
}

impl Pressure {
    /// Warns of maps that have become almost full.
    pub fn look_at_maps(&mut self, maps: &[MapUse]) {
        for warning in self.crossed(maps) {
            tracing::warn!("{warning}");
        }
    }

    /// Tells of every counter that says "there was no room" and has risen since the last look.
    pub fn look_at_counters(
        &mut self,
        now: Instant,
        counters: &[(&'static str, u64)],
        status: &Status,
    ) {
        for overflow in OVERFLOWS {
            let total = counters.iter().find(|(name, _)| *name == overflow.counter);
            let Some((_, total)) = total else { continue };
            // What an earlier agent's programs counted is no news.
            let first = || Counted { total: *total, unsaid: 0, said: None };
            let counted = self.overflows.entry(overflow.counter).or_insert_with(first);
            if *total > counted.total {
                status.incident(overflow.problem());
            }
            if let Some(times) = counted.news(now, *total) {
                let counter = overflow.counter;
                tracing::error!(counter, times, "{}", overflow.problem());
            }
        }
    }

    fn crossed(&mut self, maps: &[MapUse]) -> Vec<String> {
        let mut warnings = Vec::new();
        for used in maps {
            let name = used.map.name;
            match used.problem() {
                Some(problem) if self.warned.insert(name) => warnings.push(problem),
                None if !used.has_reached(RELAXED) => drop(self.warned.remove(name)),
                _ => {}
            }
        }
        warnings
    }
}

impl Counted {
    /// How often it happened since that was last said, if it is to be said now.
    fn news(&mut self, now: Instant, total: u64) -> Option<u64> {
        self.unsaid += total.saturating_sub(self.total);
        self.total = total;
        let is_early = self.said.is_some_and(|said| now.duration_since(said) < PAUSE);
        if self.unsaid == 0 || is_early {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::SIZED_MAPS;

    #[test]
    fn one_warning_for_each_crossing() {
        let mut pressure = Pressure::default();
        let mut warned = Vec::new();
        for entries in [89, 90, 100, 85, 95, 79, 90, 90] {
            let used = MapUse { map: &SIZED_MAPS[0], entries, capacity: 100 };
            if !pressure.crossed(&[used]).is_empty() {
                warned.push(entries);
            }
        }
        // Not at 95, before which it had not fallen below 80.
        assert_eq!(warned, [90, 90]);
    }

    #[test]
    fn what_found_no_room_is_said_once_a_minute_and_all_of_it() {
        let (start, status) = (Instant::now(), Status::default());
        let mut pressure = Pressure::default();
        let mut look = |after, total| {
            let now = start + Duration::from_secs(after);
            pressure.look_at_counters(now, &[("publish_failed", total)], &status);
            let counted = &pressure.overflows["publish_failed"];
            (counted.unsaid, counted.said.map(|said| said.duration_since(start).as_secs()))
        };
        assert_eq!(look(0, 7), (0, None), "an earlier agent's");
        assert_eq!(look(2, 9), (0, Some(2)), "at once");
        assert_eq!(look(4, 12), (3, Some(2)));
        assert_eq!(look(60, 12), (3, Some(2)));
        assert_eq!(look(62, 13), (0, Some(62)));
        let problems = status.to_wire("node-1", 0).problems;
        let told = problems.iter().filter(|it| it.contains("ORIGINAL_DESTINATIONS"));
        assert_eq!(told.count(), 1, "{problems:?}");
    }
}
