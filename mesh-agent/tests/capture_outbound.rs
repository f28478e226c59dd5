//! Outbound connections of a captured pod arrive at the proxy with where they were going, and
//! look untouched from inside the pod.

#[path = "support/world.rs"]
mod world;

use std::{
    collections::HashSet,
    io::{ErrorKind, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
};

use mesh_agent::capture::Capture;
use mesh_common::bpf::{EventKind, InboundMode};
use socket2::{Domain, Socket, Type};
use world::{Served, World, eventually, read, socket_address};

/// MPTCP as a protocol of socket(2).
const IPPROTO_MPTCP: i32 = 262;

fn captured(world: &World) -> (Capture, Served) {
    let mut capture = world.start();
    let served = world.capture(&mut capture, "a", InboundMode::Pass);
    (capture, served)
}

/// What the application sees, what the proxy sees, and that bytes get through.
#[track_caller]
fn assert_captured(client: &mut TcpStream, served: &Served, asked: &str, source: &str) {
    let asked = socket_address(asked);
    let source: IpAddr = source.parse().expect("an address");
    assert_eq!(client.peer_addr().map(unmapped).expect("connected"), asked);
    assert_eq!(client.local_addr().map(unmapped).expect("connected").ip(), source);
    let (proxied, destination) = served.outbound();
    assert_eq!(destination, Some(asked));
    client.write_all(b"hello").expect("written");
    client.shutdown(Shutdown::Write).expect("shut down");
    assert_eq!(read(&proxied).expect("read"), "hello");
}

fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn counter(capture: &Capture, name: &str) -> u64 {
    let counters = capture.counters();
    counters.iter().find(|(known, _)| *known == name).expect("a known counter").1
}

#[test]
fn ipv4_ipv6_and_mapped_connections_are_captured() {
    let world = World::new();
    let (capture, served) = captured(&world);

    let mut client = world.connect("a", "10.99.0.2:8080").expect("captured");
    assert_captured(&mut client, &served, "10.99.0.2:8080", "10.99.0.1");
    let mut client = world.connect("a", "[fd99::2]:8080").expect("captured");
    assert_captured(&mut client, &served, "[fd99::2]:8080", "fd99::1");
    let mapped = socket_address("[::ffff:10.99.0.2]:8080");
    let mut client = world.connect_with("a", mapped, Domain::IPV6, |_| Ok(())).expect("captured");
    assert_captured(&mut client, &served, "10.99.0.2:8080", "10.99.0.1");

    assert_eq!(counter(&capture, "captured"), 3);
    assert_eq!(counter(&capture, "published"), 3);
    assert_eq!(counter(&capture, "capture_failed"), 0);
}

#[test]
fn an_address_that_nobody_has_is_captured_too() {
    let world = World::new();
    let (_capture, served) = captured(&world);
    // As a Service's address is: no route leads there, and the proxy knows better.
    let mut client = world.connect("a", "10.96.0.10:80").expect("captured");
    assert_captured(&mut client, &served, "10.96.0.10:80", "10.99.0.1");
}

#[test]
fn sockets_that_are_bound_are_captured() {
    let world = World::new();
    let (_capture, served) = captured(&world);
    for (asked, bind, source, domain) in [
        ("10.99.0.2:8080", "10.99.0.1:0", "10.99.0.1", Domain::IPV4),
        ("10.99.0.2:8080", "0.0.0.0:4444", "10.99.0.1", Domain::IPV4),
        ("[fd99::2]:8080", "[fd99::1]:0", "fd99::1", Domain::IPV6),
        ("[fd99::2]:8080", "[::]:4445", "fd99::1", Domain::IPV6),
    ] {
        let address = socket_address(asked);
        let bind = socket_address(bind);
        let mut client = world
            .connect_with("a", address, domain, |socket| socket.bind(&bind.into()))
            .unwrap_or_else(|error| panic!("{asked} from {bind}: {error}"));
        if bind.port() != 0 {
            assert_eq!(client.local_addr().expect("bound").port(), bind.port());
        }
        assert_captured(&mut client, &served, asked, source);
    }
}

#[test]
fn sockets_that_are_bound_to_a_device_are_captured() {
    let world = World::new();
    let (_capture, served) = captured(&world);
    for (asked, source) in [("10.99.0.2:8080", "10.99.0.1"), ("[fd99::2]:8080", "fd99::1")] {
        let address = socket_address(asked);
        let mut client = world
            .connect_with("a", address, Domain::for_address(address), |socket| {
                socket.bind_device(Some(b"eth0"))
            })
            .unwrap_or_else(|error| panic!("{asked} over eth0: {error}"));
        assert_captured(&mut client, &served, asked, source);
    }
}

#[test]
fn multipath_tcp_is_captured() {
    let world = World::new();
    let (_capture, served) = captured(&world);
    let mut client: TcpStream = world.in_pod("a", || {
        let protocol = Some(IPPROTO_MPTCP.into());
        let socket = Socket::new(Domain::IPV4, Type::STREAM, protocol).expect("CONFIG_MPTCP");
        socket.connect(&socket_address("10.99.0.2:8080").into()).expect("captured");
        socket.into()
    });
    assert_captured(&mut client, &served, "10.99.0.2:8080", "10.99.0.1");
}

#[test]
fn connections_are_spread_over_addresses() {
    let world = World::new();
    let (_capture, served) = captured(&world);
    // One address would run out of ports after 20 connections, whatever their destinations.
    world.sh("a", "echo 40000 40019 > /proc/sys/net/ipv4/ip_local_port_range");
    let clients: Vec<_> = (0..60)
        .map(|port| {
            world.connect("a", &format!("10.99.0.2:{}", 9000 + port / 20)).expect("captured")
        })
        .collect();
    for _ in &clients {
        assert!(served.outbound().1.is_some());
    }
}

#[test]
fn a_client_that_is_gone_before_the_proxy_looks_is_still_served() {
    let world = World::new();
    let (_capture, served) = captured(&world);
    let mut client = world.connect("a", "10.99.0.2:8080").expect("captured");
    client.write_all(b"fire and forget").expect("written");
    drop(client);
    // Until the client's socket is in TIME_WAIT, where the kernel knows no storage any more.
    eventually("the client's FIN is acknowledged", || {
        world.sh("a", "ss -Htan state fin-wait-2").contains("15001")
    });
    let (proxied, destination) = served.outbound();
    assert_eq!(destination, Some(socket_address("10.99.0.2:8080")));
    assert_eq!(read(&proxied).expect("read"), "fire and forget");
}

#[test]
fn loopback_and_the_pod_itself_are_not_captured() {
    let world = World::new();
    let (capture, _served) = captured(&world);
    let _applications =
        [world.application("a", "0.0.0.0:8080"), world.application("a", "[::]:8081")];
    for address in [
        "127.0.0.1:8080",
        "127.3.2.1:8080",
        "0.0.0.0:8080",
        "10.99.0.1:8080",
        "[::1]:8081",
        "[fd99::1]:8081",
        "[::ffff:127.0.0.1]:8081",
        "[::ffff:10.99.0.1]:8081",
    ] {
        let client = world.connect("a", address).unwrap_or_else(|e| panic!("{address}: {e}"));
        assert!(read(&client).expect("read").starts_with("application saw"), "{address}");
        drop(client);
    }
    assert_eq!(counter(&capture, "captured"), 0);
}

#[test]
fn a_socket_that_is_used_again_forgets_where_it_went() {
    let world = World::new();
    let (_capture, served) = captured(&world);
    let _application = world.application("a", "127.0.0.1:8080");
    world.in_pod("a", || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.connect(&socket_address("10.99.0.2:9000").into()).expect("captured");
        drop(served.outbound());
        rustix::net::connect_unspec(&socket).expect("AF_UNSPEC disconnects");
        socket.connect(&socket_address("127.0.0.1:8080").into()).expect("not captured");
        let stream: TcpStream = socket.into();
        assert_eq!(stream.peer_addr().expect("connected"), socket_address("127.0.0.1:8080"));
        assert!(read(&stream).expect("read").starts_with("application saw"));
    });
}

