//! Connections that were open before their pod was captured: they live on, outside the mesh.

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_common::model::Workload;

use super::{
    Observer,
    flow::{Flow, Peer, Reporter, Security, Verdict},
    sock_diag::{State, TcpSocket, tcp_sockets},
};
use crate::{capture::netns::Netns, snapshot::Snapshot};

/// One connection of a pod, from before.
#[derive(Clone, Copy, Debug)]
pub struct Unmeshed {
    reporter: Reporter,
    socket: TcpSocket,
}

/// The connections that a pod has with others now.
///
/// # Errors
/// Where the kernel cannot be asked.
pub fn list(netns: &Netns) -> io::Result<Vec<Unmeshed>> {
    let listening: HashSet<u16> = tcp_sockets(netns, State::Listening)?
        .into_iter()
        .map(|socket| socket.local.port())
        .collect();
    let is_its_own = |socket: &TcpSocket| {
        let remote = socket.remote.ip();
        remote.is_loopback() || remote == socket.local.ip()
    };
    let established = tcp_sockets(netns, State::Established)?.into_iter();
    let others = established.filter(|socket| !is_its_own(socket)).map(|socket| {
        let is_called = listening.contains(&socket.local.port());
        let reporter = if is_called { Reporter::Destination } else { Reporter::Source };
        Unmeshed { reporter, socket }
    });
    Ok(others.collect())
}

/// Tells each of them as a flow.
pub fn report(
    connections: &[Unmeshed],
    observer: &Observer,
    snapshot: &Snapshot,
    node: &Arc<str>,
    pod: &Workload,
) {
    for Unmeshed { reporter, socket } in connections.iter().copied() {
        let own = Peer {
            identity: pod.identity.clone(),
            pod: Some(pod.name.clone()),
            address: Some(socket.local),
            host: None,
        };
        let other = other(snapshot, socket.remote);
        let (source, destination) = match reporter {
            Reporter::Source => (own, other),
            Reporter::Destination => (other, own),
        };
        let flow = Flow {
            time: SystemTime::now(),
            node: Arc::clone(node),
            reporter,
            source,
            destination,
            service: None,
            verdict: Verdict::Forwarded,
            reason: "open since before the pod was in the mesh; it goes on outside of it".into(),
            security: Security::Unmeshed,
            duration: Duration::ZERO,
            bytes_sent: 0,
            bytes_received: 0,
        };
        observer.opened(flow.edge());
        observer.ended(flow);
    }
}

/// An address proves nothing: the pod is a hint.
fn other(snapshot: &Snapshot, address: SocketAddr) -> Peer {
    let pod = snapshot.workload_at(address.ip()).map(|workload| workload.name.clone());
    Peer { pod, address: Some(address), ..Peer::default() }
}
