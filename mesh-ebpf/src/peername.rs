//! `getpeername4` and `getpeername6`: the application sees the address that it asked for.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{maps::ORIGIN, raw::Call};

/// The only verdict that this hook has.
const PROCEED: i32 = 1;

/// IPv4 sockets.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    if let Some(destination) = call.socket().recall(&ORIGIN) {
        call.set_destination4(&destination);
    }
    PROCEED
}

/// IPv6 sockets, also those that speak IPv4 through a mapped address.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    if let Some(destination) = call.socket().recall(&ORIGIN) {
        call.set_destination6(&destination);
    }
    PROCEED
}
