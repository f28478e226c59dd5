//! What each step does and what it has to see.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mesh_harness::{
    Mesh,
    capture::{Capture, Recording},
    mesh::READY,
    node::UPLINK,
    objects::identity,
    tls::tls,
    wait,
};

use crate::demo::{complaint, milliseconds};

/// The Service in front of shop/web.
const WEB: &str = "http://10.96.0.80";
/// The Service in front of shop/redis.
const REDIS: &str = "10.96.0.79";
/// legacy/server, which is asked by its own address.
const LEGACY: &str = "http://10.81.2.20:8080";
/// What a step sends that no other traffic has.
const SECRET: &str = "payload-that-nobody-may-read";
/// What the unmeshed pods send, which a capture has to show.
const OPEN: &str = "payload-that-anybody-may-read";
/// New connections have to work again this long after an agent's restart.
const RECOVERY: Duration = Duration::from_secs(5);
/// Refused at once: far below any timeout, well above a busy machine's scheduling.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Step 1: both Services answer from node 2; flows name both identities.
pub fn call_service(mesh: &Mesh) -> Result<String> {
    let frontend = mesh.pod("shop/frontend");
    let body = frontend.curl(&format!("{WEB}/hello"))?;
    ensure!(body == "shop/web says /hello\n", "the Service answered {body:?}");
    let (source, destination) = (identity("shop/frontend"), identity("shop/web"));
    let flow = mesh.flow(&[
        ("source/identity", &source),
        ("destination/identity", &destination),
        ("security", "mtls"),
        ("verdict", "forwarded"),
    ])?;
    let redis = ["redis-cli", "-h", REDIS, "set", "greeting", "hello"];
    let answer = frontend.run(&redis)?.success()?;
    ensure!(answer.trim() == "OK", "redis answered {answer:?}");
    Ok(format!(
        "{WEB} answered {:?} from node-2, redis answered OK; flow {} -> {} security={}",
        body.trim(),
        flow.field("source/identity"),
        flow.field("destination/identity"),
        flow.field("security"),
    ))
}

/// Step 2: TLS 1.3 and none of the payload; the same capture sees what is not encrypted.
pub fn watch_link(mesh: &Mesh) -> Result<String> {
    let file = mesh.layout().run_dir().join("link.pcap");
    let recording = Recording::start(&mesh.node("node-1").place, UPLINK, file)?;
    let body = mesh.pod("shop/frontend").curl(&format!("{WEB}/{SECRET}"))?;
    ensure!(body.contains(SECRET), "the Service answered {body:?}");
    // A caller of its own: a fresh tunnel, whose handshake is part of the recording.
    mesh.pod("shop/batch").run(&["redis-cli", "-h", REDIS, "get", SECRET])?.success()?;
    mesh.pod("legacy/client").curl(&format!("{LEGACY}/{OPEN}"))?;
    let capture = recording.stop()?;
    ensure!(capture.contains(OPEN.as_bytes()), "the capture missed the plaintext of legacy pods");
    ensure!(!capture.contains(SECRET.as_bytes()), "the payload is readable on the link");
    let (records, handshakes) = tls_of_tunnels(&capture)?;
    Ok(format!(
        "{} packets; {records} TLS application records, {handshakes} handshake(s) that chose TLS \
         1.3; not one byte of the payload, while the unmeshed pods' text is plain to see",
        capture.packets()
    ))
}

/// Application records and TLS 1.3 handshakes on HBONE's port, where nothing else may be.
fn tls_of_tunnels(capture: &Capture) -> Result<(usize, usize)> {
    let (mut records, mut handshakes) = (0, 0);
    for stream in capture.streams_of_port(15008) {
        let seen = tls(&stream).context("port 15008 carries something that is not TLS")?;
        records += seen.application_records;
        handshakes += usize::from(seen.chose_1_3);
    }
    ensure!(records > 0, "no TLS application data on port 15008");
    ensure!(handshakes > 0, "no handshake that chose TLS 1.3 on port 15008");
    Ok((records, handshakes))
}

