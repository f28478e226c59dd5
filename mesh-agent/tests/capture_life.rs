//! The life of captured pods and of the agent: release, crash, repair, cleanup.

#[path = "support/world.rs"]
mod world;

use std::{
    fs,
    io::{self, Write},
};

use aya::programs::links::{FdLink, PinnedLink};
use mesh_agent::capture::{Capture, HookState};
use mesh_common::bpf::InboundMode;
use world::{Served, World, listen, read, socket_address};

const RULE: &str = "ip rule; ip -6 rule; ip route show table 15006; ip -6 route show table 15006";
const SYSCTLS: &str =
    "cd /proc/sys/net; cat ipv4/tcp_fwmark_accept ipv4/fwmark_reflect ipv6/fwmark_reflect";

/// Everything about a pod's namespace that capture changes.
fn settings(world: &World, pod: &str) -> String {
    world.sh(pod, &format!("{RULE}; {SYSCTLS}"))
}

#[track_caller]
fn assert_works(world: &World, served: &Served) {
    let mut client = world.connect("a", "10.99.0.2:8080").expect("captured");
    let (proxied, destination) = served.outbound();
    assert_eq!(destination, Some(socket_address("10.99.0.2:8080")));
    client.write_all(b"works").expect("written");
    drop(client);
    assert_eq!(read(&proxied).expect("read"), "works");
    drop(world.connect("b", "10.99.0.1:15008").expect("HBONE"));
    drop(served.hbone());
}

#[track_caller]
fn assert_nothing_is_left(world: &World, before: &str) {
    assert_eq!(settings(world, "a"), before);
    assert!(!world.bpffs().exists());
    let records = fs::read_dir(world.state()).map(Iterator::count).unwrap_or_default();
    assert_eq!(records, 0);
}

/// The kernel's id of a pinned link.
fn link_id(world: &World, pin: &str) -> u32 {
    let link = PinnedLink::from_pin(world.pins().join(pin)).expect("it is pinned");
    FdLink::from(link).info().expect("a link").id()
}

fn attached(states: &[HookState]) -> usize {
    states.iter().filter(|state| state.attached).count()
}

#[test]
fn release_lets_go_of_new_connections_and_keeps_the_old_ones() {
    let world = World::new();
    let _application = world.application("b", "10.99.0.2:8080");
    let before = settings(&world, "a");
    let mut capture = world.start();
    let served = world.capture(&mut capture, "a", InboundMode::Refuse);
    assert_ne!(settings(&world, "a"), before);
    let mut old = world.connect("a", "10.99.0.2:8080").expect("captured");
    let (proxied, _) = served.outbound();

    capture.release("uid-a").expect("released");
    let direct = world.connect("a", "10.99.0.2:8080").expect("not captured");
    assert!(read(&direct).expect("read").starts_with("application saw 10.99.0.1"));
    let _pods_application = world.application("a", "10.99.0.1:8080");
    let direct = world.connect("b", "10.99.0.1:8080").expect("not refused");
    assert!(read(&direct).expect("read").starts_with("application saw 10.99.0.2"));
    old.write_all(b"still here").expect("the old connection lives");
    drop(old);
    assert_eq!(read(&proxied).expect("read"), "still here");

    drop(served);
    capture.finish_release("uid-a").expect("finished");
    assert_eq!(settings(&world, "a"), before);
    assert!(capture.release("uid-a").is_err());
    drop(capture);
    world.cleanup();
    assert_nothing_is_left(&world, &before);
}

#[test]
fn a_released_pod_can_be_captured_again() {
    let world = World::new();
    let before = settings(&world, "a");
    let mut capture = world.start();
    let first = world.capture(&mut capture, "a", InboundMode::Pass);
    capture.release("uid-a").expect("released");
    drop(first);
    let second = world.capture(&mut capture, "a", InboundMode::Pass);
    assert_works(&world, &second);
    capture.release("uid-a").expect("released");
    capture.finish_release("uid-a").expect("finished");
    assert_eq!(settings(&world, "a"), before);
}

