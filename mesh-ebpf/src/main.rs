//! The kernel programs of nodemesh.
//!
//! They hand the connections of enrolled pods to the proxy and remember what it decided; they
//! decide nothing themselves. One file a hook: [`connect`] and [`peername`] and [`sockops`] are
//! attached once a node, at the root of cgroup v2; [`inbound`] has an instance in each pod's
//! network namespace, and [`guard`] one at each end of each pod's link.

#![no_std]
#![no_main]

mod connect;
mod guard;
mod inbound;
mod maps;
mod peername;
mod raw;
mod sockops;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never linked in: the verifier would not accept a program that can get here.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
