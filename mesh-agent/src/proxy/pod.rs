//! One captured pod as the proxy serves it: how many connections live, and whether it goes on.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::watch;

use super::deliver::SourcePorts;
use crate::capture::enroll::Pod;

/// The life of a served pod, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// New connections are accepted.
    Serving,
    /// The pod left the mesh: what still arrives is served, and nobody is sent here any more.
    Draining,
    /// Listeners are closed.
    Stopped,
}

/// A captured pod that the proxy serves.
pub struct ServedPod {
    /// The pod itself.
    pub pod: Arc<Pod>,
    pub(super) source_ports: SourcePorts,
    connections: AtomicUsize,
    state: watch::Sender<State>,
}

impl ServedPod {
    pub(super) fn new(pod: Arc<Pod>) -> Self {
        let (state, _) = watch::channel(State::Serving);
        let source_ports = SourcePorts::of(&pod.netns);
        Self { pod, source_ports, connections: AtomicUsize::new(0), state }
    }

    /// Counts a connection for as long as the guard lives.
    pub(super) fn enter(self: &Arc<Self>) -> ConnectionGuard {
        self.connections.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard { pod: self.clone() }
    }

    /// How many proxied connections live now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn is_draining(&self) -> bool {
        *self.state.borrow() >= State::Draining
    }

    pub(super) fn drain(&self) {
        self.advance(State::Draining);
    }

    pub(super) fn stop(&self) {
        self.advance(State::Stopped);
    }

    /// Returns when listeners shall close.
    pub(super) async fn stopped(&self) {
        // An error means that the sender is gone, and the sender is `self`.
        let _ = self.state.subscribe().wait_for(|state| *state == State::Stopped).await;
    }

    /// Moves forward, never back.
    fn advance(&self, to: State) {
        self.state.send_if_modified(|state| {
            let forward = *state < to;
            *state = (*state).max(to);
            forward
        });
    }
}

/// One live connection of a pod.
pub(super) struct ConnectionGuard {
    pod: Arc<ServedPod>,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.pod.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
