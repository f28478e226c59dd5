//! Connections that the proxy makes itself: to an application over the pod's loopback with the
//! caller's address, and from one local pod to another.

#[path = "support/world.rs"]
mod world;

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use mesh_agent::capture::routing::DELIVERY_MARK;
use mesh_common::bpf::InboundMode;
use socket2::{Domain, Socket};
use world::{Served, World, eventually, read, socket_address};

/// A source port that no client of the tests uses.
const SOURCE_PORT: u16 = 20000;

/// What the proxy does to deliver a connection of `caller` to the application at `server`.
fn deliver(world: &World, served: &Served, caller: &str, server: &str) -> io::Result<TcpStream> {
    let caller = SocketAddr::new(caller.parse().expect("an address"), SOURCE_PORT);
    connect_as(world, served, caller, server, Some(served.pod.netns.cookie()))
}

fn connect_as(
    world: &World,
    served: &Served,
    caller: SocketAddr,
    server: &str,
    admit: Option<u64>,
) -> io::Result<TcpStream> {
    let server = socket_address(server);
    world.connect_with("b", server, Domain::for_address(server), |socket| {
        transparent(socket, caller)?;
        socket.set_mark(DELIVERY_MARK)?;
        socket.set_reuse_address(true)?;
        socket.bind(&caller.into())?;
        if let Some(admit) = admit {
            served.mark(socket, admit);
        }
        Ok(())
    })
}

fn transparent(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv4() {
        socket.set_ip_transparent_v4(true)
    } else {
        socket.set_ip_transparent_v6(true)
    }
}

#[test]
fn the_application_sees_the_callers_address() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "b", InboundMode::Refuse);
    let _applications =
        [world.application("b", "0.0.0.0:8080"), world.application("b", "[fd99::2]:8080")];
    for (caller, server) in [("10.99.0.1", "10.99.0.2:8080"), ("fd99::1", "[fd99::2]:8080")] {
        let stream = deliver(&world, &served, caller, server).expect("admitted");
        let caller = SocketAddr::new(caller.parse().expect("an address"), SOURCE_PORT);
        assert_eq!(read(&stream).expect("read"), format!("application saw {caller}"));
        assert_eq!(world.admitted(), 0, "the tuple is admitted until the application has it");
    }
}

#[test]
fn an_address_from_far_away_works_as_well() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "b", InboundMode::Refuse);
    let _application = world.application("b", "0.0.0.0:8080");
    // No route in the pod leads there.
    let stream = deliver(&world, &served, "192.0.2.7", "10.99.0.2:8080").expect("admitted");
    assert_eq!(read(&stream).expect("read"), "application saw 192.0.2.7:20000");
}

#[test]
fn a_closed_port_is_refused_at_once_and_leaves_nothing() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "b", InboundMode::Refuse);
    for (caller, server) in [("10.99.0.1", "10.99.0.2:8080"), ("fd99::1", "[fd99::2]:8080")] {
        let start = Instant::now();
        let error = deliver(&world, &served, caller, server).expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(start.elapsed() < Duration::from_millis(500));
    }
    assert_eq!(world.admitted(), 0);
    let counters = capture.counters();
    assert!(counters.contains(&("admitted", 2)), "{counters:?}");
}

#[test]
fn what_is_not_the_proxys_own_is_not_admitted() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "b", InboundMode::Refuse);
    let _application = world.application("b", "0.0.0.0:8080");
    // A pod with NET_ADMIN can do all this but write the storage of its socket.
    let caller = socket_address("10.99.0.1:20000");
    let error = connect_as(&world, &served, caller, "10.99.0.2:8080", None);
    assert!(error.is_err());
    let error = connect_as(&world, &served, caller, "10.99.0.2:8080", Some(0));
    assert!(error.is_err());
    assert_eq!(world.admitted(), 0);
}

#[test]
fn a_pod_of_the_same_node_is_reached_directly() {
    let world = World::new();
    let mut capture = world.start();
    let caller = world.capture(&mut capture, "a", InboundMode::Refuse);
    let called = world.capture(&mut capture, "b", InboundMode::Refuse);
    let _applications =
        [world.application("b", "0.0.0.0:8080"), world.application("b", "[fd99::2]:8080")];
    for server in ["10.99.0.2:8080", "[fd99::2]:8080"] {
        let server = socket_address(server);
        let stream = world
            .connect_with("a", server, Domain::for_address(server), |socket| {
                caller.mark(socket, called.pod.netns.cookie());
                Ok(())
            })
            .expect("admitted");
        let seen = format!("application saw {}", stream.local_addr().expect("connected"));
        assert_eq!(read(&stream).expect("read"), seen);
    }
    eventually("the tuples are forgotten at close", || world.admitted() == 0);

    let other = world.connect_with("a", socket_address("10.99.0.2:8080"), Domain::IPV4, |socket| {
        caller.mark(socket, caller.pod.netns.cookie());
        Ok(())
    });
    assert!(other.is_err(), "admitted to another pod is not admitted to this one");
}
