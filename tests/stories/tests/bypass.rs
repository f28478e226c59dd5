//! `nodemesh bypass`: pods that go around the mesh for a while, and come back.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use anyhow::{Context, Result};
use mesh_harness::{Mesh, mesh::READY, objects::identity, wait};
use mesh_stories::shop;

/// Strict for a whole namespace.
const STRICT: &str = "apiVersion: nodemesh.dev/v1alpha1\nkind: PeerPolicy\nmetadata:\n  \
                      name: strict\n  namespace: shop\nspec:\n  mode: STRICT\n";

fn state(mesh: &Mesh, node: &str, pod: &str) -> Result<(String, String)> {
    let (status, _) = mesh.status(node)?;
    let pods = status["pods"].as_array().context("a list of pods")?;
    let found = pods.iter().find(|it| it["name"] == pod).context("the pod")?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Ok((text("state"), text("reason")))
}

fn is_in_state(mesh: &Mesh, node: &str, pod: &str, wanted: &str) -> Result<()> {
    wait::until(&format!("{pod} to be {wanted}"), READY, || {
        Ok((state(mesh, node, pod)?.0 == wanted).then_some(()))
    })
    .with_context(|| mesh.last_words())
}

fn metric(mesh: &Mesh, node: &str, name: &str) -> Result<String> {
    let text = mesh.node(node).place.netns.run(|| -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", 15020))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })??;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(str::to_owned).with_context(|| format!("no {name} in {text}"))
}

/// Where web is, mesh or no mesh: nobody but the mesh serves virtual addresses here.
fn url(mesh: &Mesh) -> String {
    format!("http://{}:8080/", mesh.pod("shop/web").ipv4())
}

fn call(mesh: &Mesh) -> Result<()> {
    assert_eq!(mesh.pod("shop/frontend").curl(&url(mesh))?, "hello\n");
    Ok(())
}

/// How many flows there are of calls by frontend with these further fields.
fn calls(mesh: &Mesh, fields: &[(&str, &str)]) -> Result<usize> {
    let caller = identity("shop/frontend");
    let fields = [&[("source/identity", &*caller)], fields].concat();
    Ok(mesh.flows()?.iter().filter(|flow| flow.has(&fields)).count())
}

/// Calls until there is a flow of it with these fields.
fn call_is(mesh: &Mesh, fields: &[(&str, &str)]) -> Result<()> {
    let before = calls(mesh, fields)?;
    wait::until(&format!("a call with {fields:?}"), READY, || {
        call(mesh)?;
        Ok((calls(mesh, fields)? > before).then_some(()))
    })
    .with_context(|| mesh.last_words())
}

const MTLS: &[(&str, &str)] = &[("security", "mtls")];
const PLAINTEXT: &[(&str, &str)] = &[("security", "plaintext")];

#[test]
fn a_pod_bypasses_the_mesh_without_a_controller_and_over_a_restart_until_its_time_is_over()
-> Result<()> {
    let mesh = shop("bypass").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    call_is(&mesh, MTLS)?;
    mesh.pod("shop/web").serve_peer(9000, &["echo"])?;
    let script = format!(
        "exec 3<>/dev/tcp/{}/9000; while echo hello >&3 && read -r answer <&3; do echo $answer; \
         sleep 0.1; done",
        mesh.pod("shop/web").ipv4()
    );
    let mut live = mesh.pod("shop/frontend").spawn(&["bash", "-c", &script])?;
    live.wait_for_line("hello", READY)?;
    mesh.controller().kill();

    let begin = ["bypass", "--pod", "shop/frontend", "--for", "30m"];
    let said = mesh.nodemesh("node-1", &begin)?.success()?;
    assert!(said.contains("bypasses the mesh until") && said.contains("shop/frontend"), "{said}");
    is_in_state(&mesh, "node-1", "shop/frontend", "bypassed")?;
    assert_eq!(state(&mesh, "node-1", "shop/batch")?.0, "captured", "nobody else");
    let (_, reason) = state(&mesh, "node-1", "shop/frontend")?;
    assert_eq!(reason, "outside the mesh for another 30 min");
    let proxied = calls(&mesh, &[])?;
    call(&mesh)?;
    let known = live.log().len();
    wait::until("what was proxied before to go on", READY, || {
        Ok((live.log().len() > known + 30).then_some(()))
    })
    .with_context(|| live.log())?;

    let (status, code) = mesh.status("node-1")?;
    let problems = status["problems"].to_string();
    assert!(code == 1 && problems.contains("pod shop/frontend bypasses the mesh"), "{problems}");
    assert!(problems.contains("nodemesh bypass --pod shop/frontend --end"), "{problems}");
    assert_eq!(metric(&mesh, "node-1", "nodemesh_bypassed_pods")?, "1");
    let log = ["bypasses the mesh", "pod shop/frontend"];
    assert!(!mesh.agent("node-1").lines_with(&log).is_empty());

    mesh.agent("node-1").kill();
    mesh.agent("node-1").start()?;
    mesh.wait_ready("node-1")?;
    is_in_state(&mesh, "node-1", "shop/frontend", "bypassed")?;
    call(&mesh)?;
    assert!(calls(&mesh, &[])? <= proxied, "nothing of it was proxied");

    // A new time replaces the old one, and nobody has to end it.
    let shorter = ["bypass", "--pod", "shop/frontend", "--for", "3s"];
    mesh.nodemesh("node-1", &shorter)?.success()?;
    is_in_state(&mesh, "node-1", "shop/frontend", "captured")?;
    assert_eq!(metric(&mesh, "node-1", "nodemesh_bypassed_pods")?, "0");
    call_is(&mesh, MTLS)
}

#[test]
fn others_speak_plaintext_to_a_pod_that_bypasses_the_mesh() -> Result<()> {
    let mesh = shop("bypassed-callee").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    call_is(&mesh, MTLS)?;
    mesh.nodemesh("node-2", &["bypass", "--namespace", "shop", "--for", "1h"])?.success()?;
    is_in_state(&mesh, "node-2", "shop/web", "bypassed")?;
    call_is(&mesh, PLAINTEXT)?;
    assert_eq!(mesh.pod("legacy/client").curl(&url(&mesh))?, "hello\n");

    mesh.nodemesh("node-2", &["bypass", "--namespace", "shop", "--end"])?.success()?;
    is_in_state(&mesh, "node-2", "shop/web", "captured")?;
    call_is(&mesh, MTLS)
}

#[test]
fn what_must_not_be_bypassed_by_mistake_is_refused_with_the_reason() -> Result<()> {
    let mesh = shop("bypass-refused").start()?;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    let fails = |node: &str, words: &[&str], code: i32, reason: &str| -> Result<()> {
        let words: Vec<_> = ["bypass"].iter().chain(words).copied().collect();
        let seen = mesh.nodemesh(node, &words)?;
        assert_eq!(seen.code, code, "{seen}");
        assert!(seen.stderr.contains(reason), "{reason}: {seen}");
        Ok(())
    };
    fails("node-1", &["--pod", "shop/nobody", "--for", "1m"], 1, "knows no pod shop/nobody")?;
    // An agent knows of other nodes' pods what its own call.
    fails("node-1", &["--pod", "shop/web", "--for", "1m"], 1, "knows no pod shop/web")?;
    mesh.pod("shop/frontend").curl(&url(&mesh))?;
    fails("node-1", &["--pod", "shop/web", "--for", "1m"], 1, "is on node-2")?;
    fails("node-1", &["--pod", "legacy/client", "--for", "1m"], 1, "is not in the mesh")?;
    fails("node-1", &["--namespace", "legacy", "--for", "1m"], 1, "no pod of namespace legacy")?;
    fails("node-1", &["--node", "--end"], 1, "has no bypass")?;
    fails("node-1", &["--node", "--for", "25h"], 2, "at most 24h")?;
    fails("node-1", &["--node", "--for", "soon"], 2, "such as 30m")?;
    fails("node-1", &["--for", "1m"], 2, "required")?;

    let stranger = || mesh.pod("legacy/client").try_curl(&url(&mesh));
    mesh.objects().apply("strict.yaml", STRICT)?;
    wait::until("strict mode", READY, || Ok((stranger()?.code != 0).then_some(())))?;
    fails("node-2", &["--pod", "shop/web", "--for", "1m"], 1, "--insecure")?;
    assert_ne!(stranger()?.code, 0, "nothing was let around the mesh");
    let insecure = ["bypass", "--pod", "shop/web", "--for", "1m", "--insecure"];
    mesh.nodemesh("node-2", &insecure)?.success()?;
    wait::until("everybody to get in", READY, || Ok((stranger()?.code == 0).then_some(())))?;
    mesh.nodemesh("node-2", &["bypass", "--pod", "shop/web", "--end"])?.success()?;
    wait::until("strict mode again", READY, || Ok((stranger()?.code != 0).then_some(())))
}
