//! A pod leaves the mesh while a connection goes through the proxy, comes back and leaves again:
//! the connection goes on, and its end is the end of everything.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mesh_harness::{Mesh, mesh::READY, process::tail, wait};
use mesh_stories::{WEB, call_until_mtls, python::spawn_python, shop, traces::Traces};

/// Longer than an agent keeps what nobody uses, and than it waits for what drains.
const LONG: Duration = Duration::from_secs(6);

/// Talks on one connection every tenth of a second, until it is ended.
const HOLD: &str = "
s = tcp('10.0.0.1'); s.connect(address(sys.argv[1]))
while True:
    print('heard', talk(s), flush=True); time.sleep(0.1)
";

/// Labels or unlabels the shop and waits until its three pods are captured, or drained or gone.
fn label(mesh: &Mesh, meshed: bool) -> Result<()> {
    mesh.objects().apply_namespace("shop", meshed)?;
    wait::until(&format!("the shop to be in the mesh: {meshed}"), READY, || {
        let mut captured = 0;
        for node in ["node-1", "node-2"] {
            let (status, _) = mesh.status(node)?;
            let pods = status["pods"].as_array().context("a list of pods")?;
            captured += pods.iter().filter(|pod| pod["state"] == "captured").count();
        }
        Ok((captured == if meshed { 3 } else { 0 }).then_some(()))
    })
    .with_context(|| format!("{:?}\n{}", mesh.status("node-1"), mesh.last_words()))
}

#[test]
fn a_proxied_connection_lives_through_leaving_and_leaves_nothing() -> Result<()> {
    let mesh = shop("leaving").lay_out()?;
    mesh.objects().apply_namespace("shop", false)?;
    let (frontend, web) = (mesh.pod("shop/frontend"), mesh.pod("shop/web"));
    web.serve_peer(8080, &["echo"])?;
    mesh.start_daemons()?;
    let mut before = Traces::of(&mesh)?;
    label(&mesh, true)?;
    let to = format!("{WEB}:80");
    call_until_mtls(&mesh, "shop/frontend", &to)?;
    label(&mesh, false)?;
    wait::until("the pods to be let go", READY, || {
        Ok((Traces::of(&mesh)?.links_of("inbound") == 0).then_some(()))
    })?;
    before.take_descriptors(&mesh)?;

    label(&mesh, true)?;
    call_until_mtls(&mesh, "shop/frontend", &to)?;
    let mut held = spawn_python(frontend, HOLD, &[&to])?;
    held.wait_for_line("heard hello", READY).with_context(|| mesh.last_words())?;
    let answers = |log: &str| log.matches("heard hello").count();
    for meshed in [false, true, false] {
        label(&mesh, meshed)?;
        let (known, begun) = (answers(&held.log()), Instant::now());
        wait::until("the connection to go on", READY, || {
            let log = held.log();
            assert_eq!(held.ended()?, None, "meshed: {meshed}\n{}", tail(&log, 8));
            Ok((begun.elapsed() > LONG && answers(&log) > known + 20).then_some(()))
        })
        .with_context(|| mesh.last_words())?;
    }
    assert!(Traces::of(&mesh)?.links_of("inbound") > 0, "kept while it drains");
    drop(held);
    before.are_all(&mesh).with_context(|| mesh.last_words())
}
