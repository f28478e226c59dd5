//! An application cannot tell the mesh from none: addresses, options, errors at connecting.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use mesh_harness::{Mesh, cgroup, layout::url_host, mesh::READY, objects, process::Place, wait};
use mesh_stories::{
    WEB,
    python::{PRELUDE, PYTHON, python, python_in, serve_python},
    shop,
};

/// A failure that is known has to be told within this time.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Connects, talks to an echo server, and prints its own and its peer's name.
const CALL: &str = "
s = tcp(address(sys.argv[1])[0])
s.connect(address(sys.argv[1]))
print(s.getsockname()[0], name(s.getpeername()), talk(s))
";

/// Prints the name of the error that connecting or the first read ends with, and the seconds.
const FAIL: &str = "
started = time.time()
s = tcp(address(sys.argv[1])[0])
try:
    s.connect(address(sys.argv[1]))
    print('data' if s.recv(1) else 'closed', end=' ')
except OSError as error:
    print(errno.errorcode.get(error.errno, str(error)), end=' ')
print(time.time() - started)
";

/// Echo servers on node-2 (shop/web) and, on the caller's own node, shop/batch.
fn echoes(story: &str) -> Result<Mesh> {
    let mesh = shop(story).start()?;
    for name in ["shop/web", "shop/batch"] {
        mesh.pod(name).serve_peer(8080, &["echo"])?;
    }
    Ok(mesh)
}

fn at(address: IpAddr, port: u16) -> String {
    format!("{}:{port}", url_host(address))
}

fn mapped(address: IpAddr, port: u16) -> String {
    format!("[::ffff:{address}]:{port}")
}

/// Waits until the server of `pod` has seen a connection from `caller` end.
fn saw(mesh: &Mesh, pod: &str, caller: IpAddr) -> Result<()> {
    let pod = mesh.pod(pod);
    let lines = [format!("[::ffff:{caller}]:"), format!("[{caller}]:")];
    wait::until(&format!("{} to see {caller}", pod.name), READY, || {
        let log = pod.server_log();
        Ok(lines.iter().any(|line| log.contains(line.as_str())).then_some(()))
    })
    .with_context(|| pod.server_log())
}

/// How a call from shop/frontend fails; it has to at once.
fn failure(mesh: &Mesh, to: &str) -> Result<String> {
    let said = python(mesh.pod("shop/frontend"), FAIL, &[to])?;
    let (error, seconds) = said.split_once(' ').context("an error and seconds")?;
    let seconds: f64 = seconds.parse()?;
    assert!(seconds < AT_ONCE.as_secs_f64(), "{to}: {error} only after {seconds} s");
    Ok(error.to_owned())
}

#[test]
fn both_ends_see_each_others_addresses_in_every_family() -> Result<()> {
    let mesh = echoes("names")?;
    let frontend = mesh.pod("shop/frontend");
    for callee in ["shop/web", "shop/batch"] {
        let pod = mesh.pod(callee);
        let call = |to: String| python(frontend, CALL, &[&to]);
        let (v4, v6) = (pod.ipv4(), pod.ipv6());
        assert_eq!(call(at(v4, 8080))?, format!("{} {v4} 8080 hello", frontend.ipv4()));
        assert_eq!(call(at(v6, 8080))?, format!("{} {v6} 8080 hello", frontend.ipv6()));
        let expected = format!("::ffff:{} ::ffff:{v4} 8080 hello", frontend.ipv4());
        assert_eq!(call(mapped(v4, 8080))?, expected);
        saw(&mesh, callee, frontend.ipv4())?;
        saw(&mesh, callee, frontend.ipv6())?;
    }
    let service = python(frontend, CALL, &[&format!("{WEB}:80")])?;
    assert_eq!(service, format!("{} {WEB} 80 hello", frontend.ipv4()));
    Ok(())
}

