//! `inbound`, a `sk_lookup` program: who gets a new connection that arrives in a pod.
//!
//! It runs for the first packet of a connection, in whatever shape it comes, and picks a
//! listener of the proxy or leaves the choice to the kernel. The accepted socket's own address
//! is then the address that the caller asked for. Missing listener, or no sign of life: the agent is
//! lost, and the caller is refused at once.

use aya_ebpf::{macros::sk_lookup, programs::SkLookupContext};
use aya_log_ebpf::debug;
use mesh_common::{
    bpf::{Address, Counter, InboundMode, LOOPBACK, Listener},
    ports,
};

use crate::{
    maps::{ADMITTED, INBOUND, LISTENERS, PORT_MODES, count, is_agent_alive},
    raw::{Arrival, is_listening, value},
};

const PASS: u32 = 1;
const DROP: u32 = 0;

const PASS_MODE: u32 = InboundMode::Pass as u32;
const PROXY_MODE: u32 = InboundMode::Proxy as u32;

/// Every new connection of the pod's network namespace.
#[sk_lookup]
pub fn inbound(ctx: SkLookupContext) -> u32 {
    let Some(arrival) = Arrival::new(&ctx) else { return PASS };
    let Some(pod) = INBOUND.get(0) else { return PASS };
    let is_own = |address: &Address| *address == pod.ipv4 || *address == pod.ipv6;
    let (server, port) = (arrival.server.address, arrival.server.port);

    // The outbound listener answers on all of 127.0.0.0/8, though it is bound to 127.0.0.1.
    if server.is_loopback() {
        // Through a link it is a stranger's, where node and pod are set up to let it in
        // (`route_localnet`).
        if arrival.interface != LOOPBACK {
            return refuse(&ctx);
        }
        return if port == u32::from(ports::OUTBOUND) {
            hand_over(&ctx, &arrival, Listener::Outbound4, Listener::Outbound6)
        } else {
            PASS
        };
    }
    if !is_own(&server) {
        return PASS;
    }
    if port == u32::from(ports::INBOUND) {
        // The proxy's own listener. Nobody asks for it by name but to mislead the proxy about
        // where a connection was going.
        return refuse(&ctx);
    }
    let client = arrival.client.address;
    if client.is_loopback() || is_own(&client) {
        // The pod talks to itself: by address, as over lo to the pod's own address the packet
        // claims to have come through eth0.
        return if port == u32::from(ports::OUTBOUND) {
            hand_over(&ctx, &arrival, Listener::Outbound4, Listener::Outbound6)
        } else {
            PASS
        };
    }
    if arrival.is_in(&ADMITTED, pod.netns) {
        return PASS;
    }
    if port == u32::from(ports::HBONE) {
        return hand_over(&ctx, &arrival, Listener::Hbone4, Listener::Hbone6);
    }
    match value(&PORT_MODES, &port).unwrap_or(pod.mode) {
        // Plaintext needs no proxy, yet a node without its agent accepts nothing new.
        PASS_MODE => {
            let hbone = if arrival.is_ipv4() { Listener::Hbone4 } else { Listener::Hbone6 };
            let is_served = is_listening(&LISTENERS, hbone) && is_agent_alive();
            if is_served { PASS } else { refuse(&ctx) }
        }
        PROXY_MODE => {
            let verdict = hand_over(&ctx, &arrival, Listener::Inbound4, Listener::Inbound6);
            if verdict == PASS {
                count(Counter::InboundProxied);
            }
            verdict
        }
        _ => refuse(&ctx),
    }
}

/// Gives the connection to the listener of its family, or to nobody.
#[inline(always)]
fn hand_over(ctx: &SkLookupContext, arrival: &Arrival, ipv4: Listener, ipv6: Listener) -> u32 {
    if !is_agent_alive() {
        // Its listener would take the connection and never look at it.
        return refuse(ctx);
    }
    let listener = if arrival.is_ipv4() { ipv4 } else { ipv6 };
    // No flag: the kernel goes on to choose among the workers' sockets of a SO_REUSEPORT group.
    match LISTENERS.redirect_sk_lookup(ctx, listener as u32, 0) {
        Ok(()) => PASS,
        Err(_) => refuse(ctx),
    }
}

#[inline(always)]
fn refuse(ctx: &SkLookupContext) -> u32 {
    count(Counter::InboundRefused);
    debug!(ctx, "refused an inbound connection");
    DROP
}