#[test]
fn an_agent_that_crashed_is_succeeded_without_a_gap() {
    let world = World::new();
    let before = settings(&world, "a");
    let mut capture = world.start();
    let served = world.capture(&mut capture, "a", InboundMode::Pass);
    assert_works(&world, &served);
    let cookie = served.pod.netns.cookie();
    let pins =
        ["node/connect4", "node/sock_ops", &format!("pods/{cookie}/inbound")].map(str::to_owned);
    let links = pins.clone().map(|pin| link_id(&world, &pin));

    drop((capture, served));
    assert!(world.connect("a", "10.99.0.2:8080").is_err());
    let mut capture = world.start();
    assert_eq!(capture.adopted().as_slice(), &["uid-a".into()]);
    assert!(world.connect("a", "10.99.0.2:8080").is_err(), "it is not served yet");
    let served = world.capture(&mut capture, "a", InboundMode::Pass);
    assert!(capture.adopted().is_empty());
    assert_works(&world, &served);
    assert_eq!(pins.map(|pin| link_id(&world, &pin)), links, "links are adopted, not made again");

    drop((capture, served));
    assert!(world.cleanup().hooks);
    assert_nothing_is_left(&world, &before);
}

#[test]
fn a_pod_that_was_unlabelled_while_the_agent_was_away_is_let_go() {
    let world = World::new();
    let before = settings(&world, "a");
    let mut capture = world.start();
    drop(world.capture(&mut capture, "a", InboundMode::Refuse));
    drop(capture);

    let mut capture = world.start();
    for uid in capture.adopted() {
        capture.release(&uid).expect("adopted");
        capture.finish_release(&uid).expect("released");
    }
    assert_eq!(settings(&world, "a"), before);
    let _application = world.application("a", "10.99.0.1:8080");
    assert!(world.connect("b", "10.99.0.1:8080").is_ok());
}

#[test]
fn what_is_left_of_pods_that_are_gone_is_collected() {
    let world = World::new();
    let mut capture = world.start();
    drop(world.capture(&mut capture, "a", InboundMode::Refuse));
    drop(world.capture(&mut capture, "b", InboundMode::Refuse));
    drop(capture);
    let deleted = std::process::Command::new("ip")
        .args(["netns", "del", &world.netns_name("b")])
        .status()
        .expect("iproute2 is installed");
    assert!(deleted.success());
    // The kernel takes a namespace down in the background.
    world::eventually("the link of the namespace is detached", || {
        let capture = world.start();
        capture.adopted().as_slice() == ["uid-a".into()]
    });
    assert_eq!(fs::read_dir(world.pins().join("pods")).expect("pins").count(), 1);
    assert_eq!(fs::read_dir(world.state()).expect("records").count(), 1);
}

#[test]
fn hooks_that_are_removed_by_hand_are_put_back() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "a", InboundMode::Pass);
    let states = capture.verify_and_repair();
    assert_eq!(attached(&states), states.len(), "{states:?}");

    fs::remove_file(world.pins().join("node/connect4")).expect("it is pinned");
    let states = capture.verify_and_repair();
    assert_eq!(attached(&states), states.len() - 1, "{states:?}");
    assert!(world.pins().join("node/connect4").exists());

    // Detaches every link and removes every pin, as somebody with bpftool and rm would.
    world.cleanup();
    assert!(world.connect("b", "10.99.0.1:15008").is_ok(), "the listener is still bound");
    drop(served.hbone());
    let states = capture.verify_and_repair();
    assert_eq!(attached(&states), 1, "only the entry of the pod is left: {states:?}");
    assert!(states.iter().all(|state| state.error.is_none()), "{states:?}");
    let states = capture.verify_and_repair();
    assert_eq!(attached(&states), states.len(), "{states:?}");
    assert_works(&world, &served);
}

#[test]
fn an_application_on_one_of_our_ports_is_a_named_error() {
    let world = World::new();
    let before = settings(&world, "a");
    let mut capture = world.start();
    for address in ["0.0.0.0:15001", "10.99.0.1:15006", "[::]:15008"] {
        let _application = world.in_pod("a", || listen(address));
        let error = refused(&world, &mut capture, |_| Ok(()));
        let port = socket_address(address).port().to_string();
        assert!(error.contains("test/a") && error.contains(&port), "{error}");
        assert_eq!(settings(&world, "a"), before);
    }
    let served = world.capture(&mut capture, "a", InboundMode::Pass);
    assert_works(&world, &served);
}

