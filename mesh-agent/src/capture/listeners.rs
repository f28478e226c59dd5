//! The proxy's listeners in a pod's network namespace.
//!
//! The listener that a connection arrives on says whose it is; nothing about a caller is ever
//! guessed from an address. Each worker gets listeners of its own, which share a
//! `SO_REUSEPORT` group: the kernel chooses a worker for each connection, also for those that
//! `inbound` steers there, as it assigns any one of the group and the kernel then goes on to
//! choose within it.
//!
//! `IP_TRANSPARENT` is not needed: every address that a connection can arrive for, 127.0.0.0/8
//! or the pod's own, is local, so replies may carry it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::AsFd,
};

use mesh_common::{model::NamespacedName, ports};
use socket2::{Domain, Protocol, Socket, Type};

use super::{enroll::Pod, sockets::SocketTable};

/// Connections that may wait to be accepted; `net.core.somaxconn` of the pod may lower it. Its
/// own default, since Linux 5.4.
const BACKLOG: i32 = 4096;

/// One worker's listeners in one pod, non-blocking, one of a kind for each family of the pod.
///
/// They are plain descriptors, so that a successor process can be given them.
#[derive(Debug)]
pub struct PodListeners {
    /// Captured outbound connections. Peer and local address are the key to where they were
    /// going.
    pub outbound: Vec<TcpListener>,
    /// Inbound plaintext. The accepted socket's local address is what the caller asked for.
    pub inbound: Vec<TcpListener>,
    /// HBONE.
    pub hbone: Vec<TcpListener>,
}

/// Why a pod has no listeners.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Something in the pod has the port.
    #[error(
        "cannot enrol {pod}: port {} is in use in the pod, and nodemesh needs ports {}, {} and {} there; move the application to another port or label the pod nodemesh.dev/mesh=disabled",
        address.port(), ports::OUTBOUND, ports::INBOUND, ports::HBONE
    )]
    InUse {
        /// The pod.
        pod: NamespacedName,
        /// What cannot be bound.
        address: SocketAddr,
    },
    /// The pod does not have the address that the control plane says it has.
    #[error(
        "cannot enrol {pod}: its network namespace has no address {}; check its status.podIPs and --pod-netns", address.ip()
    )]
    NoAddress {
        /// The pod.
        pod: NamespacedName,
        /// What cannot be bound.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot enrol {pod}: listening on {address} in the pod failed: {source}")]
    Other {
        /// The pod.
        pod: NamespacedName,
        /// What cannot be bound.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The pod's namespace cannot be entered.
    #[error("cannot enrol {pod}: entering its network namespace failed: {source}")]
    Namespace {
        /// The pod.
        pod: NamespacedName,
        /// The system's answer.
        source: io::Error,
    },
}

/// Who may have the ports already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nobody: what listens there is an application, also one that would share the port.
    Nobody,
    /// This agent, which has connections of the pod still.
    Ourselves,
}

/// Binds `workers` sets of listeners in the pod. They, and what they accept, are marked in `sockets`
/// as the proxy's.
///
/// # Errors
/// Where a port is taken or an address is not there.
pub fn bind(
    pod: &Pod,
    workers: usize,
    expected: Expected,
    sockets: &SocketTable,
) -> Result<Vec<PodListeners>, ListenError> {
    let loopback = |address: &IpAddr| match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    let each = |to: &dyn Fn(&IpAddr) -> IpAddr, port| {
        pod.addresses
            .iter()
            .map(|address| {
                let address = SocketAddr::new(to(address), port);
                listen(address, sockets).map_err(|source| explain(&pod.name, address, source))
            })
            .collect::<Result<Vec<_>, _>>()
    };
    let claim = |to: &dyn Fn(&IpAddr) -> IpAddr, port| {
        pod.addresses.iter().try_for_each(|address| {
            let address = SocketAddr::new(to(address), port);
            unshared(address).map_err(|source| explain(&pod.name, address, source))
        })
    };
    let is_free = || {
        claim(&loopback, ports::OUTBOUND)?;
        claim(&IpAddr::clone, ports::INBOUND)?;
        claim(&IpAddr::clone, ports::HBONE)
    };
    pod.netns
        .run(|| {
            if expected == Expected::Nobody {
                is_free()?;
            }
            (0..workers)
                .map(|_| {
                    Ok(PodListeners {
                        outbound: each(&loopback, ports::OUTBOUND)?,
                        inbound: each(&IpAddr::clone, ports::INBOUND)?,
                        hbone: each(&IpAddr::clone, ports::HBONE)?,
                    })
                })
                .collect()
        })
        .map_err(|source| ListenError::Namespace { pod: pod.name.clone(), source })?
}

fn listen(address: SocketAddr, sockets: &SocketTable) -> io::Result<TcpListener> {
    let socket = open(address)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    sockets.mark_proxy_socket(socket.as_fd(), 0)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Fails where anybody listens, also an application that set `SO_REUSEPORT`: it would get some of
/// the proxy's connections.
fn unshared(address: SocketAddr) -> io::Result<()> {
    open(address)?.bind(&address.into())
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier agent may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

fn explain(pod: &NamespacedName, address: SocketAddr, source: io::Error) -> ListenError {
    let pod = pod.clone();
    match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { pod, address },
        io::ErrorKind::AddrNotAvailable => ListenError::NoAddress { pod, address },
        _ => ListenError::Other { pod, address, source },
    }
}
