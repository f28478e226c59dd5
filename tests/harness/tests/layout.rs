//! The layout by itself, before any daemon: pods reach each other, and nothing is left behind.

use anyhow::Result;
use mesh_harness::{
    Mesh,
    capture::Recording,
    cleanup,
    layout::{Layout, url_host},
    ledger::Ledger,
    node::UPLINK,
};

#[test]
fn pods_of_two_nodes_reach_each_other_over_the_link() -> Result<()> {
    let mesh = Mesh::two_nodes("layout")
        .pod("node-1", "shop/frontend")
        .pod("node-2", "shop/web")
        .lay_out()?;
    let (frontend, web) = (mesh.pod("shop/frontend"), mesh.pod("shop/web"));
    web.serve_http(8080, "in the clear")?;
    let file = mesh.layout().run_dir().join("link.pcap");
    let recording = Recording::start(&mesh.node("node-1").place, UPLINK, file)?;
    for address in [web.ipv4(), web.ipv6()] {
        assert_eq!(
            frontend.curl(&format!("http://{}:8080/", url_host(address)))?,
            "in the clear\n"
        );
    }
    let capture = recording.stop()?;
    assert!(capture.contains(b"in the clear"), "{} packets", capture.packets());
    assert!(!capture.contains(b"in the dark"));
    Ok(())
}

#[test]
fn every_behaviour_of_the_peer_works_without_a_mesh() -> Result<()> {
    let mesh = Mesh::two_nodes("peer").pod("node-1", "shop/a").pod("node-2", "shop/b").lay_out()?;
    let (a, b) = (mesh.pod("shop/a"), mesh.pod("shop/b"));
    b.serve_peer(7001, &["echo"])?;
    b.serve_peer(7002, &["banner", "220 ready"])?;
    b.serve_peer(7003, &["sum"])?;
    b.serve_peer(7004, &["send", "3000000"])?;
    b.serve_peer(7005, &["reset"])?;
    for (port, behaviour, expected) in [
        (7001, &["echo", "1000000"][..], "1000000 bytes, all as sent"),
        (7001, &["many", "100"], "100 connections, each answered its own line"),
        (7001, &["half-close"], "after half-close: last words"),
        (7001, &["reset"], "reset by us after \"before the reset\""),
        (7002, &["hear"], "220 ready"),
        (7003, &["send", "1000000"], "1000000 bytes, all as sent"),
        (7004, &["receive", "3000000"], "3000000 bytes, all as sent"),
        (7004, &["receive", "3000000", "slow"], "3000000 bytes, all as sent"),
        (7005, &["reset"], "reset by peer"),
    ] {
        let seen = a.call_peer(&format!("{}:{port}", b.ipv4()), behaviour)?.success()?;
        assert_eq!(seen.trim_end(), expected, "{behaviour:?}");
    }
    Ok(())
}

#[test]
fn a_mesh_that_is_dropped_leaves_nothing() -> Result<()> {
    let id = format!("gone-{}", std::process::id());
    let layout = Layout::new(&id)?;
    let before = Ledger::of_host(&layout)?;
    let mesh = Mesh::two_nodes_called(&id).pod("node-1", "shop/web").lay_out()?;
    mesh.pod("shop/web").serve_http(8080, "here")?;
    assert!(!before.differences(&Ledger::of_host(&layout)?).is_empty());
    drop(mesh);
    assert_eq!(before.differences(&Ledger::of_host(&layout)?), Vec::<String>::new());
    Ok(())
}

#[test]
fn what_a_killed_run_left_goes_with_the_next() -> Result<()> {
    let mesh = Mesh::two_nodes("killed").pod("node-1", "shop/web").lay_out()?;
    mesh.pod("shop/web").serve_http(8080, "here")?;
    let layout = mesh.layout().clone();
    // Process 1 lives, but did not start at tick 1: a pid that has been used again.
    std::fs::write(layout.owner(), "1 1")?;
    std::mem::forget(mesh);
    cleanup::sweep_abandoned()?;
    assert!(!layout.run_dir().exists() && !layout.cgroup().exists());
    assert_eq!(cleanup::namespaces(&layout)?, Vec::<String>::new());
    Ok(())
}
