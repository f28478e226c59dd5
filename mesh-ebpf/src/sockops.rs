//! `sock_ops`: publishes connections under their tuple before their first packet leaves, and lists
//! those that applications get without the proxy.
//!
//! A captured one goes to `ORIGINAL_DESTINATIONS`, where the proxy looks at accept. One that the
//! proxy makes goes to `UPSTREAMS`, where `guard_host` looks, and if it leads to a pod of this
//! node also to `ADMITTED`, where that pod's `inbound` looks. So does one that a probe of the node
//! makes to a port that a pod names for it. Neither outlives the handshake:
//! what could still be looked up later could be used a second time. Plaintext that a pod's
//! application gets is in `PASSED` to its end, so that it can be ended where it loses its right.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
        BPF_TCP_CLOSE, BPF_TCP_FIN_WAIT2,
    },
    macros::sock_ops,
    programs::SockOpsContext,
};
use aya_log_ebpf::debug;
use mesh_common::bpf::{Address, Admittance, Counter, EventKind, ProxySocket};

use crate::{
    maps::{
        ADMITTED, ORIGIN, ORIGINAL_DESTINATIONS, PASSED, PODS, PROBES, SK_PROBE, SK_PROXY,
        UPSTREAMS, count, tell,
    },
    raw::{Event, Socket, value},
};

/// Leaves the answers of other programs at this hook as they are.
const NEUTRAL: u32 = 1;

/// Every event of every TCP socket under the cgroup; most cost a comparison.
#[sock_ops]
pub fn sock_ops(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connecting(&ctx),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => connected(&ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(&ctx),
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == BPF_TCP_CLOSE => closed(&ctx),
        _ => {}
    }
    NEUTRAL
}

#[inline(always)]
fn connecting(ctx: &SockOpsContext) {
    let event = Event::new(ctx);
    let Some(socket) = event.socket() else { return };
    let stored = if let Some(proxy) = socket.recall(&SK_PROXY) {
        opening(&event, &proxy)
    } else if let Some(destination) = socket.recall(&ORIGIN) {
        let connection = event.connection(event.netns_cookie());
        let stored = ORIGINAL_DESTINATIONS.insert(connection, destination, 0).is_ok();
        count(if stored { Counter::Published } else { Counter::PublishFailed });
        stored
    } else {
        let Some(stored) = probing(&event, &socket) else { return };
        stored
    };
    if stored {
        await_end(ctx);
    } else {
        debug!(ctx, "a connection could not be published: the map is full");
    }
}

/// Asks to be called when the socket closes.
#[inline(always)]
fn await_end(ctx: &SockOpsContext) {
    // Of the other callbacks that another program may have asked for, none is lost.
    let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG;
    if ctx.set_cb_flags(flags as i32).is_err() {
        debug!(ctx, "no close callback: an entry stays");
    }
}

/// A connection of the proxy: whether anything was stored.
#[inline(always)]
fn opening(event: &Event<'_>, proxy: &ProxySocket) -> bool {
    let netns = event.netns_cookie();
    let mut stored = false;
    // What the pod's own application is given never gets to the pod's link.
    if proxy.admit != netns {
        stored = UPSTREAMS.insert(event.connection(netns), 1, 0).is_ok();
        if !stored {
            count(Counter::UpstreamFailed);
        }
    }
    if proxy.admit != 0 {
        let connection = event.connection(proxy.admit);
        let admitted = ADMITTED.insert(connection, Admittance::Proxy as u32, 0).is_ok();
        count(if admitted { Counter::Admitted } else { Counter::AdmitFailed });
        stored |= admitted;
    }
    stored
}

/// A connection of the node to a port that a pod names for probes: whether it was stored; `None` for
/// any other.
#[inline(always)]
fn probing(event: &Event<'_>, socket: &Socket) -> Option<bool> {
    let pod = value(&PROBES, &event.probe())?;
    let admitted = socket.remember(&SK_PROBE, &pod)
        && ADMITTED.insert(event.connection(pod), Admittance::Probe as u32, 0).is_ok();
    count(if admitted { Counter::ProbeAdmitted } else { Counter::AdmitFailed });
    Some(admitted)
}

/// The other side has answered: no first packet follows.
#[inline(always)]
fn connected(ctx: &SockOpsContext) {
    let event = Event::new(ctx);
    if event.socket().is_some_and(|socket| socket.recall(&SK_PROXY).is_some()) {
        let _ = UPSTREAMS.remove(event.connection(event.netns_cookie()));
    }
}

/// A pod has the connection. An admitted tuple is a stranger's from now on; what was not admitted
/// and is not the proxy's is plaintext that `inbound` let pass.
#[inline(always)]
fn accepted(ctx: &SockOpsContext) {
    let event = Event::new(ctx);
    let Some(pod) = event.pod(&PODS) else { return };
    let connection = event.accepted();
    if let Some(admittance) = value(&ADMITTED, &connection) {
        let _ = ADMITTED.remove(connection);
        if admittance == Admittance::Probe as u32 {
            tell(EventKind::Probe, &connection);
        }
        return;
    }
    let is_own = |address: &Address| *address == pod.ipv4 || *address == pod.ipv6;
    if !is_own(&connection.server) || is_own(&connection.client) || connection.client.is_loopback()
    {
        return;
    }
    if event.socket().is_none_or(|socket| socket.recall(&SK_PROXY).is_some()) {
        return;
    }
    count(Counter::InboundPassed);
    if PASSED.insert(connection, 1, 0).is_ok() {
        await_end(ctx);
    } else {
        count(Counter::PassUnlisted);
        debug!(ctx, "a plaintext connection could not be listed: the map is full");
    }
}

#[inline(always)]
fn closed(ctx: &SockOpsContext) {
    let event = Event::new(ctx);
    let Some(socket) = event.socket() else { return };
    if let Some(proxy) = socket.recall(&SK_PROXY) {
        let _ = UPSTREAMS.remove(event.connection(event.netns_cookie()));
        let _ = ADMITTED.remove(event.connection(proxy.admit));
    } else if socket.recall(&ORIGIN).is_some() {
        // Out of FIN_WAIT2: the client is done and its FIN was acknowledged, so the connection
        // waits at the listener, perhaps with data. The proxy takes the entry when it accepts.
        if ctx.arg(0) != BPF_TCP_FIN_WAIT2 {
            let _ = ORIGINAL_DESTINATIONS.remove(event.connection(event.netns_cookie()));
        }
    } else if let Some(pod) = socket.recall(&SK_PROBE) {
        let _ = ADMITTED.remove(event.connection(pod));
    } else {
        let _ = PASSED.remove(event.accepted());
    }
}
