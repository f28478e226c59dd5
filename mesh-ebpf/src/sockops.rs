//! `sock_ops`: publishes connections under their tuple before their first packet leaves.
//!
//! A captured one goes to `ORIGINAL_DESTINATIONS`, where the proxy looks at accept; one that
//! the proxy makes to a pod of this node goes to `ADMITTED`, where the pod's `inbound` looks.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
        BPF_TCP_CLOSE, BPF_TCP_FIN_WAIT2,
    },
    macros::sock_ops,
    programs::SockOpsContext,
};
use aya_log_ebpf::debug;
use mesh_common::bpf::Counter;

use crate::{
    maps::{ADMITTED, ORIGIN, ORIGINAL_DESTINATIONS, SK_PROXY, count},
    raw::Event,
};

/// Leaves the answers of other programs at this hook as they are.
const NEUTRAL: u32 = 1;

/// Every event of every TCP socket under the cgroup; all but two cost a comparison.
#[sock_ops]
pub fn sock_ops(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connecting(&ctx),
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
        if proxy.admit == 0 {
            return;
        }
        let stored = ADMITTED.insert(event.connection(proxy.admit), 1, 0).is_ok();
        count(if stored { Counter::Admitted } else { Counter::AdmitFailed });
        stored
    } else if let Some(destination) = socket.recall(&ORIGIN) {
        let connection = event.connection(event.netns_cookie());
        let stored = ORIGINAL_DESTINATIONS.insert(connection, destination, 0).is_ok();
        count(if stored { Counter::Published } else { Counter::PublishFailed });
        stored
    } else {
        return;
    };
    if stored {
        // Of the other callbacks that another program may have asked for, none is lost.
        let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG;
        if ctx.set_cb_flags(flags as i32).is_err() {
            debug!(ctx, "no close callback: the entry stays until the proxy takes it");
        }
    } else {
        debug!(ctx, "a connection could not be published: the map is full");
    }
}

#[inline(always)]
fn closed(ctx: &SockOpsContext) {
    let event = Event::new(ctx);
    let Some(socket) = event.socket() else { return };
    if let Some(proxy) = socket.recall(&SK_PROXY) {
        let _ = ADMITTED.remove(event.connection(proxy.admit));
    } else if socket.recall(&ORIGIN).is_some() && ctx.arg(0) != BPF_TCP_FIN_WAIT2 {
        // Out of FIN_WAIT2: the client is done and its FIN was acknowledged, so the connection
        // waits at the listener, perhaps with data. The proxy takes the entry when it accepts.
        let _ = ORIGINAL_DESTINATIONS.remove(event.connection(event.netns_cookie()));
    }
}
