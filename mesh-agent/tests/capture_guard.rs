//! The guards at both ends of a pod's link: what they stop, what they let pass, and their life.

#[path = "support/world.rs"]
mod world;

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
};

use aya::{
    Ebpf,
    programs::{LinkOrder, SchedClassifier, TcAttachType, tc::TcAttachOptions},
};
use mesh_agent::capture::{Capture, HookState};
use mesh_common::bpf::InboundMode;
use socket2::{Domain, Protocol, Socket, Type};
use world::{World, eventually, listen, read, socket_address};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;

/// A TCP header from port 20000 to port 8080. Nobody looks at its checksum here.
fn tcp(flags: u8) -> Vec<u8> {
    let mut header = vec![0; 20];
    header[..2].copy_from_slice(&20000_u16.to_be_bytes());
    header[2..4].copy_from_slice(&8080_u16.to_be_bytes());
    header[12] = 5 << 4;
    header[13] = flags;
    header
}

/// An IPv4 packet to pod b, with options where there are any; the kernel fills in the checksum.
/// `fragment` is the offset in units of eight bytes, with 0x2000 where more fragments follow.
fn ipv4(source: [u8; 4], options: &[u8], fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 20];
    packet[0] = 0x40 | (5 + options.len() / 4) as u8;
    let length = (20 + options.len() + payload.len()) as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[4..6].copy_from_slice(&77_u16.to_be_bytes());
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    (packet[8], packet[9]) = (64, 6);
    packet[12..16].copy_from_slice(&source);
    packet[16..20].copy_from_slice(&[10, 99, 0, 2]);
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// Sends a packet from pod a over a raw socket, whole or without its IP header.
fn send_raw(world: &World, to: &str, protocol: i32, is_whole: bool, packet: &[u8]) {
    let to: IpAddr = to.parse().expect("an address");
    world.in_pod("a", || {
        let to = SocketAddr::new(to, 0);
        let socket =
            Socket::new(Domain::for_address(to), Type::RAW, Some(Protocol::from(protocol)))
                .expect("CAP_NET_RAW");
        if is_whole {
            socket.set_header_included_v4(true).expect("an option");
        }
        // IPv6 tells the sender that the packet was dropped, IPv4 does not.
        let sent = socket.send_to(packet, &to.into());
        let error = sent.err().and_then(|error| error.raw_os_error());
        assert!(error.is_none_or(|errno| errno == libc::ENOBUFS), "{error:?}");
    });
}

fn counter(capture: &Capture, name: &str) -> u64 {
    let counters = capture.counters();
    counters.iter().find(|(known, _)| *known == name).expect("a counter").1
}

/// What all three guard counters went up by: pod, host, spoofed.
fn dropped(capture: &Capture, f: impl FnOnce()) -> [u64; 3] {
    let now = || {
        ["guard_pod_dropped", "guard_host_dropped", "guard_host_spoofed"]
            .map(|name| counter(capture, name))
    };
    let before = now();
    f();
    let after = now();
    [0, 1, 2].map(|at| after[at] - before[at])
}

fn detach(world: &World, cookie: u64, hook: &str) {
    let pin = world.pins().join(format!("pods/{cookie}/{hook}"));
    let status = Command::new("bpftool").args(["link", "detach", "pinned"]).arg(pin).status();
    assert!(status.expect("bpftool is installed").success());
}

fn state<'a>(states: &'a [HookState], name: &str) -> &'a HookState {
    states.iter().find(|state| state.name == name).expect("a hook of that name")
}

#[test]
fn first_packets_leave_a_pod_only_from_the_proxys_sockets() {
    let world = World::new();
    let _applications =
        [world.application("b", "0.0.0.0:8080"), world.application("b", "[fd99::2]:8080")];
    let mut capture = world.start();
    let served = world.capture(&mut capture, "a", InboundMode::Pass);
    for server in ["10.99.0.2:8080", "[fd99::2]:8080"] {
        let server = socket_address(server);
        let to = server.ip().to_string();
        let send = |flags| dropped(&capture, || send_raw(&world, &to, 6, false, &tcp(flags)));
        assert_eq!(send(SYN), [1, 0, 0], "{server}");
        assert_eq!(send(SYN | 0x08 | 0x40), [1, 0, 0], "{server}: other flags change nothing");
        assert_eq!(send(SYN | ACK), [0; 3], "{server}: an answer");
        assert_eq!(send(RST), [0; 3], "{server}: a reset");
        assert_eq!(send(ACK), [0; 3], "{server}: a connection that lives");

        let stream = world
            .connect_with("a", server, Domain::for_address(server), |socket| {
                served.mark(socket, 0);
                Ok(())
            })
            .expect("the proxy may");
        assert!(read(&stream).expect("read").starts_with("application saw"));
        assert_eq!(world.upstreams(), 0, "only until the connection is open");
    }
    // Into the pod, and what the pod has to say to that.
    let _pods_application = world.application("a", "0.0.0.0:9090");
    let stream = world.connect("b", "10.99.0.1:9090").expect("not captured, and not guarded");
    assert!(read(&stream).expect("read").starts_with("application saw 10.99.0.2"));
}

