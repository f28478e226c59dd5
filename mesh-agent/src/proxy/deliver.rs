//! The last step to an application: over its own loopback, with the caller's address kept.
//!
//! The socket is transparent and carries the delivery mark, which a rule in the pod's namespace
//! routes to loopback; the pod's `sk_lookup` program lets it through because it is admitted.
//!
//! Its source port is chosen here, from below the pod's ephemeral range: the caller's own
//! connections to the same port have ephemeral ports, and two connections of one address, port
//! and destination hang both.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
};

use socket2::Socket;
use tokio::net::TcpStream;

use super::dial;
use crate::capture::{enroll::Pod, routing::DELIVERY_MARK, sockets::SocketTable};

/// The source ports in use for delivery: above the system ports (RFC 6335, section 6), below
/// where Linux starts ephemeral ports (`net.ipv4.ip_local_port_range`, 32768 by default).
const PORTS: std::ops::Range<u16> = 1024..32768;
/// How many ports are tried: two deliveries collide only if both caller and destination are the
/// same, so the first one is nearly always free.
const ATTEMPTS: usize = 64;

static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// Connects to the application of `pod` that listens on `to`, as `caller`.
pub(super) async fn connect(
    sockets: &SocketTable,
    pod: &Pod,
    to: SocketAddr,
    caller: IpAddr,
) -> io::Result<TcpStream> {
    if caller.is_ipv4() != to.is_ipv4() {
        // A tunnel over one family to an address of the other: there is no address to keep.
        return dial::connect(sockets, pod, to, pod.netns.cookie()).await;
    }
    for _ in 0..ATTEMPTS {
        let socket = open(sockets, pod, to, caller)?;
        match bind_next(&socket, caller) {
            Err(error) if is_taken(&error) => continue,
            bound => bound?,
        }
        match dial::finish(socket, to).await {
            Err(error) if is_taken(&error) => continue,
            connected => return connected,
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        format!("no free source port towards {to} for caller {caller}"),
    ))
}

fn open(sockets: &SocketTable, pod: &Pod, to: SocketAddr, caller: IpAddr) -> io::Result<Socket> {
    let socket = dial::open(sockets, pod, to.ip(), pod.netns.cookie())?;
    if caller.is_ipv4() {
        socket.set_ip_transparent_v4(true)?;
    } else {
        socket.set_ip_transparent_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_mark(DELIVERY_MARK)?;
    Ok(socket)
}

fn bind_next(socket: &Socket, caller: IpAddr) -> io::Result<()> {
    let offset = NEXT_PORT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
    socket.bind(&SocketAddr::new(caller, PORTS.start + offset).into())
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}
