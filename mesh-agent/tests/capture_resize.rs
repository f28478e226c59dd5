//! An agent that is started with room for more, or for less, than the one before it.

#[path = "support/world.rs"]
mod world;

use std::{
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use aya::maps::{HashMap, Map, MapData};
use mesh_agent::capture::{Capture, CaptureConfig};
use mesh_common::bpf::InboundMode;
use world::{Served, World, eventually, listen, read, socket_address};

/// The maps whose size --max-connections sets.
const CONNECTIONS: [&str; 4] = ["ORIGINAL_DESTINATIONS", "ADMITTED", "UPSTREAMS", "PASSED"];

fn start(config: CaptureConfig) -> Capture {
    Capture::start(config).unwrap_or_else(|error| panic!("{error}"))
}

fn sized(world: &World, max_pods: u32, max_connections: u32) -> CaptureConfig {
    CaptureConfig { max_pods, max_connections, ..world.config() }
}

fn map(world: &World, name: &str) -> MapData {
    MapData::from_pin(world.pins().join("maps").join(name)).expect("it is pinned")
}

fn size(world: &World, name: &str) -> u32 {
    map(world, name).info().expect("a map").max_entries()
}

fn entries(world: &World, name: &str) -> usize {
    match name {
        "PODS" => count::<8, { size_of::<mesh_common::bpf::Pod>() }>(map(world, name)),
        _ => count::<48, 4>(map(world, name)),
    }
}

fn count<const KEY: usize, const VALUE: usize>(map: MapData) -> usize {
    let map = Map::from_map_data(map).expect("a known kind of map");
    let map = HashMap::<_, [u8; KEY], [u8; VALUE]>::try_from(map);
    map.map_or_else(|error| panic!("{error}"), |map| map.keys().count())
}

/// A plaintext connection from a to b, which lets it pass.
fn passed(world: &World, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = world.connect("a", "10.99.0.2:8080").expect("b lets plaintext in");
    (client, listener.accept().expect("an application has it").0)
}

#[track_caller]
fn assert_captured(world: &World, served: &Served) {
    drop(world.connect("b", "10.99.0.1:9090").expect("captured"));
    assert_eq!(served.outbound().1, Some(socket_address("10.99.0.1:9090")));
}

#[test]
fn maps_take_another_size_with_what_is_in_them() {
    let world = World::new();
    let mut capture = start(sized(&world, 2, 8));
    let served = world.capture(&mut capture, "b", InboundMode::Pass);
    let listener = world.in_pod("b", || listen("10.99.0.2:8080"));
    let (first, second) = (passed(&world, &listener), passed(&world, &listener));
    assert_eq!((size(&world, "PODS"), size(&world, "PASSED")), (2, 8));
    drop((capture, served));

    let mut capture = start(sized(&world, 3, 5000));
    assert_eq!((size(&world, "PODS"), size(&world, "PROBES")), (3, 3 * 64));
    assert_eq!(CONNECTIONS.map(|name| size(&world, name)), [5000; 4]);
    assert_eq!((entries(&world, "PODS"), entries(&world, "PASSED")), (1, 2));
    // Who ends it tells the new map: the node's programs have it already.
    drop(first);
    eventually("it is forgotten", || entries(&world, "PASSED") == 1);
    let served = world.capture(&mut capture, "b", InboundMode::Pass);
    assert_captured(&world, &served);
    let third = passed(&world, &listener);
    assert_eq!(entries(&world, "PASSED"), 2);
    drop((capture, served));

    // Smaller again, to exactly what is there.
    let mut capture = start(sized(&world, 1, 2));
    assert_eq!((size(&world, "PODS"), size(&world, "PASSED")), (1, 2));
    assert_eq!((entries(&world, "PODS"), entries(&world, "PASSED")), (1, 2));
    assert_captured(&world, &world.capture(&mut capture, "b", InboundMode::Pass));
    drop((second, third));
    eventually("all are forgotten", || entries(&world, "PASSED") == 0);
}

#[test]
fn a_size_below_what_is_in_use_is_a_named_error_that_changes_nothing() {
    let world = World::new();
    let mut capture = start(sized(&world, 4, 64));
    let served = ["a", "b"].map(|pod| world.capture(&mut capture, pod, InboundMode::Pass));
    drop((capture, served));
    let error = Capture::start(sized(&world, 1, 128)).err().expect("two pods").to_string();
    for part in ["--max-pods", "PODS", "2 entries", "room for 1 "] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    assert_eq!((size(&world, "PODS"), size(&world, "PASSED")), (4, 64));
    let mut capture = start(sized(&world, 2, 128));
    assert_captured(&world, &world.capture(&mut capture, "b", InboundMode::Pass));
}

#[test]
fn nothing_gets_around_the_mesh_while_maps_change_their_size() {
    let world = World::new();
    let mut capture = start(sized(&world, 16, 64));
    let served = world.capture(&mut capture, "a", InboundMode::Refuse);
    let _applications =
        [world.application("b", "10.99.0.2:8080"), world.application("a", "10.99.0.1:8080")];
    drop((capture, served));
    let is_over = AtomicBool::new(false);
    let tries = |from: &'static str, to: &'static str| {
        let (world, is_over) = (&world, &is_over);
        move || {
            let mut tried = 0;
            while !is_over.load(Ordering::Relaxed) {
                // The proxy that is there in the end accepts nothing, so it says nothing.
                if let Ok(stream) = world.connect(from, to) {
                    stream.set_nonblocking(true).expect("a socket");
                    thread::sleep(std::time::Duration::from_millis(1));
                    let mut text = [0; 1];
                    let seen = stream.peek(&mut text).unwrap_or_default();
                    assert_eq!(seen, 0, "{from} got through to {to}");
                }
                tried += 1;
            }
            tried
        }
    };
    thread::scope(|scope| {
        let running =
            [scope.spawn(tries("a", "10.99.0.2:8080")), scope.spawn(tries("b", "10.99.0.1:8080"))];
        for (max_pods, max_connections) in [(1000, 60_000), (5, 100), (300, 9_000), (16, 64)] {
            let mut capture = start(sized(&world, max_pods, max_connections));
            let served = world.capture(&mut capture, "a", InboundMode::Refuse);
            drop((capture, served));
        }
        is_over.store(true, Ordering::Relaxed);
        for tried in running {
            assert!(tried.join().expect("nothing got through") > 10);
        }
    });
}

#[test]
fn what_a_pods_old_programs_would_still_let_through_is_taken_from_them() {
    let world = World::new();
    let mut capture = start(sized(&world, 16, 64));
    let served = world.capture(&mut capture, "b", InboundMode::Refuse);
    let _application = world.application("b", "10.99.0.2:8080");
    let admitted = map(&world, "ADMITTED");
    let old = admitted.fd().as_fd().try_clone_to_owned().expect("descriptors are left");
    let left_in_old = || {
        let again = old.try_clone().expect("descriptors are left");
        count::<48, 4>(MapData::from_fd(again).expect("a map"))
    };
    // Admitted to b, and on its way for as long as b's answer does not come: b is deaf.
    world.sh("b", "ip link set eth0 down");
    let server = socket_address("10.99.0.2:8080");
    let cookie = served.pod.netns.cookie();
    let calling = world.in_pod("a", || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        served.mark(&socket, cookie);
        socket.set_nonblocking(true).expect("a socket");
        assert!(socket.connect(&server.into()).is_err(), "it is under way");
        socket
    });
    assert_eq!(left_in_old(), 1);
    drop((capture, served));
    let _capture = start(sized(&world, 16, 128));
    assert_eq!(left_in_old(), 0, "b's program has it until later");
    assert_eq!(entries(&world, "ADMITTED"), 1, "it is still under way");
    drop(calling);
    eventually("it is forgotten", || entries(&world, "ADMITTED") == 0);
    assert!(read(&world.connect("b", "10.99.0.2:8080").expect("b calls itself")).is_ok());
}