#[test]
fn sockets_bound_to_an_address_a_port_or_a_device_work() -> Result<()> {
    const BOUND: &str = "
s = tcp(address(sys.argv[1])[0])
if sys.argv[2] == 'device': s.setsockopt(SOL_SOCKET, SO_BINDTODEVICE, b'eth0')
else:
    s.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    s.bind((sys.argv[2], int(sys.argv[3])))
s.connect(address(sys.argv[1]))
print(name(s.getsockname()) if sys.argv[3] != '0' else s.getsockname()[0], name(s.getpeername()), talk(s))
";
    let mesh = echoes("bound")?;
    let frontend = mesh.pod("shop/frontend");
    for (number, callee) in (0_u16..).zip(["shop/web", "shop/batch"]) {
        let pod = mesh.pod(callee);
        for (own, to) in [(frontend.ipv4(), pod.ipv4()), (frontend.ipv6(), pod.ipv6())] {
            let any = if own.is_ipv4() { "0.0.0.0" } else { "::" };
            let (text, target) = (own.to_string(), at(to, 8080));
            let seen = python(frontend, BOUND, &[&target, &text, "0"])?;
            assert_eq!(seen, format!("{own} {to} 8080 hello"), "bound to an address");
            let port = (20_000 + number).to_string();
            for address in [&text, any] {
                let seen = python(frontend, BOUND, &[&target, address, &port])?;
                assert_eq!(seen, format!("{own} {port} {to} 8080 hello"), "bound to {address}");
            }
            let seen = python(frontend, BOUND, &[&target, "device", "0"])?;
            assert_eq!(seen, format!("{own} {to} 8080 hello"), "bound to a device");
        }
    }
    Ok(())
}

#[test]
fn a_connect_that_does_not_block_is_told_its_end() -> Result<()> {
    const NONBLOCKING: &str = "
s = tcp(address(sys.argv[1])[0]); s.setblocking(False)
begun = s.connect_ex(address(sys.argv[1]))
poll = select.poll(); poll.register(s, select.POLLOUT)
assert poll.poll(10000)
ended = s.getsockopt(SOL_SOCKET, SO_ERROR)
s.setblocking(True)
print(begun in (0, errno.EINPROGRESS), ended, name(s.getpeername()), talk(s))
";
    let mesh = echoes("nonblocking")?;
    for callee in ["shop/web", "shop/batch"] {
        let to = mesh.pod(callee).ipv4();
        let seen = python(mesh.pod("shop/frontend"), NONBLOCKING, &[&at(to, 8080)])?;
        assert_eq!(seen, format!("True 0 {to} 8080 hello"));
    }
    Ok(())
}

