//! Handshakes of tunnels that have not ended, bounded for each pod.
//!
//! Whoever reaches a pod's HBONE port may begin one without proving anything, and holds a
//! descriptor of the agent meanwhile. Where too many have begun the oldest gives way: an honest
//! one takes milliseconds, so it is not among the oldest for long.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::oneshot;

use super::LOCK;

/// How many may be unfinished in one pod. Enough for every pod of a large cluster to come back at
/// once, and a thousandth of the descriptors that an agent usually has.
const LIMIT: usize = 1024;

/// The unfinished handshakes of one pod, by age.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    next: AtomicU64,
    unfinished: Mutex<BTreeMap<u64, oneshot::Sender<()>>>,
}

impl Handshakes {
    /// A place for one more, kept until it is dropped or overtaken.
    pub(super) fn enter(&self) -> Place<'_> {
        let (keep, kept) = oneshot::channel();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut unfinished = self.unfinished.lock().expect(LOCK);
        unfinished.insert(id, keep);
        if unfinished.len() > LIMIT {
            unfinished.pop_first();
        }
        drop(unfinished);
        Place { all: self, id, kept }
    }
}

/// One unfinished handshake.
pub(super) struct Place<'a> {
    all: &'a Handshakes,
    id: u64,
    kept: oneshot::Receiver<()>,
}

impl Place<'_> {
    /// Returns when this one has to give way.
    pub(super) async fn overtaken(&mut self) {
        // Nothing is ever sent: the sender is dropped.
        let _ = (&mut self.kept).await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.all.unfinished.lock().expect(LOCK).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_oldest_gives_way_and_an_ended_one_makes_room() {
        let handshakes = Handshakes::default();
        let mut places: Vec<_> = (0..LIMIT).map(|_| handshakes.enter()).collect();
        places.remove(1);
        places.push(handshakes.enter());
        assert!(places.iter_mut().all(|place| place.overtaken().now_or_never().is_none()));

        places.push(handshakes.enter());
        assert!(places[0].overtaken().now_or_never().is_some());
        assert!(places[1..].iter_mut().all(|place| place.overtaken().now_or_never().is_none()));
        drop(places);
        assert!(handshakes.unfinished.lock().expect(LOCK).is_empty());
    }
}
