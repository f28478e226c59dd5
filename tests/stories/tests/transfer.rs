//! Bytes arrive as they were sent, and connections begin and end as without a mesh.

use anyhow::{Context, Result};
use mesh_harness::{Mesh, mesh::READY, wait};
use mesh_stories::shop;

const MIB: u64 = 1024 * 1024;

/// shop/web serves `behaviour`, shop/frontend calls it over the mesh; what the caller printed.
fn peers(story: &str, serve: &[&str], call: &[&str]) -> Result<(Mesh, String)> {
    let mesh = shop(story).start()?;
    mesh.pod("shop/web").serve_peer(8080, serve)?;
    let seen = call_web(&mesh, call)?;
    Ok((mesh, seen))
}

fn call_web(mesh: &Mesh, call: &[&str]) -> Result<String> {
    let seen = mesh.pod("shop/frontend").call_peer(&format!("{}:80", mesh_stories::WEB), call)?;
    let seen = seen
        .success()
        .with_context(|| format!("the server saw: {}", mesh.pod("shop/web").server_log()))?;
    Ok(seen.trim_end().to_owned())
}

fn all(bytes: u64) -> String {
    format!("{bytes} bytes, all as sent")
}

/// Waits until the server says that its connection ended so.
fn server_saw(mesh: &Mesh, ending: &str) -> Result<()> {
    let web = mesh.pod("shop/web");
    wait::until(&format!("the server to see {ending:?}"), READY, || {
        Ok(web.server_log().contains(ending).then_some(()))
    })
    .with_context(|| web.server_log())
}

#[test]
fn a_mebibyte_there_and_back() -> Result<()> {
    let bytes = MIB.to_string();
    let (mesh, seen) = peers("mebibyte", &["echo"], &["echo", &bytes])?;
    assert_eq!(seen, all(MIB));
    let flow = mesh.flow(&[("reporter", "source"), ("verdict", "forwarded")])?;
    assert_eq!((flow.number("bytes_sent"), flow.number("bytes_received")), (MIB, MIB), "{flow}");
    Ok(())
}

#[test]
fn big_gibibyte_there() -> Result<()> {
    let bytes = (1024 * MIB).to_string();
    let (_mesh, seen) = peers("gibibyte-there", &["sum"], &["send", &bytes])?;
    assert_eq!(seen, all(1024 * MIB));
    Ok(())
}

#[test]
fn big_gibibyte_back() -> Result<()> {
    let bytes = (1024 * MIB).to_string();
    let (_mesh, seen) = peers("gibibyte-back", &["send", &bytes], &["receive", &bytes])?;
    assert_eq!(seen, all(1024 * MIB));
    Ok(())
}

#[test]
fn big_thousand_connections_at_once() -> Result<()> {
    let (_mesh, seen) = peers("thousand", &["echo"], &["many", "1000"])?;
    assert_eq!(seen, "1000 connections, each answered its own line");
    Ok(())
}

#[test]
fn a_server_may_speak_first() -> Result<()> {
    let (_mesh, seen) = peers("banner", &["banner", "220 ready"], &["hear"])?;
    assert_eq!(seen, "220 ready");
    Ok(())
}

#[test]
fn a_caller_may_close_its_half_and_go_on_listening() -> Result<()> {
    let (mesh, seen) = peers("half-close", &["echo"], &["half-close"])?;
    assert_eq!(seen, "after half-close: last words");
    server_saw(&mesh, "ended: eof after 11 bytes")
}

#[test]
fn a_server_may_close_its_half_and_go_on_listening() -> Result<()> {
    let (mesh, seen) = peers("server-half-close", &["send", "10"], &["receive", "10"])?;
    assert_eq!(seen, all(10));
    server_saw(&mesh, "ended: eof after 0 bytes")
}

#[test]
fn a_reset_by_the_caller_reaches_the_server() -> Result<()> {
    let (mesh, seen) = peers("caller-reset", &["echo"], &["reset"])?;
    assert_eq!(seen, "reset by us after \"before the reset\"");
    server_saw(&mesh, "ended: reset")
}

#[test]
fn a_reset_by_the_server_reaches_the_caller() -> Result<()> {
    let (_mesh, seen) = peers("server-reset", &["reset"], &["reset"])?;
    assert_eq!(seen, "reset by peer");
    Ok(())
}

#[test]
fn a_slow_reader_gets_everything() -> Result<()> {
    let bytes = (32 * MIB).to_string();
    let (_mesh, seen) = peers("slow-reader", &["send", &bytes], &["receive", &bytes, "slow"])?;
    assert_eq!(seen, all(32 * MIB));
    Ok(())
}

#[test]
fn a_closed_port_is_a_failure_at_once() -> Result<()> {
    let mesh = shop("closed-port").start()?;
    let start = std::time::Instant::now();
    let seen =
        mesh.pod("shop/frontend").call_peer(&format!("{}:80", mesh_stories::WEB), &["hear"])?;
    assert_ne!(seen.code, 0, "{seen}");
    assert!(start.elapsed() < std::time::Duration::from_secs(5), "{seen}");
    mesh.flow(&[("verdict", "error"), ("reporter", "source")])?;
    Ok(())
}
