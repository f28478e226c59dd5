//! `connect4` and `connect6`: a pod's outbound connections go to the proxy's listener in the
//! same pod.
//!
//! What the application asked for is kept with the socket, where `sock_ops` and `getpeername`
//! find it. Every path that does not capture forgets what an earlier connect of the same socket
//! left, or getpeername() would lie.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use aya_log_ebpf::debug;
use mesh_common::{
    bpf::{Address, ConnectionKey, Counter, DenialKey, Destination, EventKind, Pod},
    ports,
};

use crate::{
    maps::{DENIALS, ORIGIN, PODS, SK_PROXY, UNSERVED, count, is_agent_alive, tell},
    raw::{Call, Socket, monotonic, random, value},
};

/// The kernel goes on with the call.
const PROCEED: i32 = 1;
/// The call fails with the errno that was set.
const REFUSE: i32 = 0;
const EPERM: i32 = 1;
const ENOMEM: i32 = 12;
const ENETUNREACH: i32 = 101;
const ECONNREFUSED: i32 = 111;

/// ::1, the only loopback address that IPv6 has.
const LOOPBACK6: Address = Address([0, 0, 0, 1_u32.to_be()]);

enum Verdict {
    /// The connection goes where the application wants it.
    Leave,
    /// The connection goes to the proxy's listener at this address.
    Redirect(Address),
    /// connect() fails with this errno.
    Refuse(i32),
}

/// IPv4 sockets.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    if !call.is_tcp() {
        return PROCEED;
    }
    match judge(&call, call.destination4()) {
        Verdict::Leave => PROCEED,
        Verdict::Redirect(listener) => {
            debug!(&ctx, "captured an IPv4 connection of namespace {}", call.netns_cookie());
            call.set_destination4(&Destination { address: listener, port: ports::OUTBOUND.into() });
            PROCEED
        }
        Verdict::Refuse(errno) => {
            debug!(&ctx, "refused a connection of namespace {}: {}", call.netns_cookie(), errno);
            call.fail_with(errno);
            REFUSE
        }
    }
}

/// IPv6 sockets, also those that speak IPv4 through a mapped address.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    if !call.is_tcp() {
        return PROCEED;
    }
    match judge(&call, call.destination6()) {
        Verdict::Leave => PROCEED,
        Verdict::Redirect(listener) => {
            debug!(&ctx, "captured an IPv6 connection of namespace {}", call.netns_cookie());
            call.set_destination6(&Destination { address: listener, port: ports::OUTBOUND.into() });
            PROCEED
        }
        Verdict::Refuse(errno) => {
            debug!(&ctx, "refused a connection of namespace {}: {}", call.netns_cookie(), errno);
            call.fail_with(errno);
            REFUSE
        }
    }
}

#[inline(always)]
fn judge(call: &Call<'_>, asked: Destination) -> Verdict {
    let socket = call.socket();
    let Some(pod) = call.pod(&PODS) else {
        forget(&socket);
        return Verdict::Leave;
    };
    if socket.recall(&SK_PROXY).is_some() {
        return Verdict::Leave;
    }
    if stays_in_pod(&asked.address, &pod) {
        forget(&socket);
        return Verdict::Leave;
    }
    if socket.device().is_some_and(|device| device != pod.interface) {
        // A second network of the pod: only its pod addresses are in the mesh.
        forget(&socket);
        return Verdict::Leave;
    }
    let own = if asked.address.ipv4_word().is_some() { pod.ipv4 } else { pod.ipv6 };
    if own == Address::NONE {
        // Without an address of this family the pod cannot get anywhere. Say so at once, as a
        // kernel without the mesh would: clients that try both families depend on it.
        forget(&socket);
        return Verdict::Refuse(ENETUNREACH);
    }
    let known_failure = if !is_agent_alive() {
        Some((EventKind::AgentLost, Counter::ConnectRefused, ECONNREFUSED))
    } else if value(&UNSERVED, &asked).is_some() {
        // What kube-proxy gives for such a port (its REJECT, told to the caller's own kernel).
        Some((EventKind::NoEndpoint, Counter::ConnectRefused, ECONNREFUSED))
    } else if is_denied(call, &asked) {
        // What a firewall in the caller's own kernel gives.
        Some((EventKind::Denied, Counter::ConnectDenied, EPERM))
    } else {
        None
    };
    if let Some((kind, counter, errno)) = known_failure {
        forget(&socket);
        count(counter);
        tell(
            kind,
            &ConnectionKey {
                netns: call.netns_cookie(),
                client: own,
                server: asked.address,
                client_port: 0,
                server_port: asked.port,
            },
        );
        return Verdict::Refuse(errno);
    }
    if !remember(&socket, &asked) {
        count(Counter::CaptureFailed);
        return Verdict::Refuse(ENOMEM);
    }
    count(Counter::Captured);
    Verdict::Redirect(listener(call, &socket, &own))
}

/// Whether the proxy has refused such a call, and that still holds.
#[inline(always)]
fn is_denied(call: &Call<'_>, asked: &Destination) -> bool {
    let key = DenialKey {
        netns: call.netns_cookie(),
        address: asked.address,
        port: asked.port,
        reserved: 0,
    };
    value(&DENIALS, &key).is_some_and(|until| monotonic() < until)
}

/// Whether there was memory for it.
#[inline(always)]
fn remember(socket: &Socket, asked: &Destination) -> bool {
    if let Some(connection) = socket.multipath()
        && !connection.remember(&ORIGIN, asked)
    {
        return false;
    }
    socket.remember(&ORIGIN, asked)
}

#[inline(always)]
fn forget(socket: &Socket) {
    if let Some(connection) = socket.multipath() {
        connection.forget(&ORIGIN);
    }
    socket.forget(&ORIGIN);
}

/// Loopback and the pod itself are never captured; nor is what TCP cannot reach anyway, which
/// fails in the kernel with its own errno. The unspecified address means loopback.
#[inline(always)]
fn stays_in_pod(address: &Address, pod: &Pod) -> bool {
    let is_unspecified_or_multicast = match address.ipv4_word() {
        Some(word) => word == 0 || u32::from_be(word) >> 28 >= 0xe,
        None => *address == Address::NONE || u32::from_be(address.0[0]) >> 24 == 0xff,
    };
    is_unspecified_or_multicast
        || address.is_loopback()
        || *address == pod.ipv4
        || *address == pod.ipv6
}

/// The address of the proxy's listener for this socket.
///
/// Loopback, with the socket bound to the pod's address first, or getsockname() would show a
/// loopback address. What cannot be bound so reaches the listener at the pod's own address: a
/// socket bound to a device never reaches loopback, and one bound to a port alone cannot be
/// bound again.
#[inline(always)]
fn listener(call: &Call<'_>, socket: &Socket, own: &Address) -> Address {
    if socket.device().is_some() {
        return *own;
    }
    let has_source = socket.is_bound_to_address() || (!socket.is_bound_to_port() && call.bind(own));
    if !has_source {
        return *own;
    }
    if own.ipv4_word().is_none() {
        return LOOPBACK6;
    }
    // One listener address has one port space, about 28,000 connections: spread them over
    // 127.1.0.0 to 127.128.255.255, which leaves out 127.0.0.0/16, where people look for things,
    // and the broadcast address.
    let random = random();
    let low = (random & 0x007f_ffff) + 0x0001_0000;
    Address::from_ipv4_word((0x7f00_0000 | low).to_be())
}
