//! What applications do with sockets that few do: calling themselves by their Service, going from
//! a peer to loopback, several connections from one port.

use std::net::IpAddr;

use anyhow::Result;
use mesh_harness::{Mesh, mesh::READY, wait};
use mesh_stories::{WEB, python::python, shop};

/// Connects, talks to an echo server, and prints its own and its peer's name.
const CALL: &str = "
s = tcp('10.0.0.1')
s.connect(address(sys.argv[1]))
print(s.getsockname()[0], name(s.getpeername()), talk(s))
";

/// Echo servers on node-2 (shop/web) and, on the caller's own node, shop/batch.
fn echoes(story: &str) -> Result<Mesh> {
    let mesh = shop(story).start()?;
    for name in ["shop/web", "shop/batch", "shop/frontend"] {
        mesh.pod(name).serve_peer(8080, &["echo"])?;
    }
    Ok(mesh)
}

#[test]
fn a_pod_calls_itself_by_its_own_service() -> Result<()> {
    let mesh = echoes("hairpin")?;
    let web = mesh.pod("shop/web");
    let seen = python(web, CALL, &[&format!("{WEB}:80")])?;
    assert_eq!(seen, format!("{} {WEB} 80 hello", web.ipv4()));
    // The application is told the truth about who calls.
    wait::until("the server to have seen its own pod", READY, || {
        Ok(web.server_log().contains(&format!("{}]:", web.ipv4())).then_some(()))
    })
}

/// The names that a socket of shop/frontend has at shop/web, at loopback, and at shop/web again.
fn names_there_and_back(story: &str) -> Result<(Mesh, Vec<String>)> {
    const AGAIN: &str = "
libc = ctypes.CDLL(None, use_errno=True)
s = tcp('10.0.0.1')
for to in sys.argv[1:]:
    s.connect(address(to))
    print(s.getsockname()[0], name(s.getpeername()), talk(s))
    assert libc.connect(s.fileno(), struct.pack('H14x', AF_UNSPEC), 16) == 0, ctypes.get_errno()
";
    let mesh = echoes(story)?;
    let web = format!("{}:8080", mesh.pod("shop/web").ipv4());
    let seen = python(mesh.pod("shop/frontend"), AGAIN, &[&web, "127.0.0.1:8080", &web])?;
    Ok((mesh, seen.lines().map(str::to_owned).collect()))
}

#[test]
fn a_socket_goes_from_a_peer_to_loopback_and_back() -> Result<()> {
    let (mesh, names) = names_there_and_back("to-loopback")?;
    let (own, web) = (mesh.pod("shop/frontend").ipv4(), mesh.pod("shop/web").ipv4());
    let there = format!("{own} {web} 8080 hello");
    assert_eq!((&names[0], &names[2]), (&there, &there));
    assert!(names[1].ends_with(" 127.0.0.1 8080 hello"), "{names:?}");
    Ok(())
}

/// Connects to shop/web and to shop/batch from port 20000 of `from`, the pod's own address or any.
fn from_one_port(story: &str, from: impl FnOnce(IpAddr) -> IpAddr) -> Result<()> {
    const SHARED: &str = "
held = []
for to in sys.argv[2:]:
    s = tcp('10.0.0.1'); s.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    s.bind((sys.argv[1], 20000)); s.connect(address(to)); held.append(s)
for s in held: print(name(s.getsockname()), name(s.getpeername()), talk(s))
";
    let mesh = echoes(story)?;
    let frontend = mesh.pod("shop/frontend");
    let (own, callees) =
        (frontend.ipv4(), ["shop/web", "shop/batch"].map(|it| mesh.pod(it).ipv4()));
    let targets = callees.map(|to| format!("{to}:8080"));
    let from = from(own).to_string();
    let seen = python(frontend, SHARED, &[&from, &targets[0], &targets[1]])?;
    let expected = callees.map(|peer| format!("{own} 20000 {peer} 8080 hello"));
    assert_eq!(seen.lines().collect::<Vec<_>>(), expected);
    Ok(())
}

#[test]
fn one_port_is_the_source_of_connections_to_several_destinations() -> Result<()> {
    from_one_port("shared-port", |own| own)
}