#[test]
fn a_pod_outside_the_mesh_is_untouched() {
    let world = World::new();
    let (capture, _served) = captured(&world);
    let _application = world.application("a", "10.99.0.1:8080");
    let client = world.connect("b", "10.99.0.1:8080").expect("plaintext passes");
    assert_eq!(client.peer_addr().expect("connected"), socket_address("10.99.0.1:8080"));
    let seen = format!("application saw {}", client.local_addr().expect("connected"));
    assert_eq!(read(&client).expect("read"), seen);
    assert_eq!(counter(&capture, "captured"), 0);
}

#[test]
fn the_proxys_own_sockets_are_not_captured() {
    let world = World::new();
    let (_capture, served) = captured(&world);
    let _application = world.application("b", "10.99.0.2:8080");
    let address = socket_address("10.99.0.2:8080");
    let client = world
        .connect_with("a", address, Domain::IPV4, |socket| {
            served.mark(socket, 0);
            Ok(())
        })
        .expect("straight to the other pod");
    assert!(read(&client).expect("read").starts_with("application saw 10.99.0.1"));
}

#[test]
fn a_family_that_the_pod_lacks_fails_at_once_as_without_a_mesh() {
    let world = World::new();
    let mut capture = world.start();
    let mut workload = world.workload("a");
    workload.addresses.retain(IpAddr::is_ipv4);
    let mut listeners = Vec::new();
    capture
        .capture(&workload, InboundMode::Pass, |_, sets| {
            listeners = sets;
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(listeners.len(), 2);
    assert!(listeners.iter().all(|set| set.outbound.len() == 1 && set.hbone.len() == 1));
    let error = world.connect("a", "[fd99::2]:8080").expect_err("no IPv6");
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
}

#[test]
fn entries_of_connections_that_failed_do_not_stay() {
    let world = World::new();
    let (capture, served) = captured(&world);
    drop(served);
    for _ in 0..10 {
        let error = world.connect("a", "10.99.0.2:8080").expect_err("no listener");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
    assert_eq!(counter(&capture, "published"), 10);
    assert_eq!(world.published(), 0);
}

#[test]
fn what_nobody_serves_is_refused_in_connect_and_told() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "a", InboundMode::Pass);
    let sockets = capture.sockets();
    let mut events = capture.events().unwrap_or_else(|error| panic!("{error}"));
    let connect = |address: &str| {
        let error = world.connect("a", address).err();
        error.map(|error| error.kind())
    };
    for (unserved, next) in [("10.96.0.9:80", "10.96.0.9:81"), ("[fd96::9]:80", "[fd96::9]:81")] {
        sockets.set_unserved(&HashSet::from([socket_address(unserved)])).expect("room");
        assert_eq!(connect(unserved), Some(ErrorKind::ConnectionRefused));
        let event = events.next().expect("it is told");
        let server = socket_address(unserved);
        assert_eq!(event.kind, EventKind::NoEndpoint as u32);
        assert_eq!(event.connection.netns, served.pod.netns.cookie());
        assert_eq!(event.connection.server, server.ip().into());
        assert_eq!(event.connection.server_port, u32::from(server.port()));
        assert_eq!(connect(next), None, "another port is the proxy's business");
        sockets.set_unserved(&HashSet::new()).expect("room");
        assert_eq!(connect(unserved), None, "somebody is ready");
    }
    assert!(events.next().is_none());
    assert!(capture.counters().contains(&("connect_refused", 2)), "{:?}", capture.counters());
}