#[test]
fn connections_that_are_refused_or_given_up_are_not_let_out_any_more() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "a", InboundMode::Pass);
    let closed = world.connect_with("a", socket_address("10.99.0.2:1"), Domain::IPV4, |socket| {
        served.mark(socket, 0);
        Ok(())
    });
    assert!(closed.is_err());
    eventually("the tuple is forgotten", || world.upstreams() == 0);
    // Nobody has this address.
    let given_up = world.in_pod("a", || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        served.mark(&socket, 0);
        socket.set_nonblocking(true).expect("an option");
        let _ = socket.connect(&socket_address("10.99.0.99:80").into());
        socket
    });
    assert_eq!(world.upstreams(), 1);
    drop(given_up);
    eventually("the tuple is forgotten", || world.upstreams() == 0);
}

#[test]
fn no_shape_of_a_packet_hides_a_first_one() {
    let world = World::new();
    let mut capture = world.start();
    let _served = world.capture(&mut capture, "a", InboundMode::Pass);
    let own = [10, 99, 0, 1];
    let send = |packet: Vec<u8>| {
        dropped(&capture, || send_raw(&world, "10.99.0.2", 255, true, &packet))[0]
    };
    let syn = tcp(SYN);
    let more = 0x2000;
    assert_eq!(send(ipv4(own, &[], 0, &syn)), 1);
    assert_eq!(send(ipv4(own, &[1, 1, 1, 1], 0, &syn)), 1, "behind options");
    assert_eq!(send(ipv4(own, &[], more, &syn[..8])), 1, "a first fragment without flags");
    assert_eq!(send(ipv4(own, &[], 1, &syn[8..])), 1, "flags in a second fragment");
    assert_eq!(send(ipv4(own, &[], more, &syn[..16])), 1, "flags in a first fragment");
    assert_eq!(send(ipv4(own, &[], 2, &syn[16..])), 0, "a later fragment has no flags");
    assert_eq!(send(ipv4(own, &[], more, &tcp(ACK)[..16])), 0);

    let send = |protocol, packet: &[u8]| {
        dropped(&capture, || send_raw(&world, "fd99::2", protocol, false, packet))[0]
    };
    let behind = |extension: &[u8], flags| [extension, &tcp(flags)].concat();
    // Destination options with padding; then those behind a routing header of no segments.
    let options = [6, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(send(60, &behind(&options, SYN)), 1, "behind destination options");
    assert_eq!(send(60, &behind(&options, ACK)), 0);
    let fragment = |next: u8, offset: u16, more: u16| {
        let [high, low] = (offset << 3 | more).to_be_bytes();
        [next, 0, high, low, 0, 0, 0, 7]
    };
    assert_eq!(send(44, &behind(&fragment(6, 0, 1), SYN)), 1, "a first fragment");
    assert_eq!(send(44, &behind(&fragment(6, 0, 1), ACK)), 0);
    let cut = [&fragment(6, 0, 1)[..], &syn[..8]].concat();
    assert_eq!(send(44, &cut), 1, "a first fragment without flags");
    let cut = [&fragment(60, 0, 1)[..], &options].concat();
    assert_eq!(send(44, &cut), 1, "a first fragment that ends before TCP begins");
    let second = [&fragment(6, 1, 0)[..], &syn[8..]].concat();
    assert_eq!(send(44, &second), 1, "flags in a second fragment");
    let chain = [60, 0, 1, 4, 0, 0, 0, 0].repeat(12);
    assert_eq!(send(60, &behind(&chain, SYN)), 1, "more headers than anybody needs");
}

#[test]
fn what_gets_past_the_pods_own_end_is_stopped_at_the_nodes() {
    let world = World::new();
    let _application = world.application("b", "0.0.0.0:8080");
    let mut capture = world.start();
    let served = world.capture(&mut capture, "a", InboundMode::Pass);
    detach(&world, served.pod.netns.cookie(), "guard_pod");
    let send = |source, flags| {
        let packet = ipv4(source, &[], 0, &tcp(flags));
        dropped(&capture, || send_raw(&world, "10.99.0.2", 255, true, &packet))
    };
    assert_eq!(send([10, 99, 0, 1], SYN), [0, 1, 0]);
    assert_eq!(send([10, 99, 0, 7], SYN), [0, 0, 1], "an address that is not the pod's");
    assert_eq!(send([10, 99, 0, 1], SYN | ACK), [0; 3]);
    let stream = world
        .connect_with("a", socket_address("10.99.0.2:8080"), Domain::IPV4, |socket| {
            served.mark(socket, 0);
            Ok(())
        })
        .expect("the proxy may");
    assert!(read(&stream).expect("read").starts_with("application saw"));
    // From an address that somebody has added to the pod not even the proxy may.
    world.sh("a", "ip addr add 10.99.0.7/24 dev eth0");
    let spoofed = dropped(&capture, || {
        let connected = world.in_pod("a", || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            served.mark(&socket, 0);
            socket.bind(&socket_address("10.99.0.7:0").into()).expect("it is the pod's now");
            let patience = std::time::Duration::from_millis(300);
            socket.connect_timeout(&socket_address("10.99.0.2:8080").into(), patience)
        });
        assert!(connected.is_err());
    });
    assert_eq!(spoofed, [0, 0, 1]);
}

