//! Nothing is left behind: by an agent that is cleaned up after, by a mesh, by a killed run.

use anyhow::Result;
use mesh_harness::{Mesh, ledger::Ledger, mesh::READY, wait};
use mesh_stories::{WEB, shop, traces::kernel_links};

/// The network of every pod as it is now.
fn pods(mesh: &Mesh) -> Result<Vec<Ledger>> {
    mesh.pods().map(|pod| Ledger::of_namespace(&pod.place.netns)).collect()
}

fn differences(before: &[Ledger], after: &[Ledger]) -> Vec<String> {
    before.iter().zip(after).flat_map(|(before, after)| before.differences(after)).collect()
}

#[test]
fn cleanup_gives_pods_back_as_they_were_even_after_a_crash() -> Result<()> {
    let mesh = shop("cleanup").lay_out()?;
    let before = pods(&mesh)?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    mesh.start_daemons()?;
    mesh.pod("shop/frontend").curl(&format!("http://{WEB}/"))?;
    assert!(!differences(&before, &pods(&mesh)?).is_empty(), "a captured pod has a rule");
    // One agent ends in order, the other one crashes.
    mesh.agent("node-1").stop()?;
    mesh.agent("node-2").kill();
    mesh.clean_node("node-1")?.success()?;
    mesh.clean_node_as_a_container("node-2")?.success()?;
    assert_eq!(differences(&before, &pods(&mesh)?), Vec::<String>::new());
    assert!(!mesh.layout().bpffs().exists() || mesh.layout().bpffs().read_dir()?.next().is_none());
    assert_eq!(kernel_links(&mesh)?, 0);
    // And the pods are as if there never was a mesh.
    let url = format!("http://{}:8080/", mesh.pod("shop/web").ipv4());
    assert_eq!(mesh.pod("shop/frontend").curl(&url)?, "hello\n");
    Ok(())
}

#[test]
fn leaving_the_mesh_gives_a_pod_back_as_it_was() -> Result<()> {
    let mesh = shop("unenroll").lay_out()?;
    let before = pods(&mesh)?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    mesh.start_daemons()?;
    mesh.pod("shop/frontend").curl(&format!("http://{WEB}/"))?;
    mesh.objects().apply_namespace("shop", false)?;
    let mut left = Vec::new();
    let gone = wait::until("pods to be as they were", READY, || {
        left = differences(&before, &pods(&mesh)?);
        Ok(left.is_empty().then_some(()))
    });
    gone.map_err(|error| error.context(format!("{left:#?}\n{}", mesh.last_words())))
}

#[test]
fn an_agent_that_ends_in_order_leaves_capture_in_place() -> Result<()> {
    let mesh = shop("upgrade").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    let before = kernel_links(&mesh)?;
    assert!(before > 0);
    assert_eq!(mesh.agent("node-1").stop()?, 0);
    assert_eq!(kernel_links(&mesh)?, before, "SIGTERM detaches nothing");
    let url = format!("http://{WEB}/");
    assert_ne!(mesh.pod("shop/frontend").try_curl(&url)?.code, 0, "no plaintext meanwhile");
    mesh.agent("node-1").start()?;
    mesh.wait_ready("node-1")?;
    assert_eq!(kernel_links(&mesh)?, before, "what was pinned is adopted");
    assert_eq!(mesh.pod("shop/frontend").curl(&url)?, "hello\n");
    Ok(())
}
