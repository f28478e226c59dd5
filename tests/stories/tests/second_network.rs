//! A peer on a second network of a pod is called and calls as without a mesh.

use anyhow::Result;
use mesh_harness::{
    Background, Mesh, cgroup,
    link::{batch, veth},
    mesh::READY,
    netns::Netns,
    process::Place,
    wait,
};
use mesh_stories::{
    python::{PRELUDE, PYTHON, python, python_in, serve_python},
    shop,
};

/// Says to each caller whom it sees.
const NAMES: &str = "
l = socket(AF_INET); l.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
l.bind(('0.0.0.0', int(sys.argv[1]))); l.listen()
while True:
    s, peer = l.accept()
    s.sendall(peer[0].encode()); s.close()
";
/// Calls, bound to an address or to the device where that is asked for; its own and its peer's name
/// and what it hears.
const CALL: &str = "
s = tcp('10.0.0.1')
how = sys.argv[2:]
if how == ['second']: s.setsockopt(SOL_SOCKET, SO_BINDTODEVICE, b'second')
elif how: s.bind((how[0], 0))
s.connect(address(sys.argv[1]))
print(s.getsockname()[0], name(s.getpeername()), s.recv(100).decode())
";
const OWN: &str = "192.0.2.2";
const PEER: &str = "192.0.2.1";

/// How the peer is called by shop/frontend, bound to what is in `how`.
fn call(mesh: &Mesh, how: &[&str]) -> Result<String> {
    let to = format!("{PEER}:9000");
    python(mesh.pod("shop/frontend"), CALL, &[&[to.as_str()][..], how].concat())
}

/// A mesh whose shop/frontend has a second network with one peer, who serves on port 9000.
fn joined(story: &str) -> Result<(Mesh, Place, Background)> {
    let mesh = shop(story).lay_out()?;
    let frontend = mesh.pod("shop/frontend");
    let netns = Netns::create(&format!("{}second", mesh.layout().netns_prefix()))?;
    let cgroup = mesh.layout().cgroup().join("second");
    cgroup::create(&cgroup)?;
    veth((&frontend.place.netns, "second"), (&netns, "eth0"))?;
    batch(&frontend.place.netns, &format!("addr add {OWN}/24 dev second\n"))?;
    batch(&netns, &format!("addr add {PEER}/24 dev eth0\n"))?;
    let peer = Place { netns, cgroup };
    let program = format!("{PRELUDE}\n{NAMES}");
    let log = mesh.layout().log("second");
    let server = peer.spawn(&[PYTHON, "-u", "-c", &program, "9000"], &log)?;
    wait::until("the peer to listen", READY, || Ok(peer.netns.listens_on(9000)?.then_some(())))?;
    serve_python(frontend, 9000, NAMES)?;
    Ok((mesh, peer, server))
}

#[test]
fn a_peer_on_a_second_network_calls_and_is_called_as_without_a_mesh() -> Result<()> {
    let (mesh, peer, _server) = joined("second-network")?;
    let expected = format!("{OWN} {PEER} 9000 {OWN}");
    assert_eq!(call(&mesh, &[OWN])?, expected, "without a mesh");
    mesh.start_daemons()?;
    assert_eq!(call(&mesh, &[OWN])?, expected);
    let to = format!("{OWN}:9000");
    assert_eq!(python_in(&peer, CALL, &[&to])?, format!("{PEER} {OWN} 9000 {PEER}"));
    Ok(())
}

#[test]
fn a_socket_bound_to_a_second_device_calls_as_without_a_mesh() -> Result<()> {
    let (mesh, _peer, _server) = joined("second-device")?;
    let expected = format!("{OWN} {PEER} 9000 {OWN}");
    assert_eq!(call(&mesh, &["second"])?, expected, "without a mesh");
    mesh.start_daemons()?;
    assert_eq!(call(&mesh, &["second"])?, expected);
    Ok(())
}
