//! A hook that somebody takes away is noticed, said and put back.

use std::{os::unix::fs::MetadataExt, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use mesh_harness::{Mesh, cgroup, mesh::READY, process, wait};
use mesh_stories::{WEB, shop, traces};
use serde_json::Value;

/// The promise: a hook removed by hand is noticed within this time.
const NOTICED: Duration = Duration::from_secs(5);

fn bpftool(arguments: &[&str]) -> Result<Value> {
    let mut command = Command::new("bpftool");
    let output = process::run(command.arg("--json").args(arguments), process::PATIENCE)?;
    Ok(serde_json::from_str(&output.success()?)?)
}

/// The ids of links whose `field` is `value`.
fn links(field: &str, value: u64) -> Result<Vec<u64>> {
    let links = bpftool(&["link", "show"])?;
    let links = links.as_array().context("a list of links")?;
    let ours = links.iter().filter(|link| link[field] == value);
    Ok(ours.filter_map(|link| link["id"].as_u64()).collect())
}

fn detach(link: u64) -> Result<()> {
    let mut command = Command::new("bpftool");
    command.args(["link", "detach", "id", &link.to_string()]);
    process::run(&mut command, process::PATIENCE)?.success().map(drop)
}

/// Detaches links and expects status to exit with 1 while they are gone and a little longer, so
/// that whoever looks now and then sees it, and every one to be put back.
fn are_noticed_and_repaired(mesh: &Mesh, node: &str, links: &[u64]) -> Result<()> {
    let repairs = |status: &Value| -> u64 {
        let hooks = status["hooks"].as_array().into_iter().flatten();
        hooks.filter_map(|hook| hook["repairs"].as_u64()).sum()
    };
    let (before, code) = mesh.status(node)?;
    ensure!(code == 0, "status exits with {code} before: {before}");
    for link in links {
        detach(*link)?;
    }
    let noticed = wait::until("status to exit with 1", NOTICED, || {
        let (status, code) = mesh.status(node)?;
        Ok((code == 1).then_some(status))
    })?;
    assert!(!noticed["problems"].as_array().is_none_or(Vec::is_empty), "{noticed}");
    let after = wait::until("status to exit with 0 again", READY, || {
        let (status, code) = mesh.status(node)?;
        Ok((code == 0).then_some(status))
    })?;
    assert_eq!(repairs(&after), repairs(&before) + links.len() as u64, "{after}");
    assert_eq!(mesh.agent(node).lines_with(&["put the kernel hook back"]).len(), links.len());
    Ok(())
}

#[test]
fn every_hook_of_a_node_is_noticed_and_repaired() -> Result<()> {
    let mesh = shop("node-hooks").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    let cgroup = cgroup::id(&mesh.layout().node_cgroup("node-1"))?;
    let hooks = links("cgroup_id", cgroup)?;
    // connect4, connect6, getpeername4, getpeername6, sock_ops.
    assert_eq!(hooks.len(), 5, "{:?}", bpftool(&["link", "show"])?);
    are_noticed_and_repaired(&mesh, "node-1", &hooks).with_context(|| mesh.last_words())?;
    assert_eq!(links("cgroup_id", cgroup)?.len(), 5);
    assert_eq!(mesh.pod("shop/frontend").curl(&format!("http://{WEB}/"))?, "hello\n");
    Ok(())
}

#[test]
fn the_inbound_hook_of_a_pod_is_noticed_and_repaired() -> Result<()> {
    let mesh = shop("pod-hook").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    let netns = std::fs::metadata(mesh.pod("shop/web").place.netns.path())?.ino();
    let hooks = links("netns_ino", netns)?;
    assert_eq!(hooks.len(), 1, "{:?}", bpftool(&["link", "show"])?);
    are_noticed_and_repaired(&mesh, "node-2", &hooks).with_context(|| mesh.last_words())?;
    assert_eq!(mesh.pod("shop/frontend").curl(&format!("http://{WEB}/"))?, "hello\n");
    Ok(())
}

#[test]
fn the_guards_of_pods_are_noticed_and_repaired() -> Result<()> {
    let mesh = shop("guards").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    let guards = || -> Result<Vec<u64>> {
        let mut guards = Vec::new();
        for pin in traces::pins(&mesh)? {
            let name = pin.file_name().unwrap_or_default().to_string_lossy();
            if pin.starts_with(mesh.layout().bpffs().join("node-1")) && name.starts_with("guard_") {
                let link = bpftool(&["link", "show", "pinned", &pin.to_string_lossy()])?;
                guards.push(link["id"].as_u64().context("a link without an id")?);
            }
        }
        Ok(guards)
    };
    let known = guards()?;
    // Two pods, both ends of their links.
    assert_eq!(known.len(), 4);
    are_noticed_and_repaired(&mesh, "node-1", &known).with_context(|| mesh.last_words())?;
    let now = guards()?;
    assert_eq!(now.len(), 4);
    assert!(now.iter().all(|link| !known.contains(link)), "{known:?} {now:?}");
    assert_eq!(mesh.pod("shop/frontend").curl(&format!("http://{WEB}/"))?, "hello\n");
    Ok(())
}
