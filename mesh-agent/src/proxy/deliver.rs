//! The last step to an application: over its own loopback, with the caller's address kept.
//!
//! The socket is transparent and carries the delivery mark, which a rule in the pod's namespace
//! routes to loopback; the pod's `sk_lookup` program lets it through because it is admitted.
//!
//! Its source port is chosen here, from outside the pod's ephemeral range, which is taken for the
//! caller's as well: the caller's own connections to the same port have ephemeral ports, and two
//! connections of one address, port and destination would be one for the application's kernel,
//! which answers neither. Where a caller has other habits, that silence is noticed.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use socket2::Socket;
use tokio::{net::TcpStream, time};

use super::{LOCK, dial, pod::ServedPod};
use crate::{
    capture::{enroll::Pod, netns::Netns, routing::DELIVERY_MARK, sockets::SocketTable},
    observe::sock_diag::{State, TcpSocket, tcp_sockets},
};

/// The lowest source port that is used: system ports are left alone (RFC 6335, section 6).
const LOWEST: u16 = 1024;
/// What Linux takes ephemeral ports from where nobody says otherwise.
const EPHEMERAL: (u16, u16) = (32768, 60999);
/// Fewer ports than this outside the ephemeral range are too few to do without it: one caller
/// may have that many connections to one port.
const ENOUGH: u32 = 4096;
/// How many ports are tried: two deliveries collide only if both caller and destination are the
/// same. With 30,000 connections of one caller to one port, nineteen of twenty ports are taken,
/// and one in a million connections finds none.
const ATTEMPTS: usize = 256;
/// How long an application may take to answer before its listener is looked at: over loopback the
/// answer is there when the call returns, unless it was dropped or went elsewhere.
const SUSPICIOUS: Duration = Duration::from_millis(100);
/// How long a wayward listener is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The source ports for deliveries in one pod, given out in turn.
pub(super) struct SourcePorts {
    ephemeral: (u16, u16),
    next: AtomicU32,
}

impl SourcePorts {
    /// Those of a pod, by its `net.ipv4.ip_local_port_range`, which is of both families.
    pub(super) fn of(netns: &Netns) -> Self {
        let range = netns.run(|| fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range"));
        let range = range.ok().and_then(Result::ok);
        Self::outside(range.as_deref().and_then(parse).unwrap_or(EPHEMERAL))
    }

    fn outside(ephemeral: (u16, u16)) -> Self {
        let ports = Self { ephemeral, next: AtomicU32::new(0) };
        if ports.count() >= ENOUGH {
            return ports;
        }
        // All of them then; one that the caller has in use is noticed by the silence, and skipped.
        Self { ephemeral: (u16::MAX, u16::MAX), next: AtomicU32::new(0) }
    }

    fn below(&self) -> u32 {
        u32::from(self.ephemeral.0.saturating_sub(LOWEST))
    }

    fn count(&self) -> u32 {
        self.below() + u32::from(u16::MAX - self.ephemeral.1)
    }

    fn nth(&self, at: u32) -> u16 {
        let at = at % self.count();
        let port = match at.checked_sub(self.below()) {
            None => u32::from(LOWEST) + at,
            Some(above) => u32::from(self.ephemeral.1) + 1 + above,
        };
        u16::try_from(port).unwrap_or(LOWEST)
    }

    /// The next port in turn; where that was taken, any: those around it are taken as well.
    fn choose(&self, attempt: usize) -> u16 {
        match attempt {
            0 => self.nth(self.next.fetch_add(1, Ordering::Relaxed)),
            _ => self.nth(fastrand::u32(..)),
        }
    }
}

/// Ports on which a pod listens with a mark of its own, or at a device.
///
/// The answers of such a listener do not take the rule's way back to us, but leave the pod. It is
/// called from the pod's own address, to which every answer finds its way.
#[derive(Default)]
pub(super) struct Wayward(Mutex<HashMap<u16, Instant>>);

/// Why an application does not answer.
#[derive(Debug, PartialEq, Eq)]
enum Silence {
    /// Its answers go elsewhere.
    Wayward,
    /// The pod has another connection from that address and port.
    Taken,
    /// Nothing is known; it may be slow.
    Unexplained,
}

impl Wayward {
    /// Whether the port was found to be so lately.
    fn contains(&self, port: u16) -> bool {
        let ports = self.0.lock().expect(LOCK);
        ports.get(&port).is_some_and(|found| found.elapsed() < REMEMBERED)
    }