#[test]
fn fast_open_works_both_ways_of_asking_for_it() -> Result<()> {
    const FAST: &str = "
MSG_FASTOPEN, TCP_FASTOPEN_CONNECT = 0x20000000, 30
to = address(sys.argv[2])
for _ in range(3):
    s = tcp(to[0]); s.setblocking(True)
    if sys.argv[1] == 'send':
        s.sendto(b'early\\n', MSG_FASTOPEN, to)
    else:
        s.setsockopt(IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        s.connect(to); s.sendall(b'early\\n')
    got = b''
    while len(got) < 6: got += s.recv(100)
    print(got.decode().strip(), name(s.getpeername()))
";
    const SERVER: &str = "
l = socket(AF_INET6); l.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
l.setsockopt(IPPROTO_TCP, 23, 16)
l.bind(('::', int(sys.argv[1]))); l.listen()
while True:
    s, _ = l.accept()
    s.sendall(s.recv(100)); s.recv(1)
";
    let mesh = echoes("fast-open")?;
    for callee in ["shop/web", "shop/batch"] {
        let pod = mesh.pod(callee);
        pod.place.netns.set_sysctl("ipv4/tcp_fastopen", "3")?;
        serve_python(pod, 9000, SERVER)?;
        for how in ["send", "connect"] {
            for port in [8080, 9000] {
                let seen = python(mesh.pod("shop/frontend"), FAST, &[how, &at(pod.ipv4(), port)])?;
                let line = format!("early {} {port}", pod.ipv4());
                assert_eq!(seen.lines().collect::<Vec<_>>(), [&line; 3], "{how}");
            }
        }
    }
    Ok(())
}

#[test]
fn multipath_tcp_applications_talk_across_nodes() -> Result<()> {
    const IPPROTO_MPTCP: &str = "
s = tcp(address(sys.argv[1])[0], 262)
s.connect(address(sys.argv[1]))
print(s.getsockname()[0], name(s.getpeername()), talk(s))
";
    const SERVER: &str = "
l = socket(AF_INET6, SOCK_STREAM, 262); l.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
l.bind(('::', int(sys.argv[1]))); l.listen()
while True:
    s, _ = l.accept()
    s.sendall(s.recv(100)); s.recv(1)
";
    let mesh = echoes("mptcp")?;
    let frontend = mesh.pod("shop/frontend");
    for callee in ["shop/web", "shop/batch"] {
        let pod = mesh.pod(callee);
        serve_python(pod, 9000, SERVER)?;
        for port in [8080, 9000] {
            let (v4, v6) = (pod.ipv4(), pod.ipv6());
            let seen = python(frontend, IPPROTO_MPTCP, &[&at(v4, port)])?;
            assert_eq!(seen, format!("{} {v4} {port} hello", frontend.ipv4()));
            let seen = python(frontend, IPPROTO_MPTCP, &[&at(v6, port)])?;
            assert_eq!(seen, format!("{} {v6} {port} hello", frontend.ipv6()));
        }
    }
    Ok(())
}

#[test]
fn a_socket_may_be_disconnected_and_connected_again() -> Result<()> {
    const AGAIN: &str = "
libc = ctypes.CDLL(None, use_errno=True)
s = tcp('10.0.0.1')
for to in sys.argv[1:]:
    s.connect(address(to))
    print(name(s.getpeername()), talk(s))
    assert libc.connect(s.fileno(), struct.pack('H14x', AF_UNSPEC), 16) == 0, ctypes.get_errno()
    try: s.getpeername(); print('still has a peer')
    except OSError as error: assert error.errno == errno.ENOTCONN
";
    let mesh = echoes("again")?;
    let frontend = mesh.pod("shop/frontend");
    frontend.serve_peer(8080, &["echo"])?;
    let (web, batch) = (mesh.pod("shop/web").ipv4(), mesh.pod("shop/batch").ipv4());
    let own = frontend.ipv4();
    let targets = [web, own, batch, web].map(|to| at(to, 8080));
    let seen = python(frontend, AGAIN, &targets.each_ref().map(String::as_str))?;
    let expected = [web, own, batch, web].map(|to| format!("{to} 8080 hello"));
    assert_eq!(seen.lines().collect::<Vec<_>>(), expected);
    Ok(())
}

#[test]
fn udp_is_untouched() -> Result<()> {
    const SERVER: &str = "
l = socket(AF_INET); l.bind(('0.0.0.0', int(sys.argv[1]))); l.listen()
s = socket(AF_INET, SOCK_DGRAM); s.bind(('0.0.0.0', int(sys.argv[1])))
while True:
    data, peer = s.recvfrom(2048)
    s.sendto(peer[0].encode(), peer)
";
    const CLIENT: &str = "
s = socket(AF_INET, SOCK_DGRAM); s.settimeout(10)
s.connect(address(sys.argv[1])); s.send(b'x')
print(s.recv(100).decode(), s.getsockname()[0], name(s.getpeername()))
";
    let mesh = echoes("udp")?;
    let frontend = mesh.pod("shop/frontend");
    for callee in ["shop/web", "shop/batch"] {
        let pod = mesh.pod(callee);
        serve_python(pod, 5300, SERVER)?;
        let seen = python(frontend, CLIENT, &[&at(pod.ipv4(), 5300)])?;
        let own = frontend.ipv4();
        assert_eq!(seen, format!("{own} {own} {} 5300", pod.ipv4()));
    }
    // Two questions and an answer, of three captured pods; read every two seconds.
    wait::until("status to count packets outside of the mesh", READY, || {
        let (status, _) = mesh.status("node-1")?;
        let packets = status["counters"]["udp_passed"].as_u64().unwrap_or_default();
        Ok((packets >= 2).then_some(()))
    })
}

#[test]
fn a_callers_own_mark_changes_nothing() -> Result<()> {
    const MARKED: &str = "
s = tcp('10.0.0.1'); s.setsockopt(SOL_SOCKET, 36, int(sys.argv[2]))
s.connect(address(sys.argv[1]))
print(name(s.getpeername()), talk(s))
";
    let mesh = echoes("marks")?;
    for callee in ["shop/web", "shop/batch"] {
        let to = mesh.pod(callee).ipv4();
        // Any mark, and the one that the proxy delivers with.
        for mark in ["7", "1835365224"] {
            let seen = python(mesh.pod("shop/frontend"), MARKED, &[&at(to, 8080), mark])?;
            assert_eq!(seen, format!("{to} 8080 hello"), "mark {mark}");
        }
    }
    Ok(())
}

#[test]
fn every_container_of_a_pod_is_in_the_mesh() -> Result<()> {
    let mesh = echoes("containers")?;
    let frontend = mesh.pod("shop/frontend");
    let second = frontend.place.cgroup.with_extension("second");
    cgroup::create(&second)?;
    let place = Place { netns: frontend.place.netns.clone(), cgroup: second };
    let web = mesh.pod("shop/web").ipv4();
    let seen = python_in(&place, CALL, &[&at(web, 8080)])?;
    assert_eq!(seen, format!("{} {web} 8080 hello", frontend.ipv4()));
    mesh.flow(&[("source/pod", "shop/frontend"), ("security", "mtls")])?;
    Ok(())
}

#[test]
fn a_pod_talks_to_itself_without_the_mesh() -> Result<()> {
    let mesh = echoes("itself")?;
    let frontend = mesh.pod("shop/frontend");
    frontend.serve_peer(8080, &["echo"])?;
    for own in [frontend.ipv4(), frontend.ipv6(), "127.0.0.1".parse()?, "::1".parse()?] {
        assert_eq!(python(frontend, CALL, &[&at(own, 8080)])?, format!("{own} {own} 8080 hello"));
    }
    assert!(mesh.flows()?.is_empty(), "{:?}", mesh.flows()?);
    Ok(())
}

#[test]
fn an_application_on_loopback_stays_there() -> Result<()> {
    const LOCAL: &str = "
l = socket(AF_INET); l.bind(('127.0.0.1', int(sys.argv[1]))); l.listen()
while True:
    s, _ = l.accept()
    s.sendall(b'secret'); s.close()
";
    let mesh = echoes("loopback")?;
    for callee in ["shop/web", "shop/batch"] {
        let pod = mesh.pod(callee);
        serve_python(pod, 9000, LOCAL)?;
        assert_eq!(failure(&mesh, &at(pod.ipv4(), 9000))?, "ECONNRESET", "{callee}");
        assert_eq!(python(pod, FAIL, &["127.0.0.1:9000"])?.split(' ').next(), Some("data"));
    }
    Ok(())
}

#[test]
fn known_failures_are_told_at_once() -> Result<()> {
    let mesh = echoes("failures")?;
    let nowhere = objects::service("shop/nowhere", "10.96.0.99", 80, 8080, &[]);
    mesh.objects().apply("service-nowhere.yaml", &nowhere)?;
    for callee in ["shop/web", "shop/batch"] {
        let pod = mesh.pod(callee);
        for address in [pod.ipv4(), pod.ipv6()] {
            let error = failure(&mesh, &at(address, 9999))?;
            assert!(["ECONNRESET", "ECONNREFUSED"].contains(&error.as_str()), "{callee}: {error}");
        }
    }
    // Whom no pod of the node has called before the agent asks about first: that call is reset.
    wait::until("a Service without endpoints to be known", READY, || {
        let said = python(mesh.pod("shop/frontend"), FAIL, &["10.96.0.99:80"])?;
        Ok((said.split(' ').next() == Some("ECONNREFUSED")).then_some(()))
    })?;
    assert_eq!(failure(&mesh, "10.96.0.99:80")?, "ECONNREFUSED");
    Ok(())
}

#[test]
fn addresses_outside_of_the_mesh_are_reached_as_they_are() -> Result<()> {
    let mesh = shop("outside").pod("node-2", "legacy/server").start()?;
    let (frontend, server) = (mesh.pod("shop/frontend"), mesh.pod("legacy/server"));
    server.serve_peer(8080, &["echo"])?;
    for (own, to) in [(frontend.ipv4(), server.ipv4()), (frontend.ipv6(), server.ipv6())] {
        let seen = python(frontend, CALL, &[&at(to, 8080)])?;
        assert_eq!(seen, format!("{own} {to} 8080 hello"));
        saw(&mesh, "legacy/server", own)?;
    }
    mesh.flow(&[("source/pod", "shop/frontend"), ("security", "plaintext")])?;
    Ok(())
}

#[test]
fn a_second_interface_of_a_pod_is_left_alone() -> Result<()> {
    let mesh = shop("second-interface").lay_out()?;
    let web = mesh.pod("shop/web");
    for command in [
        "link add second type veth peer name other",
        "addr add 192.0.2.2/24 dev second",
        "link set second up",
    ] {
        let words: Vec<_> = ["ip"].into_iter().chain(command.split(' ')).collect();
        web.run(&words)?.success()?;
    }
    web.serve_peer(8080, &["echo"])?;
    mesh.start_daemons()?;
    assert_eq!(
        python(web, CALL, &["192.0.2.2:8080"])?.split(' ').skip(1).collect::<Vec<_>>().join(" "),
        "192.0.2.2 8080 hello"
    );
    let seen = python(mesh.pod("shop/frontend"), CALL, &[&at(web.ipv4(), 8080)])?;
    assert!(seen.ends_with("hello"), "{seen}");
    Ok(())
}

#[test]
fn applications_that_listen_with_a_mark_or_at_a_device_hear_from_the_pods_own_address() -> Result<()>
{
    const ANSWER: &str = "
l.bind(('0.0.0.0', int(sys.argv[1]))); l.listen()
while True:
    s, _ = l.accept()
    s.sendall(s.recv(100).replace(b'hello', s.getpeername()[0].encode())); s.close()
";
    const CALL: &str = "
s = tcp('10.0.0.1'); s.connect(address(sys.argv[1])); s.sendall(b'hello')
print(s.recv(100).decode())
";
    let mesh = echoes("wayward-listeners")?;
    let web = mesh.pod("shop/web");
    let kinds = [(9000, "36, 7"), (9001, "SO_BINDTODEVICE, b'eth0'")];
    for (port, option) in kinds {
        let open = format!(
            "l = socket(AF_INET); l.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1); \
             l.setsockopt(SOL_SOCKET, {option})"
        );
        serve_python(web, port, &(open + ANSWER))?;
        // The first call finds it out, the second one knows.
        for _ in 0..2 {
            let to = at(web.ipv4(), port);
            let seen = python(mesh.pod("shop/frontend"), CALL, &[&to])?;
            assert_eq!(seen, web.ipv4().to_string(), "{option}");
        }
    }
    Ok(())
}

#[test]
fn connections_from_before_live_on_and_are_called_unmeshed() -> Result<()> {
    const HOLD: &str = "
s = tcp('10.0.0.1'); s.connect(address(sys.argv[1]))
while True:
    talk(s); print('alive', flush=True); time.sleep(0.1)
";
    let mesh = shop("from-before").lay_out()?;
    let (frontend, web) = (mesh.pod("shop/frontend"), mesh.pod("shop/web"));
    web.serve_peer(8080, &["echo"])?;
    let to = at(web.ipv4(), 8080);
    let mut held = frontend.spawn(&[PYTHON, "-c", &format!("{PRELUDE}\n{HOLD}"), &to])?;
    held.wait_for_line("alive", READY)?;
    mesh.start_daemons()?;
    // Of the other side an agent may know the address alone.
    let own =
        [("source", "source/pod", "shop/frontend"), ("destination", "destination/pod", "shop/web")];
    for (reporter, side, pod) in own {
        mesh.flow(&[
            ("reporter", reporter),
            (side, pod),
            ("destination/address", &to),
            ("security", "unmeshed"),
        ])?;
    }
    let known = held.log().matches("alive").count();
    wait::until("the connection to go on", READY, || {
        Ok((held.log().matches("alive").count() > known + 10).then_some(()))
    })?;
    assert_eq!(mesh.flows()?.len(), 2, "each side tells it once: {:?}", mesh.flows()?);
    assert_eq!(held.ended()?, None, "{}", held.log());
    Ok(())
}
