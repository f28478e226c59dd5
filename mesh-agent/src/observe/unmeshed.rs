//! Connections that were open before their pod was captured: they live on, outside the mesh.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_common::{bpf::ConnectionKey, model::Workload, ports};

use super::{
    Observer,
    flow::{Flow, Peer, Reporter, Security, Verdict},
    sock_diag::{SockDiagError, State, TcpSocket, tcp_sockets},
};
use crate::{capture::netns::Netns, snapshot::Snapshot};

mod table;

pub use table::UnmeshedTable;

/// One connection of a pod, from before.
#[derive(Clone, Copy, Debug)]
pub struct Unmeshed {
    reporter: Reporter,
    socket: TcpSocket,
}

/// The connections that a pod with these addresses has with others, just after it was captured.
///
/// What it says to itself is none, nor what reaches it at addresses that the mesh does not know,
/// nor what came since: that is in `passed`, or waits for a tunnel.
///
/// # Errors
/// Where the kernel cannot be asked.
pub fn list(
    netns: &Netns,
    addresses: &[IpAddr],
    passed: &[ConnectionKey],
) -> Result<Vec<Unmeshed>, SockDiagError> {
    let came_since = |socket: &TcpSocket| {
        let key = ConnectionKey::new(netns.cookie(), socket.remote, socket.local);
        socket.local.port() == ports::HBONE || passed.contains(&key)
    };
    let listening: HashSet<u16> = tcp_sockets(netns, State::Listening)?
        .into_iter()
        .map(|socket| socket.local.port())
        .collect();
    let is_its_own = |socket: &TcpSocket| {
        let (local, remote) = (socket.local.ip(), socket.remote.ip());
        remote.is_loopback() || remote == local || addresses.contains(&remote)
    };
    let open = tcp_sockets(netns, State::Open)?.into_iter();
    let is_others = |it: &TcpSocket| it.is_held() && !is_its_own(it) && !came_since(it);
    let others = open.filter(is_others);
    let connections = others.map(|socket| {
        let is_called = listening.contains(&socket.local.port());
        let reporter = if is_called { Reporter::Destination } else { Reporter::Source };
        Unmeshed { reporter, socket }
    });
    let may_be_meshed = |it: &Unmeshed| {
        it.reporter == Reporter::Source || addresses.contains(&it.socket.local.ip())
    };
    Ok(connections.filter(may_be_meshed).collect())
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
            http: None,
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
