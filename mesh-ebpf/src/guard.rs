//! `guard_pod` and `guard_host`, at both ends of a pod's link: no TCP connection leaves a
//! captured pod but the proxy's.
//!
//! Both only ever drop, and only first packets of connections; replies, resets and everything
//! that is not TCP go on to whatever comes next. `guard_pod` sits where frames leave the pod
//! and knows the socket that each is from. `guard_host` sits where they arrive on the node,
//! out of the pod's reach and on the way of frames that never passed the pod's own queues; there
//! are no sockets there, but `sock_ops` has said which connections the proxy is opening.

use aya_ebpf::{
    bindings::tcx_action_base::{TCX_DROP, TCX_NEXT},
    macros::classifier,
    programs::TcContext,
};
use aya_log_ebpf::debug;
use mesh_common::bpf::{Address, ConnectionKey, Counter, Inbound};

use crate::{
    maps::{INBOUND, SK_PROXY, UPSTREAMS, count},
    raw::{Frame, Packet, value},
};

/// Frames that leave through the pod's own end of the link.
#[classifier]
pub fn guard_pod(ctx: TcContext) -> i32 {
    if captured_pod().is_none() {
        return TCX_NEXT;
    }
    let packet = Packet::new(&ctx);
    match packet.read() {
        Frame::Other => TCX_NEXT,
        Frame::Udp => pass(Counter::UdpPassed),
        Frame::Sctp => pass(Counter::SctpPassed),
        Frame::Syn { .. } => match packet.socket().and_then(|socket| socket.recall(&SK_PROXY)) {
            Some(_) => TCX_NEXT,
            None => drop(&ctx, Counter::GuardPodDropped),
        },
        Frame::Unreadable => drop(&ctx, Counter::GuardPodDropped),
    }
}

/// Frames that arrive at the node's end of the link.
#[classifier]
pub fn guard_host(ctx: TcContext) -> i32 {
    let Some(pod) = captured_pod() else { return TCX_NEXT };
    match Packet::new(&ctx).read() {
        Frame::Other | Frame::Udp | Frame::Sctp => TCX_NEXT,
        Frame::Syn { client, server } => {
            if client.address != pod.ipv4 && client.address != pod.ipv6 {
                return drop(&ctx, Counter::GuardHostSpoofed);
            }
            let connection = ConnectionKey {
                netns: pod.netns,
                client: client.address,
                server: server.address,
                client_port: client.port,
                server_port: server.port,
            };
            if value(&UPSTREAMS, &connection).is_some() {
                TCX_NEXT
            } else {
                drop(&ctx, Counter::GuardHostDropped)
            }
        }
        Frame::Unreadable => drop(&ctx, Counter::GuardHostDropped),
    }
}

/// The pod that this instance guards; `None` once it is released.
#[inline(always)]
fn captured_pod() -> Option<&'static Inbound> {
    INBOUND.get(0).filter(|pod| pod.ipv4 != Address::NONE || pod.ipv6 != Address::NONE)
}

/// Counts what leaves a pod outside of the mesh.
#[inline(always)]
fn pass(counter: Counter) -> i32 {
    count(counter);
    TCX_NEXT
}

#[inline(always)]
fn drop(ctx: &TcContext, counter: Counter) -> i32 {
    count(counter);
    debug!(ctx, "dropped the first packet of a connection that is not the proxy's");
    TCX_DROP
}
