//! What there is no room for is refused and named, and what has its place goes on.

use anyhow::{Context, Result};
use mesh_harness::{Mesh, link::ip, mesh::READY, objects::identity, wait};
use mesh_stories::{python::spawn_python, shop};

/// Begins 40 connections, says how many of them are up, and stays.
const MANY: &str = "
to = address(sys.argv[1])
begun = []
for _ in range(40):
    s = tcp(to[0]); s.setblocking(False); s.connect_ex(to); begun.append(s)
print(len(begun), 'begun', flush=True)
time.sleep(1000)
";

/// An address that takes everything and answers nothing.
const BLACKHOLE: &str = "10.99.0.1";

fn counter(mesh: &Mesh, name: &str) -> Result<u64> {
    let (status, _) = mesh.status("node-1")?;
    status["counters"][name].as_u64().with_context(|| format!("no {name} in {status}"))
}

#[test]
fn upstreams_without_room_are_counted_and_go_around_nothing() -> Result<()> {
    let mesh = shop("full-upstreams").agent_flags(&["--max-connections", "4"]).start()?;
    let (frontend, batch, web) =
        (mesh.pod("shop/frontend"), mesh.pod("shop/batch"), mesh.pod("shop/web"));
    web.serve_http(8080, "hello")?;
    let url = format!("http://{}:8080/", web.ipv4());
    // The tunnels that others' calls go through later.
    for pod in [frontend, batch] {
        assert_eq!(pod.curl(&url)?, "hello\n");
    }
    let node = mesh.node("node-1").place.netns.name();
    let (server, port) = (mesh.node("node-2").place.netns.name(), 7000);
    // What node-1 lets through gets to node-2, which says nothing.
    ip(&format!("-n {node} route add {BLACKHOLE}/32 via {}", mesh.node("node-2").address()))?;
    ip(&format!("-n {server} route add blackhole {BLACKHOLE}/32"))?;
    let mut many = spawn_python(frontend, MANY, &[&format!("{BLACKHOLE}:{port}")])?;
    many.wait_for_line("40 begun", READY)?;
    wait::until("the kernel to count what it had no room for", READY, || {
        let full = counter(&mesh, "upstream_failed")? + counter(&mesh, "publish_failed")?;
        Ok((full > 0).then_some(()))
    })
    .with_context(|| format!("{:?}", mesh.status("node-1")))?;
    // Tunnels that are open need no room in the map of what is being opened.
    wait::until("calls to be answered", READY, || {
        Ok((batch.try_curl(&url)?.code == 0).then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    drop(many);
    wait::until("the caller to be served again", READY, || {
        Ok((frontend.try_curl(&url)?.code == 0).then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    for flow in mesh.flows()?.iter().filter(|flow| flow.has(&[("destination/pod", "shop/web")])) {
        assert_eq!(flow.field("security"), "mtls", "{flow}");
    }
    Ok(())
}

#[test]
fn a_pod_too_many_is_named_and_the_other_is_served() -> Result<()> {
    let mesh = shop("full-pods").agent_flags(&["--max-pods", "1"]).lay_out()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    // Readiness is not waited for: an agent that cannot do its work need not be ready.
    mesh.start_controller()?;
    for node in ["node-1", "node-2"] {
        mesh.issue_token(node)?;
        mesh.agent(node).start()?;
    }
    let pods = ["shop/frontend", "shop/batch"];
    let states = || -> Result<Vec<(String, String)>> {
        let (status, _) = mesh.status("node-1")?;
        let state = |name: &&str| {
            let pods = status["pods"].as_array()?;
            let pod = pods.iter().find(|pod| pod["name"] == *name)?;
            Some((
                pod["state"].as_str()?.to_owned(),
                pod["reason"].as_str().unwrap_or("").to_owned(),
            ))
        };
        Ok(pods.iter().filter_map(state).collect())
    };
    let settled = wait::until("one pod to be captured and the other to fail", READY, || {
        let states = states().unwrap_or_default();
        let has = |what: &str| states.iter().any(|(state, _)| state == what);
        Ok((has("captured") && has("failed")).then_some(states))
    })
    .with_context(|| format!("{:?}\n{}", mesh.status("node-1"), mesh.last_words()))?;
    let failed = settled.iter().position(|(state, _)| state == "failed").context("one fails")?;
    assert!(settled[failed].1.contains("--max-pods"), "{settled:?}");
    let (status, code) = mesh.status("node-1")?;
    assert_eq!(code, 1, "{status}");

    let url = format!("http://{}:8080/", mesh.pod("shop/web").ipv4());
    let (served, other) = (pods[1 - failed], pods[failed]);
    let mtls = |pod: &str| -> Result<bool> {
        let own = identity(pod);
        let wanted = [("source/identity", own.as_str()), ("security", "mtls")];
        Ok(mesh.flows()?.iter().any(|flow| flow.has(&wanted)))
    };
    // Until the other node has said that the called pod is captured, plaintext is right.
    wait::until("the one with a place to be served over mTLS", READY, || {
        Ok((mesh.pod(served).try_curl(&url)?.code == 0 && mtls(served)?).then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    let seen = mesh.pod(other).try_curl(&url)?;
    assert!(!mtls(other)?, "{seen}");
    Ok(())
}
