//! Nodes as clusters have them: pods found by their processes, and an agent with few rights.

use anyhow::{Context, Result};
use mesh_harness::{Mesh, binaries, ledger::Ledger, mesh::READY, objects::identity, wait};
use mesh_stories::{WEB, shop};

/// What the agent's container gets in a cluster.
const MANIFEST: &str = include_str!("../../../deploy/base/agent.yaml");

/// The capabilities that the manifest adds, as setpriv calls them.
fn capabilities() -> Vec<String> {
    let added = MANIFEST.lines().skip_while(|line| line.trim() != "add:").skip(1);
    let added = added.map(str::trim).take_while(|line| line.starts_with(['-', '#']));
    added.filter_map(|line| line.strip_prefix("- ")).map(str::to_lowercase).collect()
}

/// A launcher for a program that has `capabilities` and can get no others.
fn confined(capabilities: &[String]) -> Vec<String> {
    let kept: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
    ["setpriv", "--no-new-privs", &format!("--bounding-set=-all{kept}")].map(str::to_owned).into()
}

/// Starts the daemons and waits for none.
fn start_without_waiting(mesh: &Mesh) -> Result<()> {
    mesh.start_controller()?;
    for node in mesh.nodes() {
        mesh.issue_token(&node.name)?;
        mesh.agent(&node.name).start()?;
    }
    Ok(())
}

fn calls_web(mesh: &Mesh) -> Result<()> {
    let url = format!("http://{WEB}/");
    assert_eq!(mesh.pod("shop/frontend").curl(&url)?, "hello\n");
    mesh.flow(&[("source/identity", &identity("shop/frontend")), ("security", "mtls")])?;
    Ok(())
}

#[test]
fn pods_are_found_by_the_cgroups_of_their_processes() -> Result<()> {
    let mesh = shop("by-process").by_process().lay_out()?;
    for pod in mesh.pods().filter(|pod| pod.name != "shop/batch") {
        pod.start_sandbox()?;
    }
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    start_without_waiting(&mesh)?;
    // The other pod of the node is in the mesh meanwhile.
    wait::until("the call to be carried by the mesh", READY, || Ok(calls_web(&mesh).ok()))
        .with_context(|| mesh.last_words())?;
    let (status, code) = mesh.status("node-1")?;
    let problems = status["problems"].to_string();
    assert!(code == 1 && problems.contains("shop/batch is not in the mesh"), "{problems}");
    assert!(problems.contains("is in a cgroup of pod uid"), "{problems}");
    mesh.pod("shop/batch").start_sandbox()?;
    mesh.wait_ready("node-1")?;

    // Its next agent knows no process of an earlier one.
    mesh.agent("node-1").kill();
    mesh.pod("shop/frontend").start_sandbox()?;
    mesh.agent("node-1").start()?;
    mesh.wait_ready("node-1")?;
    calls_web(&mesh)
}

#[test]
fn the_agent_does_with_the_capabilities_of_its_manifest_and_names_each_that_is_missing()
-> Result<()> {
    let capabilities = capabilities();
    let launcher = confined(&capabilities);
    let launcher: Vec<_> = launcher.iter().map(String::as_str).collect();
    let mesh = shop("privileges").by_process().launch_agents_by(&launcher).lay_out()?;
    for pod in mesh.pods() {
        pod.start_sandbox()?;
    }
    let ledgers = || -> Result<Vec<Ledger>> {
        mesh.pods().map(|pod| Ledger::of_namespace(&pod.place.netns)).collect()
    };
    let before = ledgers()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    mesh.start_daemons()?;
    calls_web(&mesh)?;
    mesh.objects().apply_namespace("shop", false)?;
    wait::until("pods to be as they were", READY, || {
        let after = ledgers()?;
        let same = before.iter().zip(&after).all(|(one, other)| one.differences(other).is_empty());
        Ok(same.then_some(()))
    })
    .with_context(|| mesh.last_words())?;

    let agent = binaries::find("mesh-agent")?.to_string_lossy().into_owned();
    for missing in &capabilities {
        let others: Vec<_> = capabilities.iter().filter(|it| *it != missing).cloned().collect();
        let mut command_line = confined(&others);
        command_line.push(agent.clone());
        let state = mesh.layout().run_dir().join("missing");
        command_line.extend(
            [
                "--node=missing",
                "--controller=https://127.0.0.1:1",
                "--controller-ca=/dev/null",
                "--join-token-file=/dev/null",
                "--metrics-address=127.0.0.1:0",
                "--readiness-address=127.0.0.1:0",
                &format!("--state-dir={}", state.display()),
                &format!("--admin-socket={}/sock", state.display()),
            ]
            .map(str::to_owned),
        );
        let seen = mesh.node("node-1").place.run(&command_line)?;
        assert_eq!(seen.code, 1, "{seen}");
        let name = format!("CAP_{}", missing.to_uppercase());
        assert!(seen.stderr.contains(&name), "{name}: {seen}");
        assert_eq!(seen.stderr.matches("CAP_").count(), 1, "{seen}");
    }
    Ok(())
}
