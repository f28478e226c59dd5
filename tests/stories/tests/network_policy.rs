//! What a CNI plugin does for NetworkPolicies keeps its say: it sees the pods' own addresses, port
//! 15008 between nodes, and the ports themselves within a node.

use anyhow::{Context, Result};
use mesh_harness::{Mesh, objects::identity};
use mesh_stories::{call_until_mtls, shop};

/// Loads rules for what `node` forwards; `drops` are its rules.
fn forward(mesh: &Mesh, node: &str, drops: &str) -> Result<()> {
    let hook = "type filter hook forward priority 0;";
    let table = format!("table inet netpol {{ chain forward {{ {hook} {drops} }}; }}");
    mesh.node(node).place.run(&["nft", &table])?.success().map(drop)
}

#[test]
fn what_is_dropped_within_a_node_is_dropped_for_the_proxy_as_well() -> Result<()> {
    let mesh = shop("policy-local").start()?;
    let batch = mesh.pod("shop/batch");
    for port in [8080, 8081] {
        batch.serve_http(port, "hello")?;
    }
    let url = |port: u16| format!("http://{}:{port}/", batch.ipv4());
    let call = |port| mesh.pod("shop/frontend").run(&["curl", "-sS", "-m", "3", &url(port)]);
    assert_eq!(call(8080)?.code, 0);
    let (from, to) = (mesh.pod("shop/frontend").ipv4(), batch.ipv4());
    let drops = format!("ip saddr {from} ip daddr {to} tcp dport 8080 counter drop;");
    forward(&mesh, "node-1", &drops)?;
    let seen = call(8080)?;
    assert_ne!(seen.code, 0, "{seen}");
    let listed = mesh.node("node-1").place.run(&["nft", "list", "ruleset"])?.success()?;
    assert!(!listed.contains("packets 0 "), "the rule has seen nothing: {listed}");
    // It is that rule's doing.
    assert_eq!(call(8081)?.stdout, "hello\n");
    mesh.flow(&[("destination/identity", &identity("shop/batch")), ("security", "local")])?;
    Ok(())
}

#[test]
fn between_nodes_port_15008_is_all_that_is_needed() -> Result<()> {
    let mesh = shop("policy-hbone").pod("node-2", "legacy/server").start()?;
    for pod in ["shop/web", "legacy/server"] {
        mesh.pod(pod).serve_peer(8080, &["echo"])?;
    }
    let at = |pod: &str| format!("{}:8080", mesh.pod(pod).ipv4());
    // Until node-1 knows that shop/web is captured, calls do not go to port 15008.
    call_until_mtls(&mesh, "shop/frontend", &at("shop/web"))?;
    let batch = mesh.pod("shop/batch").ipv4();
    let drops = format!(
        "tcp dport 15008 accept; tcp sport 15008 accept; ip saddr {batch} counter drop; ip daddr \
         {batch} counter drop;"
    );
    for node in ["node-1", "node-2"] {
        forward(&mesh, node, &drops)?;
    }
    let called = mesh.pod("shop/batch").call_peer(&at("shop/web"), &["echo", "100000"])?.success();
    called.with_context(|| format!("{:?}\n{}", mesh.flows(), mesh.last_words()))?;
    mesh.flow(&[("source/pod", "shop/batch"), ("security", "mtls")])?;
    let listed = mesh.node("node-1").place.run(&["nft", "list", "ruleset"])?.success()?;
    assert_eq!(listed.matches("packets 0 ").count(), 2, "something else was sent: {listed}");
    // What has to use another port gets nowhere.
    let url = format!("http://{}/", at("legacy/server"));
    let seen = mesh.pod("shop/batch").run(&["curl", "-sS", "-m", "3", &url])?;
    assert_ne!(seen.code, 0, "{seen}");
    let listed = mesh.node("node-1").place.run(&["nft", "list", "ruleset"])?.success()?;
    assert_eq!(listed.matches("packets 0 ").count(), 1, "{listed}");
    Ok(())
}
