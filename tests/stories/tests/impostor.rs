//! Who answers where a pod is said to be, and is somebody else, gets nothing.

use anyhow::Result;
use mesh_harness::objects::identity;
use mesh_stories::{
    ambient::{Server, redirected, serve},
    certificates::{Validity, signed_by_mesh, signed_by_stranger},
    python::python,
    shop,
};

const CALLEE: &str = "legacy/server";

/// How a connection ends on which something is said.
const TALK: &str = "
s = tcp('10.0.0.1')
try:
    s.connect(address(sys.argv[1]))
    print(talk(s))
except OSError as error: print(errno.errorcode[error.errno])
";

#[test]
fn a_server_with_anothers_certificate_is_refused_and_both_are_named() -> Result<()> {
    let mesh = shop("impostor").pod("node-2", CALLEE).lay_out()?;
    let pod = mesh.pod(CALLEE);
    mesh.objects().apply("pod-legacy-server.yaml", &redirected(pod))?;
    mesh.start_daemons()?;
    let (expected, own) = (identity(CALLEE), identity("legacy/other"));
    let asked = serve(pod, &signed_by_mesh(&mesh, &own, Validity::Current)?, Server::default())?;
    let to = format!("{}:7000", pod.ipv4());
    assert_eq!(python(mesh.pod("shop/frontend"), TALK, &[&to])?, "ECONNRESET");
    let flow = mesh.flow(&[("destination/address", &to), ("verdict", "ERROR")])?;
    let reason = flow.field("reason");
    assert!(reason.contains(&expected) && reason.contains(&own), "{flow}");
    assert!(asked.all().is_empty(), "{:?}", asked.all());
    Ok(())
}

#[test]
fn a_server_that_nobody_vouches_for_is_refused() -> Result<()> {
    let mesh = shop("self-made").pod("node-2", CALLEE).lay_out()?;
    let pod = mesh.pod(CALLEE);
    mesh.objects().apply("pod-legacy-server.yaml", &redirected(pod))?;
    mesh.start_daemons()?;
    let asked = serve(pod, &signed_by_stranger(&identity(CALLEE))?, Server::default())?;
    let to = format!("{}:7000", pod.ipv4());
    assert_eq!(python(mesh.pod("shop/frontend"), TALK, &[&to])?, "ECONNRESET");
    mesh.flow(&[("destination/address", &to), ("verdict", "ERROR")])?;
    assert!(asked.all().is_empty(), "{:?}", asked.all());
    Ok(())
}