    /// Asks the kernel why nobody answers at `to` who was called from `source`.
    fn look(&self, netns: &Netns, to: SocketAddr, source: SocketAddr) -> Silence {
        let listeners = tcp_sockets(netns, State::Listening).unwrap_or_default();
        let is_wayward = listeners.iter().any(|listener| {
            let ip = listener.local.ip();
            let is_asked = ip == to.ip() || ip.is_unspecified();
            let is_apart = listener.mark != 0 || listener.interface != 0;
            is_asked && listener.local.port() == to.port() && is_apart
        });
        if is_wayward {
            self.0.lock().expect(LOCK).insert(to.port(), Instant::now());
            return Silence::Wayward;
        }
        // What has been accepted is not what we are opening, which nobody answered.
        let open = tcp_sockets(netns, State::Open).unwrap_or_default();
        let is_taken = |it: &TcpSocket| it.is_open() && (it.local, it.remote) == (to, source);
        if open.iter().any(is_taken) { Silence::Taken } else { Silence::Unexplained }
    }
}

fn parse(range: &str) -> Option<(u16, u16)> {
    let mut words = range.split_whitespace().map(str::parse);
    match (words.next()?, words.next()?) {
        (Ok(low), Ok(high)) if low <= high => Some((low, high)),
        _ => None,
    }
}

/// Connects to the application of `pod` that listens on `to`, as `caller`.
pub(super) async fn connect(
    sockets: &SocketTable,
    served: &ServedPod,
    to: SocketAddr,
    caller: IpAddr,
) -> io::Result<TcpStream> {
    let pod = &*served.pod;
    if caller.is_ipv4() != to.is_ipv4() {
        // A tunnel over one family to an address of the other: there is no address to keep.
        return dial::connect(sockets, pod, to, pod.netns.cookie()).await;
    }
    if served.wayward.contains(to.port()) {
        return dial::connect(sockets, pod, to, pod.netns.cookie()).await;
    }
    for attempt in 0..ATTEMPTS {
        let socket = open(sockets, pod, to, caller)?;
        let source = SocketAddr::new(caller, served.source_ports.choose(attempt));
        match socket.bind(&source.into()) {
            Err(error) if is_taken(&error) => continue,
            bound => bound?,
        }
        let mut connecting = pin!(dial::finish(socket, to));
        let connected = tokio::select! {
            biased;
            connected = &mut connecting => connected,
            () = time::sleep(SUSPICIOUS) => {
                match served.wayward.look(&pod.netns, to, source) {
                    Silence::Wayward => {
                        return dial::connect(sockets, pod, to, pod.netns.cookie()).await;
                    }
                    Silence::Taken => continue,
                    Silence::Unexplained => connecting.await,
                }
            }
        };
        match connected {
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

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(ephemeral: (u16, u16)) -> Vec<u16> {
        let ports = SourcePorts::outside(ephemeral);
        (0..ports.count()).map(|_| ports.choose(0)).collect()
    }

    #[test]
    fn every_port_outside_of_the_ephemeral_range_is_used_once() {
        for (low, high) in [(32768, 60999), (1024, 40000), (30000, 65535), (1, 50000)] {
            let ports = all((low, high));
            assert!(ports.iter().all(|port| *port >= 1024 && !(low..=high).contains(port)));
            let distinct: std::collections::HashSet<_> = ports.iter().collect();
            assert_eq!(distinct.len(), ports.len());
        }
        assert_eq!(all(EPHEMERAL).len(), 32768 - 1024 + 65535 - 60999);
    }

    #[test]
    fn a_pod_that_calls_every_port_ephemeral_leaves_all_of_them() {
        assert_eq!(all((1024, 65535)).len(), 65535 - 1024);
    }

    #[test]
    fn the_range_is_read_as_the_kernel_writes_it() {
        assert_eq!(parse("32768\t60999\n"), Some((32768, 60999)));
        assert_eq!(parse("60999 32768"), None);
        assert_eq!(parse(""), None);
    }
}
