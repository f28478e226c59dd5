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

/// How an idle connection is probed whether its other end is still there.
struct Probing {
    after: Duration,
    interval: Duration,
    probes: u32,
}

/// Of a tunnel: a node that is gone is noticed within [`TUNNEL_SILENCE`].
const TUNNEL: Probing =
    Probing { after: Duration::from_secs(30), interval: Duration::from_secs(10), probes: 3 };
/// How long a tunnel's other end may leave bytes unacknowledged, the same as for an idle one.
/// Tunnels are read at once, so a closed window does not stand for a slow application.
const TUNNEL_SILENCE: Duration = Duration::from_secs(60);
/// Of a connection that is an application's own. An application that asked for keepalive gets it
/// from the proxy beside it, so the proxy has to ask the far end. It gives up after 12 minutes and
/// no sooner, near the 15 minutes that Linux retries unacknowledged data (`tcp_retries2`): an
/// outage that a plain connection lives through must not end this one. Interval and number are
/// the defaults of Linux (`tcp_keepalive_intvl`, `tcp_keepalive_probes`).
const APPLICATION: Probing =
    Probing { after: Duration::from_secs(60), interval: Duration::from_secs(75), probes: 9 };

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
    let stream = finish(socket, scoped(to, pod)).await?;
    keep_application_alive(&stream)?;
    Ok(stream)
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

/// A link-local address means nothing without a link, and the kernel programs do not see which one
/// an application named: the pod's own is taken.
fn scoped(to: SocketAddr, pod: &Pod) -> SocketAddr {
    match to {
        SocketAddr::V6(mut v6) if v6.ip().is_unicast_link_local() => {
            v6.set_scope_id(pod.interface);
            v6.into()
        }
        other => other,
    }
}

/// Leaves urgent data (RFC 6093) among the rest, where it is carried on. Taken out of line, as is
/// the default, a relay would lose the byte.
pub(super) fn keep_urgent_data(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_out_of_band_inline(true)
}

/// Notices within a minute that the node at the other end of a tunnel is gone, also while bytes
/// are under way.
pub(super) fn keep_tunnel_alive(stream: &TcpStream) -> io::Result<()> {
    probe(stream, &TUNNEL)?;
    SockRef::from(stream).set_tcp_user_timeout(Some(TUNNEL_SILENCE))
}

/// Notices that the other end of an application's connection is gone.
pub(super) fn keep_application_alive(stream: &TcpStream) -> io::Result<()> {
    probe(stream, &APPLICATION)
}

fn probe(stream: &TcpStream, probing: &Probing) -> io::Result<()> {
    let probes = TcpKeepalive::new()
        .with_time(probing.after)
        .with_interval(probing.interval)
        .with_retries(probing.probes);
    SockRef::from(stream).set_tcp_keepalive(&probes)
}
