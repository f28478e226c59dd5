//! Refusals that the kernel remembers, so that the next connect() of the same caller to the same
//! place fails at once (`EPERM`), and what the first of them said.
//!
//! Whatever is not remembered the proxy decides: an entry only ever spares it a verdict. None is
//! older than the last change of what verdicts depend on, because [`Denials::flush`] follows each,
//! and what was asked for before a flush is not remembered after it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_common::bpf::{DENIALS, DenialKey};

use crate::{capture::sockets::SocketTable, observe::flow::Flow, sys};

/// How long a verdict of this node's own proxy is remembered: each change here forgets it, so this
/// only bounds what a mistake could cost.
pub const HERE: Duration = Duration::from_secs(10);
/// How long one of another node's proxy: policies there change unseen, and permission that is given
/// back is promised to work within 1 s.
pub const ELSEWHERE: Duration = Duration::from_secs(1);
/// How long it is known what a denial said after it is over: an event of the kernel's may wait
/// that long to be read.
const ECHO: Duration = Duration::from_secs(5);
/// How often what is over is looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// What the kernel remembers.
#[derive(Debug)]
pub struct Denials {
    sockets: Arc<SocketTable>,
    /// That of `table`, for those who only ask.
    flushes: AtomicU64,
    table: Mutex<Table>,
}

/// When a verdict was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    flushes: u64,
    at: u64,
}

impl Asked {
    /// Until when the verdict may be remembered, which was good for `time` when it was asked for.
    pub fn good_for(&self, time: Duration) -> u64 {
        self.at.saturating_add(nanos(time))
    }
}

impl Denials {
    /// Remembers nothing yet.
    pub fn new(sockets: Arc<SocketTable>) -> Self {
        Self { sockets, flushes: AtomicU64::new(0), table: Mutex::default() }
    }

    /// To be called before anything that a verdict depends on is looked at.
    pub fn ask(&self) -> Asked {
        // Whoever sees the number of a flush sees the change that it followed.
        Asked { flushes: self.flushes.load(Ordering::Acquire), at: now() }
    }

    /// Has `call` fail until `until`, and keeps what the kernel's refusals say; unless it was asked
    /// for before the last flush, or there is no room.
    pub fn remember(&self, asked: Asked, call: DenialKey, until: u64, said: &Arc<Flow>) {
        let mut table = self.table();
        for over in table.sweep(now()) {
            self.forget(&over);
        }
        if !table.insert(asked, call, Said { until, flow: Arc::clone(said) }) {
            return;
        }
        if let Err(error) = self.sockets.deny(&call, until) {
            tracing::debug!(%error, "a denial is not remembered");
        }
    }

    /// Until when `call` is remembered to fail, in nanoseconds of CLOCK_MONOTONIC.
    pub fn until(&self, call: &DenialKey) -> Option<u64> {
        let now = now();
        self.table().said.get(call).map(|said| said.until).filter(|until| now < *until)
    }

    /// What the proxy said of such a call when it refused the first one.
    pub fn said(&self, call: &DenialKey) -> Option<Arc<Flow>> {
        self.table().said.get(call).map(|said| Arc::clone(&said.flow))
    }

    /// Forgets every denial. To be called after each change of what verdicts depend on: policies,
    /// who is where, which pods are captured.
    pub fn flush(&self) {
        let mut table = self.table();
        let live = table.flush(now());
        self.flushes.store(table.flushes, Ordering::Release);
        for call in live {
            self.forget(&call);
        }
    }

    fn forget(&self, call: &DenialKey) {
        if let Err(error) = self.sockets.forget_denial(call) {
            tracing::error!(%error, "a denial that is over may hold for {HERE:?}");
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What each denial said. The kernel has none that is not here, so it never runs out of room.
#[derive(Debug, Default)]
struct Table {
    said: HashMap<DenialKey, Said>,
    swept: u64,
    flushes: u64,
}

#[derive(Debug)]
struct Said {
    until: u64,
    flow: Arc<Flow>,
}

impl Table {
    /// Whether it may be remembered, and there was room.
    fn insert(&mut self, asked: Asked, call: DenialKey, said: Said) -> bool {
        let has_room = self.said.len() < DENIALS as usize || self.said.contains_key(&call);
        let may_stay = has_room && self.flushes == asked.flushes;
        if may_stay {
            self.said.insert(call, said);
        }
        may_stay
    }

    /// Takes out what is over and has no echo any more, once in a while.
    fn sweep(&mut self, now: u64) -> Vec<DenialKey> {
        if now.saturating_sub(self.swept) < nanos(SWEEP) {
            return Vec::new();
        }
        self.swept = now;
        let is_over = |said: &mut Said| now >= said.until.saturating_add(nanos(ECHO));
        self.said.extract_if(|_, said| is_over(said)).map(|(call, _)| call).collect()
    }

    /// Ends every denial that is not over, and says which those are.
    fn flush(&mut self, now: u64) -> Vec<DenialKey> {
        self.flushes += 1;
        let live = self.said.iter_mut().filter(|(_, said)| now < said.until);
        live.map(|(call, said)| {
            said.until = now;
            *call
        })
        .collect()
    }
}

/// Nanoseconds of CLOCK_MONOTONIC. Should there be no clock, what is remembered is over already.
fn now() -> u64 {
    sys::monotonic().unwrap_or_default()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::tests::flow;

    fn call(port: u32) -> DenialKey {
        DenialKey { netns: 1, port, ..DenialKey::default() }
    }

    /// When so many flushes had been.
    fn asked(flushes: u64) -> Asked {
        Asked { flushes, at: 0 }
    }

    fn said(until: Duration) -> Said {
        Said { until: nanos(until), flow: Arc::new(flow(1)) }
    }

    #[test]
    fn what_is_over_is_known_a_little_longer() {
        let mut table = Table::default();
        assert!(table.insert(asked(0), call(1), said(HERE)));
        let early = nanos(HERE + ECHO) - 1;
        assert_eq!(table.sweep(early), []);
        assert!(table.said.contains_key(&call(1)));
        assert_eq!(table.sweep(early + nanos(SWEEP)), [call(1)]);
        assert!(table.said.is_empty());
    }

    #[test]
    fn a_flush_ends_what_is_live_once_and_leaves_what_it_said() {
        let mut table = Table::default();
        table.insert(asked(0), call(1), said(HERE));
        table.insert(asked(0), call(2), said(ELSEWHERE));
        let now = nanos(ELSEWHERE);
        assert_eq!(table.flush(now), [call(1)]);
        assert_eq!(table.flush(now), []);
        assert_eq!(table.said[&call(1)].until, now);
        assert_eq!(table.said.len(), 2);
    }

    #[test]
    fn what_was_asked_before_a_flush_is_not_remembered_after_it() {
        let mut table = Table::default();
        table.flush(0);
        assert!(!table.insert(asked(0), call(1), said(HERE)));
        assert!(table.insert(asked(1), call(1), said(HERE)));
    }

    #[test]
    fn a_full_table_takes_no_more_and_renews_what_it_has() {
        let mut table = Table::default();
        for port in 0..DENIALS {
            assert!(table.insert(asked(0), call(port), said(ELSEWHERE)));
        }
        assert!(!table.insert(asked(0), call(DENIALS), said(HERE)));
        assert!(table.insert(asked(0), call(1), said(HERE)));
        assert_eq!(table.said[&call(1)].until, nanos(HERE));
    }
}
