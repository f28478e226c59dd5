//! The first steps, each as a story: a Service across nodes, what the link carries, a refusal,
//! entering and leaving the mesh, an agent that dies.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mesh_harness::{
    Mesh,
    capture::Recording,
    mesh::READY,
    node::UPLINK,
    objects::{allow, identity},
    tls::tls,
    wait,
};
use mesh_stories::{WEB, shop};

#[test]
fn a_call_to_a_virtual_ip_is_answered_on_the_other_node_over_mtls() -> Result<()> {
    let mesh = shop("first-light").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    assert_eq!(mesh.pod("shop/frontend").curl(&format!("http://{WEB}/"))?, "hello\n");
    for reporter in ["source", "destination"] {
        mesh.flow(&[
            ("reporter", reporter),
            ("source/identity", "spiffe://cluster.local/ns/shop/sa/frontend"),
            ("destination/identity", "spiffe://cluster.local/ns/shop/sa/web"),
            ("security", "mtls"),
            ("verdict", "forwarded"),
        ])?;
    }
    Ok(())
}

#[test]
fn pod_addresses_work_as_well_over_both_families() -> Result<()> {
    let mesh = shop("families").start()?;
    let (frontend, web) = (mesh.pod("shop/frontend"), mesh.pod("shop/web"));
    web.serve_http(8080, "hello")?;
    assert_eq!(frontend.curl(&format!("http://{}:8080/", web.ipv4()))?, "hello\n");
    assert_eq!(frontend.curl(&format!("http://[{}]:8080/", web.ipv6()))?, "hello\n");
    let address = format!("[{}]:8080", web.ipv6());
    mesh.flow(&[("destination/address", &address), ("security", "mtls")])?;
    Ok(())
}

#[test]
fn calls_within_a_node_are_local_and_called_so() -> Result<()> {
    let mesh = shop("same-node").start()?;
    mesh.pod("shop/batch").serve_http(8080, "hello")?;
    let url = format!("http://{}:8080/", mesh.pod("shop/batch").ipv4());
    assert_eq!(mesh.pod("shop/frontend").curl(&url)?, "hello\n");
    mesh.flow(&[
        ("source/identity", &identity("shop/frontend")),
        ("destination/identity", &identity("shop/batch")),
        ("security", "local"),
    ])?;
    Ok(())
}

#[test]
fn an_application_sees_the_callers_address() -> Result<()> {
    let mesh = shop("source-address").start()?;
    mesh.pod("shop/web").serve_nginx(8080, "return 200 \"$remote_addr\";")?;
    let frontend = mesh.pod("shop/frontend");
    assert_eq!(frontend.curl(&format!("http://{WEB}/"))?, frontend.ipv4().to_string());
    Ok(())
}

#[test]
fn the_link_carries_tls_1_3_and_no_payload() -> Result<()> {
    let mesh = shop("link").pod("node-2", "legacy/server").start()?;
    for name in ["shop/web", "legacy/server"] {
        mesh.pod(name).serve_nginx(8080, "return 200 \"you said $uri\";")?;
    }
    let file = mesh.layout().run_dir().join("link.pcap");
    let recording = Recording::start(&mesh.node("node-1").place, UPLINK, file)?;
    mesh.pod("shop/frontend").curl(&format!("http://{WEB}/a-secret"))?;
    let server = mesh.pod("legacy/server").ipv4();
    mesh.pod("legacy/client").curl(&format!("http://{server}:8080/no-secret"))?;
    let capture = recording.stop()?;

    assert!(capture.contains(b"no-secret"), "the capture misses what is in the clear");
    assert!(!capture.contains(b"a-secret"), "the payload is readable");
    let streams = capture.streams_of_port(15008);
    let tunnels: Vec<_> = streams.iter().filter_map(|stream| tls(stream)).collect();
    assert_eq!(tunnels.len(), streams.len(), "port 15008 carries only TLS");
    assert!(tunnels.iter().any(|tls| tls.chose_1_3), "{tunnels:?}");
    assert!(tunnels.iter().all(|tls| tls.application_records > 0), "{tunnels:?}");
    Ok(())
}

