//! Who gets the connections that arrive in a captured pod.

#[path = "support/world.rs"]
mod world;

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    net::TcpStream,
    time::{Duration, Instant},
};

use mesh_agent::capture::InboundModes;
use mesh_common::bpf::InboundMode;
use world::{World, read, socket_address};

/// Far more than a refusal takes, far less than any timeout of the kernel.
const AT_ONCE: Duration = Duration::from_millis(500);

#[track_caller]
fn assert_refused_at_once(connect: impl FnOnce() -> io::Result<TcpStream>) {
    let start = Instant::now();
    let error = connect().expect_err("nothing answers");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

#[test]
fn each_mode_gives_plaintext_to_whom_it_says() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "b", InboundMode::Pass);
    let _applications =
        [world.application("b", "10.99.0.2:8080"), world.application("b", "[fd99::2]:8080")];

    for (address, client) in [("10.99.0.2:8080", "10.99.0.1"), ("[fd99::2]:8080", "fd99::1")] {
        capture.set_inbound_modes("uid-b", InboundMode::Pass).expect("captured");
        let stream = world.connect("a", address).expect("passed");
        let seen = read(&stream).expect("read");
        assert!(seen.starts_with("application saw") && seen.contains(client), "{seen}");

        capture.set_inbound_modes("uid-b", InboundMode::Proxy).expect("captured");
        let stream = world.connect("a", address).expect("proxied");
        let proxied = served.inbound();
        assert_eq!(proxied.local_addr().expect("accepted"), socket_address(address));
        assert_eq!(proxied.peer_addr().expect("accepted"), stream.local_addr().expect("connected"));

        capture.set_inbound_modes("uid-b", InboundMode::Refuse).expect("captured");
        assert_refused_at_once(|| world.connect("a", address));
    }
    let counters = capture.counters();
    for (name, count) in [("inbound_passed", 2), ("inbound_proxied", 2), ("inbound_refused", 2)] {
        assert!(counters.contains(&(name, count)), "{name}: {counters:?}");
    }
}

#[test]
fn ports_with_a_mode_of_their_own_have_that_one() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "b", InboundMode::Pass);
    let _applications = [8080, 8081].map(|port| world.application("b", &format!("[::]:{port}")));
    let modes = |others: InboundMode, port, mode| InboundModes {
        ports: BTreeMap::from([(port, mode)]),
        ..others.into()
    };
    let passes = |address: &str| {
        let stream = world.connect("a", address).unwrap_or_else(|e| panic!("{address}: {e}"));
        assert!(read(&stream).expect("read").starts_with("application saw"));
    };
    for host in ["10.99.0.2", "[fd99::2]"] {
        let [first, second] = [8080, 8081].map(|port| format!("{host}:{port}"));
        let strict = modes(InboundMode::Pass, 8080, InboundMode::Refuse);
        capture.set_inbound_modes("uid-b", strict).expect("captured");
        assert_refused_at_once(|| world.connect("a", &first));
        passes(&second);
        let open = modes(InboundMode::Refuse, 8081, InboundMode::Pass);
        capture.set_inbound_modes("uid-b", open).expect("captured");
        assert_refused_at_once(|| world.connect("a", &first));
        passes(&second);
        let judged = modes(InboundMode::Refuse, 8080, InboundMode::Proxy);
        capture.set_inbound_modes("uid-b", judged).expect("captured");
        let stream = world.connect("a", &first).expect("proxied");
        assert_eq!(served.inbound().local_addr().expect("accepted"), socket_address(&first));
        drop(stream);
        assert_refused_at_once(|| world.connect("a", &second));
        capture.set_inbound_modes("uid-b", InboundMode::Pass).expect("captured");
        passes(&first);
        passes(&second);
    }
}

#[test]
fn hbone_reaches_the_proxy_in_every_mode() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "b", InboundMode::Pass);
    for mode in [InboundMode::Pass, InboundMode::Proxy, InboundMode::Refuse] {
        capture.set_inbound_modes("uid-b", mode).expect("captured");
        for address in ["10.99.0.2:15008", "[fd99::2]:15008"] {
            let stream = world.connect("a", address).expect("the proxy listens");
            let accepted = served.hbone();
            assert_eq!(accepted.local_addr().expect("accepted"), socket_address(address));
            drop(stream);
        }
    }
}

#[test]
fn nobody_reaches_the_proxys_plaintext_listener_by_its_port() {
    let world = World::new();
    let mut capture = world.start();
    let _served = world.capture(&mut capture, "b", InboundMode::Pass);
    for pod in ["a", "b"] {
        assert_refused_at_once(|| world.connect(pod, "10.99.0.2:15006"));
        assert_refused_at_once(|| world.connect(pod, "[fd99::2]:15006"));
    }
}

#[test]
fn the_pod_reaches_itself_in_every_mode() {
    let world = World::new();
    let mut capture = world.start();
    let _served = world.capture(&mut capture, "b", InboundMode::Refuse);
    let _applications =
        [world.application("b", "0.0.0.0:8080"), world.application("b", "[::]:8081")];
    for address in ["127.0.0.1:8080", "10.99.0.2:8080", "[::1]:8081", "[fd99::2]:8081"] {
        let stream = world.connect("b", address).unwrap_or_else(|e| panic!("{address}: {e}"));
        assert!(read(&stream).expect("read").starts_with("application saw"));
    }
}

#[test]
fn every_worker_gets_connections() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "b", InboundMode::Proxy);
    let clients: Vec<_> =
        (0..64).map(|_| world.connect("a", "10.99.0.2:8080").expect("proxied")).collect();
    let accepted: Vec<usize> = served
        .listeners
        .iter()
        .map(|worker| {
            let listener = &worker.inbound[0];
            (0..).take_while(|_| listener.accept().is_ok()).count()
        })
        .collect();
    assert_eq!(accepted.iter().sum::<usize>(), clients.len());
    assert!(accepted.iter().all(|count| *count > 0), "{accepted:?}");
}

#[test]
fn without_an_agent_new_connections_are_refused_at_once_in_both_directions() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "b", InboundMode::Pass);
    let _application = world.application("b", "0.0.0.0:8080");
    drop(world.connect("a", "10.99.0.2:8080").expect("passed"));

    // A crash: the kernel closes the agent's descriptors, and nothing is taken back.
    drop((capture, served));
    assert_refused_at_once(|| world.connect("a", "10.99.0.2:8080"));
    assert_refused_at_once(|| world.connect("a", "10.99.0.2:15008"));
    assert_refused_at_once(|| world.connect("b", "10.99.0.1:8080"));
    assert_refused_at_once(|| world.connect("b", "[fd99::1]:8080"));
    let stream = world.connect("b", "127.0.0.1:8080").expect("loopback is the pod's own");
    assert!(read(&stream).expect("read").starts_with("application saw"));
}