#[test]
fn guards_outlive_the_agent_and_are_adopted() {
    let world = World::new();
    let mut capture = world.start();
    drop(world.capture(&mut capture, "a", InboundMode::Pass));
    drop(capture);
    let mut capture = world.start();
    let syn = || send_raw(&world, "10.99.0.2", 6, false, &tcp(SYN));
    assert_eq!(dropped(&capture, syn), [1, 0, 0], "nobody has captured the pod again");
    let _served = world.capture(&mut capture, "a", InboundMode::Pass);
    assert_eq!(dropped(&capture, syn), [1, 0, 0]);
    let states = capture.verify_and_repair();
    assert!(states.iter().all(|state| state.attached && state.error.is_none()), "{states:?}");
}

#[test]
fn a_released_pod_is_not_guarded() {
    let world = World::new();
    let _application = world.application("b", "0.0.0.0:8080");
    let mut capture = world.start();
    let _served = world.capture(&mut capture, "a", InboundMode::Refuse);
    let syn = || send_raw(&world, "10.99.0.2", 6, false, &tcp(SYN));
    capture.release("uid-a").expect("released");
    assert_eq!(dropped(&capture, syn), [0; 3]);
    assert!(world.connect("a", "10.99.0.2:8080").is_ok());
    capture.finish_release("uid-a").expect("finished");
    assert!(!world.pins().join("pods").read_dir().expect("pins").any(|_| true));
    assert_eq!(dropped(&capture, syn), [0; 3]);
}

#[test]
fn guards_rule_and_settings_that_are_taken_away_are_put_back() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "a", InboundMode::Pass);
    let cookie = served.pod.netns.cookie();
    let states = capture.verify_and_repair();
    assert!(states.iter().all(|state| state.attached && state.error.is_none()), "{states:?}");

    detach(&world, cookie, "guard_pod");
    detach(&world, cookie, "guard_host");
    world.sh(
        "a",
        "ip rule flush; ip rule add from all lookup main; ip rule add from all lookup local pref 0",
    );
    world.sh("a", "ip -6 route flush table 15006; echo 0 >/proc/sys/net/ipv4/fwmark_reflect");
    let states = capture.verify_and_repair();
    for name in ["guard_pod test/a", "guard_host test/a", "rule test/a", "sysctls test/a"] {
        let state = state(&states, name);
        assert!(!state.attached && state.repairs == 1 && state.error.is_none(), "{state:?}");
    }
    let states = capture.verify_and_repair();
    assert!(states.iter().all(|state| state.attached), "{states:?}");
    let syn = || send_raw(&world, "10.99.0.2", 6, false, &tcp(SYN));
    assert_eq!(dropped(&capture, syn), [1, 0, 0]);
}

#[test]
fn a_program_that_comes_to_stand_before_a_guard_is_overtaken() {
    let world = World::new();
    let mut capture = world.start();
    let _served = world.capture(&mut capture, "a", InboundMode::Pass);
    // A guard of no pod, which lets everything pass: anybody's program would do.
    let object = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/mesh-ebpf.o");
    let mut programs = Ebpf::load_file(object).expect("cargo xtask ebpf has built it");
    let program = programs.program_mut("guard_pod").expect("it is there");
    let program: &mut SchedClassifier = program.try_into().expect("its kind");
    program.load().expect("the kernel takes it");
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    world
        .in_pod("a", || program.attach_with_options("eth0", TcAttachType::Egress, first))
        .expect("attached");
    let states = capture.verify_and_repair();
    let guard = state(&states, "guard_pod test/a");
    assert!(!guard.attached && guard.repairs == 1 && guard.error.is_none(), "{guard:?}");
    let states = capture.verify_and_repair();
    assert!(states.iter().all(|state| state.attached), "{states:?}");
    let syn = || send_raw(&world, "10.99.0.2", 6, false, &tcp(SYN));
    assert_eq!(dropped(&capture, syn), [1, 0, 0]);
}

#[test]
fn a_release_that_could_not_be_finished_is_tried_again() {
    let world = World::new();
    let mut capture = world.start();
    let served = world.capture(&mut capture, "a", InboundMode::Pass);
    capture.release("uid-a").expect("released");
    // What is on disk about it cannot be removed.
    let record = world.state().join(format!("{}.json", served.pod.netns.cookie()));
    std::fs::remove_file(&record).expect("it is there");
    std::fs::create_dir(&record).expect("in its place");
    assert!(capture.finish_release("uid-a").is_err());
    std::fs::remove_dir(&record).expect("it is there");
    capture.finish_release("uid-a").expect("the pod is still known");
    assert!(capture.finish_release("uid-a").is_err());
    let _ours = world.in_pod("a", || listen("10.99.0.1:8080"));
}
