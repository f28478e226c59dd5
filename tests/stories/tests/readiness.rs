//! A pod that cannot be captured is a problem of its own, not one of the agent and its rollout.

use anyhow::{Context, Result};
use mesh_harness::{Mesh, mesh::READY, objects::identity, wait};
use mesh_stories::{WEB, shop};

/// How many pods of node-1 are not captured for a reason.
fn uncaptured(mesh: &Mesh, reason: &str) -> Result<u64> {
    let url = "http://127.0.0.1:15020/metrics";
    let text = mesh.node("node-1").place.run(&["curl", "--silent", "--fail", url])?.success()?;
    let start = format!("nodemesh_pods_uncaptured{{reason=\"{reason}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&start));
    Ok(value.with_context(|| format!("{start} is not in\n{text}"))?.parse()?)
}

#[test]
fn an_application_on_a_port_of_ours_does_not_keep_the_agent_unready() -> Result<()> {
    let mesh = shop("uncaptured-pod").lay_out()?;
    let batch = mesh.pod("shop/batch");
    batch.serve_peer(15001, &["echo"])?;
    // Waits until each agent is ready.
    mesh.start_daemons()?;

    let (status, code) = mesh.status("node-1")?;
    assert_eq!(code, 1, "{status}");
    let problems = status["problems"].to_string();
    assert!(problems.contains("shop/batch") && problems.contains("15001"), "{problems}");
    assert!(!mesh.agent("node-1").lines_with(&["cannot capture", "15001"]).is_empty());
    assert_eq!(uncaptured(&mesh, "capture")?, 1);
    // The others are in the mesh, and others know.
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    assert_eq!(mesh.pod("shop/frontend").curl(&format!("http://{WEB}/"))?, "hello\n");
    mesh.flow(&[("source/identity", &identity("shop/frontend")), ("security", "mtls")])?;

    // Once the port is free it is captured without anybody's help.
    batch.stop_servers();
    wait::until("the pod to be captured", READY, || {
        Ok((uncaptured(&mesh, "capture")? == 0).then_some(()))
    })?;
    assert_eq!(mesh.status("node-1")?.1, 0);
    Ok(())
}
