//! One captured pod as the proxy serves it: how many connections live, and whether it goes on.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use mesh_common::ports;
use tokio::sync::watch;

use super::{
    deliver::{SourcePorts, Wayward},
    failure::Failure,
    handshakes::Handshakes,
};
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
    pub(super) wayward: Wayward,
    /// Shared with earlier captures of the same pod, whose connections need its rule and
    /// settings as much.
    connections: Arc<AtomicUsize>,
    /// Whether its network namespace is gone; shared for the same reason.
    gone: Arc<watch::Sender<bool>>,
    pub(super) handshakes: Handshakes,
    state: watch::Sender<State>,
}

impl ServedPod {
    /// `pod`, as the successor of how it was served before, if it was.
    pub(super) fn new(pod: Arc<Pod>, earlier: Option<&Self>) -> Self {
        let (state, _) = watch::channel(State::Serving);
        let source_ports = SourcePorts::of(&pod.netns);
        let connections =
            earlier.map_or_else(Arc::default, |earlier| Arc::clone(&earlier.connections));
        let gone = earlier.map_or_else(Arc::default, |earlier| Arc::clone(&earlier.gone));
        let (wayward, handshakes) = (Wayward::default(), Handshakes::default());
        Self { pod, source_ports, wayward, connections, gone, handshakes, state }
    }

    /// Counts a connection for as long as the guard lives.
    pub(super) fn enter(&self) -> ConnectionGuard {
        self.connections.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard(Arc::clone(&self.connections))
    }

    /// Whether a caller may ask for `to`: one of the pod's addresses, and none of the proxy's own
    /// ports, through which the proxy would call itself without end.
    pub(super) fn offers(&self, to: SocketAddr) -> Result<(), Failure> {
        let is_reserved = [ports::OUTBOUND, ports::INBOUND, ports::HBONE].contains(&to.port());
        if is_reserved || !self.pod.addresses.contains(&to.ip()) {
            return Err(Failure::NotOurs(to));
        }
        Ok(())
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

    /// Ends every connection.
    pub(super) fn end(&self) {
        self.gone.send_replace(true);
    }

    /// Returns when the pod's connections have to end at once.
    pub(super) fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut gone = self.gone.subscribe();
        async move {
            if gone.wait_for(|gone| *gone).await.is_err() {
                // Nobody is left who could say so.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns when the pod leaves the mesh, or its listeners shall close.
    pub(super) async fn drained(&self) {
        // An error means that the sender is gone, and the sender is `self`.
        let _ = self.state.subscribe().wait_for(|state| *state >= State::Draining).await;
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
pub(super) struct ConnectionGuard(Arc<AtomicUsize>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
