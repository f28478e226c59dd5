//! Plaintext that applications of a captured pod get without the proxy: what is listed, and for how
//! long.

#[path = "support/world.rs"]
mod world;

use std::net::Shutdown;

use mesh_agent::capture::Capture;
use mesh_common::bpf::{ConnectionKey, InboundMode};
use socket2::{Domain, SockRef};
use world::{World, eventually, listen, socket_address};

fn counter(capture: &Capture, name: &str) -> u64 {
    let counters = capture.counters();
    counters.iter().find(|(known, _)| *known == name).expect("a counter").1
}

/// What is listed of pod b, in no order.
fn passed(world: &World, capture: &Capture) -> Vec<ConnectionKey> {
    capture.sockets().passed(world.netns("b").cookie()).expect("the map can be read")
}

#[test]
fn plaintext_is_listed_from_accept_to_end() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "b", InboundMode::Pass);
    // The last is of an IPv6 socket that takes IPv4 as well.
    for (listening, address) in [
        ("10.99.0.2:8080", "10.99.0.2:8080"),
        ("[fd99::2]:8080", "[fd99::2]:8080"),
        ("[::]:9090", "10.99.0.2:9090"),
    ] {
        let listener = world.in_pod("b", || listen(listening));
        let first = world.connect("a", address).expect("passed");
        let (accepted, _) = listener.accept().expect("an application has it");
        let client = first.local_addr().expect("connected");
        let key = ConnectionKey::new(served.pod.netns.cookie(), client, socket_address(address));
        assert_eq!(passed(&world, &capture), [key], "{address}");

        let second = world.connect("a", address).expect("passed");
        let (other, _) = listener.accept().expect("an application has it");
        eventually("both are listed", || passed(&world, &capture).len() == 2);
        // One that is half closed lives; one that is reset does not.
        second.shutdown(Shutdown::Write).expect("connected");
        SockRef::from(&first).set_linger(Some(std::time::Duration::ZERO)).expect("an option");
        drop(first);
        eventually("the reset one is forgotten", || passed(&world, &capture).len() == 1);
        drop(accepted);
        // The side that closes first waits in TIME_WAIT, which is no connection.
        drop(other);
        drop(second);
        eventually("the closed one is forgotten", || passed(&world, &capture).is_empty());
    }
    assert_eq!(counter(&capture, "inbound_passed"), 6);
    assert_eq!(counter(&capture, "pass_unlisted"), 0);
}

#[test]
fn nothing_else_is_listed() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "b", InboundMode::Pass);
    let _applications =
        [world.application("b", "0.0.0.0:8080"), world.application("b", "[::]:8081")];
    // The pod and itself.
    let own: Vec<_> = ["127.0.0.1:8080", "10.99.0.2:8080", "[::1]:8081", "[fd99::2]:8081"]
        .into_iter()
        .map(|address| world.connect("b", address).expect("the pod's own"))
        .collect();
    // The proxy, to which it is admitted.
    let cookie = served.pod.netns.cookie();
    let server = socket_address("10.99.0.2:8080");
    let admitted = world
        .connect_with("a", server, Domain::IPV4, |socket| {
            served.mark(socket, cookie);
            Ok(())
        })
        .expect("admitted");
    // To the proxy: tunnels, plaintext that it judges, and what the pod's applications call.
    let hbone = world.connect("a", "10.99.0.2:15008").expect("the proxy listens");
    let outbound = world.connect("b", "10.99.0.1:8080").expect("the proxy listens");
    capture.set_inbound_modes("uid-b", InboundMode::Proxy).expect("captured");
    let judged = world.connect("a", "10.99.0.2:8080").expect("the proxy listens");
    let taken = (served.hbone(), served.outbound(), served.inbound());
    // A pod that is not in the mesh.
    let _stranger = world.application("a", "0.0.0.0:9090");
    let outside = world.connect_with("b", socket_address("10.99.0.1:9090"), Domain::IPV4, |it| {
        served.mark(it, 0);
        Ok(())
    });
    assert_eq!(counter(&capture, "inbound_passed"), 0);
    assert!(passed(&world, &capture).is_empty());
    drop((own, admitted, hbone, outbound, judged, taken, outside));
}

#[test]
fn a_full_list_costs_no_connection_and_is_counted() {
    let world = World::new();
    let mut config = world.config();
    config.max_connections = 4;
    let mut capture = Capture::start(config).unwrap_or_else(|error| panic!("{error}"));
    let _served = world.capture(&mut capture, "b", InboundMode::Pass);
    let listener = world.in_pod("b", || listen("10.99.0.2:8080"));
    let connections: Vec<_> = (0..6)
        .map(|_| {
            let client = world.connect("a", "10.99.0.2:8080").expect("passed");
            (client, listener.accept().expect("an application has it"))
        })
        .collect();
    assert_eq!(passed(&world, &capture).len(), 4);
    assert_eq!(counter(&capture, "inbound_passed"), 6);
    assert_eq!(counter(&capture, "pass_unlisted"), 2);
    drop(connections);
    eventually("all are forgotten", || passed(&world, &capture).is_empty());
}

#[test]
fn the_list_outlives_the_agent_and_ends_with_the_pods_membership() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "b", InboundMode::Pass);
    let listener = world.in_pod("b", || listen("10.99.0.2:8080"));
    let client = world.connect("a", "10.99.0.2:8080").expect("passed");
    let accepted = listener.accept().expect("an application has it");
    drop((capture, served));

    let mut capture = world.start();
    let _served = world.capture(&mut capture, "b", InboundMode::Refuse);
    assert_eq!(passed(&world, &capture).len(), 1);
    capture.release("uid-b").expect("captured");
    capture.finish_release("uid-b").expect("released");
    assert!(passed(&world, &capture).is_empty());
    drop((client, accepted));
}
