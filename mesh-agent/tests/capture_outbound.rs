//! Outbound connections of a captured pod arrive at the proxy with where they were going.

#[path = "support/world.rs"]
mod world;

use std::{
    io::Write,
    net::{IpAddr, Shutdown},
};

use mesh_common::bpf::InboundMode;
use socket2::Domain;
use world::{World, address, eventually, listen, read, socket_address};

#[test]
fn an_ipv4_connection_is_captured_and_looks_untouched_from_inside() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "a", InboundMode::Pass);

    let mut client = world.connect("a", "10.99.0.2:8080").expect("captured");
    assert_eq!(client.peer_addr().expect("connected"), socket_address("10.99.0.2:8080"));
    assert_eq!(client.local_addr().expect("connected").ip(), address("10.99.0.1"));

    let (proxied, destination) = served.outbound();
    assert_eq!(destination, Some(socket_address("10.99.0.2:8080")));
    assert!(proxied.local_addr().expect("accepted").ip().is_loopback());
    client.write_all(b"hello").expect("written");
    client.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(read(&proxied).expect("read"), "hello");
}