#[test]
fn a_caller_that_no_rule_allows_is_refused_and_the_flow_names_the_policy() -> Result<()> {
    let mesh = shop("refused").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    let policy = allow("shop/web-callers", "web", &[&identity("shop/frontend")]);
    mesh.objects().apply("policy.yaml", &policy)?;
    let url = format!("http://{WEB}/");
    let refused = wait::until("batch to be refused", READY, || {
        let seen = mesh.pod("shop/batch").try_curl(&url)?;
        Ok((seen.code != 0).then_some(seen))
    })?;
    assert_eq!(refused.stdout, "");
    for reporter in ["source", "destination"] {
        let flow = mesh.flow(&[
            ("reporter", reporter),
            ("source/identity", &identity("shop/batch")),
            ("destination/identity", &identity("shop/web")),
            ("verdict", "denied"),
        ])?;
        assert!(flow.field("reason").contains("shop/web-callers"), "{flow}");
    }
    assert_eq!(mesh.pod("shop/frontend").curl(&url)?, "hello\n");
    Ok(())
}

#[test]
fn a_label_takes_a_namespace_in_and_out_without_restarts() -> Result<()> {
    let mesh = shop("label").pod("node-2", "legacy/server").start()?;
    let (client, server) = (mesh.pod("legacy/client"), mesh.pod("legacy/server"));
    server.serve_http(8080, "hello")?;
    server.serve_peer(7000, &["echo"])?;
    // Open before, during and after: nobody may cut it.
    let peer = mesh_harness::binaries::find("mesh-peer")?.to_string_lossy().into_owned();
    let address = format!("{}:7000", server.ipv4());
    let mut old = client.spawn(&[peer.as_str(), "call", &address, "hold", "15"])?;
    old.wait_for_line("second 0", READY)?;

    let url = format!("http://{}:8080/", server.ipv4());
    let own = identity("legacy/client");
    let flows = |mesh: &Mesh| -> Result<usize> {
        let ours = [("source/identity", own.as_str()), ("security", "mtls")];
        Ok(mesh.flows()?.iter().filter(|flow| flow.has(&ours)).count())
    };
    client.curl(&url)?;
    assert_eq!(flows(&mesh)?, 0, "untouched before");

    mesh.objects().apply_namespace("legacy", true)?;
    wait::until("mTLS after the label", READY, || {
        client.curl(&url).context("while being captured")?;
        Ok((flows(&mesh)? > 0).then_some(()))
    })
    .with_context(|| mesh.last_words())?;

    mesh.objects().apply_namespace("legacy", false)?;
    wait::until("plaintext after its removal", READY, || {
        let known = flows(&mesh)?;
        client.curl(&url).context("while being let go")?;
        // A flow is there when curl has seen the end, or very soon after.
        std::thread::sleep(Duration::from_millis(200));
        Ok((flows(&mesh)? == known).then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    old.wait_for_line("second 14", READY)?;
    Ok(())
}

#[test]
fn without_its_agent_a_pod_is_refused_at_once_and_served_again_soon_after() -> Result<()> {
    let mesh = shop("agent-loss").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    let (frontend, url) = (mesh.pod("shop/frontend"), format!("http://{WEB}/"));
    frontend.curl(&url)?;
    for node in ["node-1", "node-2"] {
        mesh.agent(node).kill();
        let start = Instant::now();
        assert_ne!(frontend.try_curl(&url)?.code, 0, "the agent of {node} is dead");
        assert!(start.elapsed() < Duration::from_secs(2), "refused, not timed out");
        mesh.agent(node).start()?;
        wait::until("calls to work again", Duration::from_secs(5), || {
            Ok((frontend.try_curl(&url)?.code == 0).then_some(()))
        })
        .with_context(|| mesh.last_words())?;
    }
    mesh.flow(&[("source/identity", &identity("shop/frontend")), ("security", "mtls")])?;
    Ok(())
}