/// Step 3: batch may not call web, and the flow says which policy decided.
pub fn refuse_stranger(mesh: &Mesh) -> Result<String> {
    let seen = mesh.pod("shop/batch").try_curl(&format!("{WEB}/"))?;
    ensure!(seen.code != 0, "batch was answered: {}", seen.stdout);
    let batch = identity("shop/batch");
    let flow = mesh.flow(&[("source/identity", &batch), ("verdict", "denied")])?;
    let reason = flow.field("reason");
    ensure!(reason.contains("shop/"), "the flow does not name the policy: {flow}");
    Ok(format!("curl says \"{}\"; flow {batch} DENIED, {reason}", complaint(&seen)))
}

/// Step 4: untouched before, captured after the label, let go after its removal.
pub fn enroll_namespace(mesh: &Mesh) -> Result<String> {
    let client = mesh.pod("legacy/client");
    let call = || client.curl(&format!("{LEGACY}/"));
    call()?;
    ensure!(!captured(mesh, "legacy/client")?, "legacy/client is captured without a label");
    ensure!(mtls_flows(mesh)? == 0, "an unmeshed pod has mTLS flows");

    let start = Instant::now();
    mesh.objects().apply_namespace("legacy", true)?;
    wait::until("calls of the labelled namespace to be mTLS", READY, || {
        call()?;
        Ok((mtls_flows(mesh)? > 0).then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    let labelled = start.elapsed();

    let start = Instant::now();
    mesh.objects().apply_namespace("legacy", false)?;
    wait::until("the unlabelled namespace to be let go", READY, || {
        let caught = captured(mesh, "legacy/client")? || captured(mesh, "legacy/server")?;
        Ok((!caught).then_some(()))
    })
    .with_context(|| mesh.last_words())?;
    let unlabelled = start.elapsed();
    let known = mtls_flows(mesh)?;
    call()?;
    ensure!(mtls_flows(mesh)? == known, "the unlabelled pod still speaks mTLS");
    Ok(format!(
        "plaintext before; mTLS {} after the label; plaintext again {} after its removal; no \
         program restarted",
        milliseconds(labelled),
        milliseconds(unlabelled)
    ))
}

/// Step 5: refused while the agent is dead, served again soon after its restart.
pub fn kill_agent(mesh: &Mesh) -> Result<String> {
    let frontend = mesh.pod("shop/frontend");
    let agent = mesh.agent("node-1");
    agent.kill();
    let start = Instant::now();
    let seen = frontend.try_curl(&format!("{WEB}/"))?;
    let refused = start.elapsed();
    ensure!(seen.code != 0, "without an agent the call was answered: {}", seen.stdout);
    ensure!(refused < AT_ONCE, "without an agent the call hung for {}", milliseconds(refused));

    let start = Instant::now();
    agent.start()?;
    wait::until("calls to work after the agent's restart", RECOVERY, || {
        Ok((frontend.try_curl(&format!("{WEB}/"))?.code == 0).then_some(()))
    })?;
    Ok(format!(
        "new connections refused in {} ({}), served again {} after its restart",
        milliseconds(refused),
        complaint(&seen),
        milliseconds(start.elapsed())
    ))
}

/// Whether the pod's agent says that it has captured it, or has not yet let go of it.
fn captured(mesh: &Mesh, pod: &str) -> Result<bool> {
    let node = &mesh.pod(pod).node;
    let (status, _) = mesh.status(node)?;
    let Some(pods) = status.pointer("/pods").and_then(|pods| pods.as_array()) else {
        bail!("status without pods: {status}");
    };
    Ok(pods.iter().any(|entry| entry.get("name").is_some_and(|name| name == pod)))
}

/// How many mTLS flows of legacy/client there are.
fn mtls_flows(mesh: &Mesh) -> Result<usize> {
    let client = identity("legacy/client");
    let ours = [("source/identity", client.as_str()), ("security", "mtls")];
    Ok(mesh.flows()?.iter().filter(|flow| flow.has(&ours)).count())
}
