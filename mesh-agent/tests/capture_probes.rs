//! Probes of the node reach the ports that are named for them, and nobody else does.

#[path = "support/world.rs"]
mod world;

use std::{io, net::TcpStream, time::Duration};

use mesh_agent::capture::InboundModes;
use mesh_common::bpf::{ConnectionKey, EventKind, InboundMode};
use world::{World, eventually, read, socket_address};

const PORT: u16 = 8080;

/// Pod b as a strict one with a port for probes.
fn strict() -> InboundModes {
    InboundModes { probes: vec![PORT], ..InboundMode::Refuse.into() }
}

/// Connects as the node's kubelet does: from the network namespace that the agent is in.
fn probe(address: &str) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&socket_address(address), Duration::from_secs(3))
}

#[track_caller]
fn assert_refused(outcome: io::Result<TcpStream>) {
    assert_eq!(outcome.expect_err("strict").kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_strict_pod_is_probed_at_the_named_port_by_its_node_alone() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "b", strict());
    let _applications = [8080, 8081].map(|port| world.application("b", &format!("[::]:{port}")));
    let mut events = capture.events().unwrap_or_else(|error| panic!("{error}"));

    let stream = probe("10.99.0.2:8080").expect("named for probes");
    assert!(read(&stream).expect("read").starts_with("application saw"));
    assert_eq!(world.admitted(), 0, "good once");
    let client = stream.local_addr().expect("connected");
    let connection =
        ConnectionKey::new(served.pod.netns.cookie(), client, socket_address("10.99.0.2:8080"));
    let event = events.next().expect("it is told");
    assert_eq!((event.kind, event.connection), (EventKind::Probe as u32, connection));
    assert!(events.next().is_none());

    assert_refused(probe("10.99.0.2:8081"));
    assert_refused(world.connect("a", "10.99.0.2:8080"));
    let passed = capture.sockets().passed(served.pod.netns.cookie()).expect("a list");
    assert!(passed.is_empty(), "{passed:?}");
}

#[test]
fn a_probe_that_nobody_answers_leaves_nothing_behind() {
    let world = World::new();
    let mut capture = world.start();
    let _served = world.capture(&mut capture, "b", strict());
    assert_refused(probe("10.99.0.2:8080"));
    eventually("the tuple is forgotten", || world.admitted() == 0);
    assert!(capture.counters().contains(&("probe_admitted", 1)), "{:?}", capture.counters());
}

#[test]
fn ports_come_and_go_with_what_the_pod_names_and_with_the_pod() {
    let world = World::new();
    let mut capture = world.start();
    let _served = world.capture(&mut capture, "b", strict());
    let _application = world.application("b", "0.0.0.0:8080");
    assert_eq!(world.probes(), 2, "one for each address");
    capture.set_inbound_modes("uid-b", InboundMode::Refuse).expect("captured");
    assert_refused(probe("10.99.0.2:8080"));
    assert_eq!(world.probes(), 0);
    capture.set_inbound_modes("uid-b", strict()).expect("captured");
    probe("10.99.0.2:8080").expect("named for probes");
    capture.release("uid-b").expect("captured");
    capture.finish_release("uid-b").expect("released");
    assert_eq!(world.probes(), 0);
}

#[test]
fn probes_outlive_the_agent() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "b", strict());
    let _application = world.application("b", "0.0.0.0:8080");
    drop((capture, served));
    probe("10.99.0.2:8080").expect("a pod does not fail its probes because an agent is away");
    let _capture = world.start();
    probe("10.99.0.2:8080").expect("nor because its successor has not looked at it yet");
}
