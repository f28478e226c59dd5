//! Upstream sockets: opened in a pod's network namespace, so that its CNI and its
//! NetworkPolicies see the pod, and told to the kernel programs as the proxy's own.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    net::{TcpSocket, TcpStream},
    time,
};

use super::CONNECT_TIMEOUT;
use crate::capture::{enroll::Pod, sockets::SocketTable};

/// When an idle connection is first probed; then every [`PROBE_INTERVAL`], [`PROBES`] times.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// Connects to `to` from `pod`'s namespace.
///
/// `admit` is the namespace cookie of the local pod that shall let this connection through to its
/// application, or 0.
pub(super) async fn connect(
    sockets: &SocketTable,
    pod: &Pod,
    to: SocketAddr,
    admit: u64,
) -> io::Result<TcpStream> {
    let socket = open(sockets, pod, to.ip(), admit)?;
    finish(socket, to).await
}

/// A socket of the proxy in `pod`'s namespace, of the family of `like`, not yet connected.
pub(super) fn open(
    sockets: &SocketTable,
    pod: &Pod,
    like: IpAddr,
    admit: u64,
) -> io::Result<Socket> {
    let domain = if like.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let kind = Type::STREAM.nonblocking();
    let socket = pod.netns.run(|| Socket::new(domain, kind, Some(Protocol::TCP)))??;
    socket.set_tcp_nodelay(true)?;
    socket.set_out_of_band_inline(true)?;
    sockets.mark_proxy_socket(socket.as_fd(), admit)?;
    Ok(socket)
}

/// Connects an opened socket, within [`CONNECT_TIMEOUT`].
pub(super) async fn finish(socket: Socket, to: SocketAddr) -> io::Result<TcpStream> {
    let connecting = TcpSocket::from_std_stream(socket.into()).connect(to);
    time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| {
        let seconds = CONNECT_TIMEOUT.as_secs();
        io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {seconds} s"))
    })?
}

/// Leaves urgent data (RFC 6093) among the rest, where it is carried on. Taken out of line, as is
/// the default, a relay would lose the byte.
pub(super) fn keep_urgent_data(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_out_of_band_inline(true)
}

/// Notices within a minute that the node at the other end of a tunnel is gone.
pub(super) fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let probes = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_INTERVAL)
        .with_retries(PROBES);
    SockRef::from(stream).set_tcp_keepalive(&probes)
}
