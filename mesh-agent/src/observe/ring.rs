//! The last flows, in memory, and those who wait for the next one.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;

use super::flow::Flow;

/// How far a follower may fall behind before it misses flows.
const FOLLOWER_LAG: usize = 1024;

/// A bounded queue of flows. The lock is held for a push or for cloning pointers, nothing more.
#[derive(Debug)]
pub(super) struct Ring {
    flows: Mutex<VecDeque<Arc<Flow>>>,
    capacity: usize,
    followers: broadcast::Sender<Arc<Flow>>,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        let flows = Mutex::default();
        Self { flows, capacity, followers: broadcast::Sender::new(FOLLOWER_LAG) }
    }

    pub(super) fn push(&self, flow: Flow) {
        let flow = Arc::new(flow);
        let mut flows = self.lock();
        flows.push_back(Arc::clone(&flow));
        let oldest = if flows.len() > self.capacity { flows.pop_front() } else { None };
        // Within the lock, so that a follower sees each flow once; without followers it is free.
        if self.followers.receiver_count() > 0 {
            let _ = self.followers.send(flow);
        }
        drop(flows);
        // Freed when nobody waits.
        drop(oldest);
    }

    /// What is remembered, oldest first.
    pub(super) fn remembered(&self) -> Vec<Arc<Flow>> {
        self.lock().iter().cloned().collect()
    }

    /// What is remembered, and what comes after.
    pub(super) fn follow(&self) -> (Vec<Arc<Flow>>, broadcast::Receiver<Arc<Flow>>) {
        let flows = self.lock();
        let next = self.followers.subscribe();
        (flows.iter().cloned().collect(), next)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Flow>>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