#[test]
fn a_pod_that_the_proxy_cannot_serve_stays_as_it_was() {
    let world = World::new();
    let before = settings(&world, "a");
    let mut capture = world.start();
    let error = refused(&world, &mut capture, |_| Err(io::Error::other("no more descriptors")));
    assert!(error.contains("no more descriptors"), "{error}");
    assert_eq!(settings(&world, "a"), before);
    let _application = world.application("b", "10.99.0.2:8080");
    assert!(world.connect("a", "10.99.0.2:8080").is_ok());
}

fn refused(
    world: &World,
    capture: &mut Capture,
    serve: impl FnOnce(()) -> io::Result<()>,
) -> String {
    let result = capture.capture(&world.workload("a"), InboundMode::Pass, |_, _| serve(()));
    result.expect_err("it cannot be captured").to_string()
}

#[test]
fn pods_that_are_not_there_are_named_errors() {
    let world = World::new();
    let mut capture = world.start();
    let mut workload = world.workload("a");
    workload.addresses = vec![socket_address("10.99.0.77:0").ip()];
    let error = capture.capture(&workload, InboundMode::Pass, |_, _| Ok(()));
    let error = error.expect_err("not its address").to_string();
    assert!(error.contains("10.99.0.77"), "{error}");

    let mut workload = world.workload("a");
    workload.name = mesh_common::model::NamespacedName::new("test", "missing");
    let error = capture.capture(&workload, InboundMode::Pass, |_, _| Ok(()));
    let error = error.expect_err("no namespace").to_string();
    assert!(error.contains("test/missing") && error.contains("--pod-netns"), "{error}");
}

#[test]
fn two_agents_share_a_kernel_and_a_cgroup() {
    let (first, second) = (World::new(), World::new());
    let (mut one, mut two) = (first.start(), second.start());
    let served_one = first.capture(&mut one, "a", InboundMode::Pass);
    let served_two = second.capture(&mut two, "a", InboundMode::Pass);
    assert_works(&first, &served_one);
    assert_works(&second, &served_two);
    drop((two, served_two));
    second.cleanup();
    assert_works(&first, &served_one);
}

#[test]
fn the_kernel_log_can_be_turned_on() {
    let world = World::new();
    let mut config = world.config();
    config.kernel_log = true;
    let mut capture = Capture::start(config).unwrap_or_else(|error| panic!("{error}"));
    let served = world.capture(&mut capture, "a", InboundMode::Pass);
    assert_works(&world, &served);
}

#[test]
fn a_cgroup_that_is_none_is_named() {
    let world = World::new();
    let mut config = world.config();
    config.cgroup = Some("/tmp".into());
    let error = Capture::start(config).err().expect("no cgroup").to_string();
    assert!(error.contains("/tmp") && error.contains("--cgroup"), "{error}");
}

#[test]
fn hooks_of_another_layout_refuse_until_each_pod_is_captured_anew() {
    let world = World::new();
    let before = settings(&world, "a");
    let mut capture = world.start();
    let _served = [
        world.capture(&mut capture, "a", InboundMode::Refuse),
        world.capture(&mut capture, "b", InboundMode::Refuse),
    ];
    drop((capture, _served));
    let old = world.pins().with_file_name("v1");
    fs::rename(world.pins(), &old).expect("bpffs renames");

    let mut capture = world.start();
    let _applications =
        [world.application("a", "10.99.0.1:8080"), world.application("b", "10.99.0.2:8080")];
    assert!(world.connect("a", "10.99.0.254:22").is_err(), "it must not leave the pod");
    assert!(world.connect("b", "10.99.0.1:8080").is_err(), "a strict pod must not be open");
    let a = world.capture(&mut capture, "a", InboundMode::Refuse);
    assert!(old.exists(), "b waits still");
    let captured = world.connect("a", "10.99.0.254:22").expect("captured");
    assert_eq!(a.outbound().1, Some(socket_address("10.99.0.254:22")));
    drop(captured);
    let b = world.capture(&mut capture, "b", InboundMode::Refuse);
    assert!(!old.exists());
    let captured = world.connect("a", "10.99.0.254:22").expect("captured");
    assert_eq!(a.outbound().1, Some(socket_address("10.99.0.254:22")));
    drop((captured, a, b, capture));
    world.cleanup();
    assert_nothing_is_left(&world, &before);
}
