//! What Prometheus reads of connections.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mesh_harness::{Mesh, mesh::READY, wait};
use mesh_stories::{
    python::{python, spawn_python},
    shop,
};

/// The promise: bytes are counted within this.
const PROMISE: Duration = Duration::from_secs(10);
/// What a busy machine may take to run what is due, and this test to see it.
const SLACK: Duration = Duration::from_secs(2);

/// Sends some bytes, hears them again, and keeps the connection.
const STAY: &str = "
s = tcp('10.0.0.1'); s.connect(address(sys.argv[1]))
print('met', len(talk(s, b'x' * 1000)))
time.sleep(600)
";

/// Sends a few more and ends.
const VISIT: &str = "
s = tcp('10.0.0.1'); s.connect(address(sys.argv[1]))
print('met', len(talk(s, b'x' * 10)))
";

/// The sum of a metric over the series that have all of `labels`.
fn sum(mesh: &Mesh, node: &str, metric: &str, labels: &[&str]) -> Result<u64> {
    let url = "http://127.0.0.1:15020/metrics";
    let seen = mesh.node(node).place.run(&["curl", "-s", "--max-time", "10", url])?.success()?;
    let is_meant = |line: &&str| {
        line.strip_prefix(metric).is_some_and(|rest| rest.starts_with('{'))
            && labels.iter().all(|label| line.contains(label))
    };
    let values = seen.lines().filter(is_meant).map(|line| {
        let value = line.rsplit(' ').next().context("a value")?;
        value.parse::<u64>().with_context(|| line.to_owned())
    });
    values.sum()
}

#[test]
fn bytes_of_a_connection_are_counted_while_it_lives_and_once() -> Result<()> {
    let mesh = shop("live-bytes").start()?;
    let (frontend, batch) = (mesh.pod("shop/frontend"), mesh.pod("shop/batch"));
    let mut held = Vec::new();
    for server in [mesh.pod("shop/web"), batch] {
        server.serve_peer(8080, &["echo"])?;
        let mut stay = spawn_python(frontend, STAY, &[&format!("{}:8080", server.ipv4())])?;
        stay.wait_for_line("met 1000", READY).with_context(|| mesh.last_words())?;
        held.push(stay);
    }
    let met = Instant::now();
    // The caller's proxy and the callee's, and the one of two pods of its node.
    let seen = [
        ("node-1", "reporter=\"source\"", "security=\"mtls\""),
        ("node-2", "reporter=\"destination\"", "security=\"mtls\""),
        ("node-1", "reporter=\"source\"", "security=\"local\""),
    ];
    let bytes = ["nodemesh_sent_bytes_total", "nodemesh_received_bytes_total"];
    for (node, reporter, security) in seen {
        for metric in bytes {
            wait::until(&format!("{metric} of {node} {security} to grow"), READY, || {
                Ok((sum(&mesh, node, metric, &[reporter, security])? == 1000).then_some(()))
            })
            .with_context(|| mesh.last_words())?;
        }
        let closed = sum(&mesh, node, "nodemesh_connections_closed_total", &[security])?;
        assert_eq!(closed, 0, "both connections live");
    }
    let took = met.elapsed();
    assert!(took < PROMISE + SLACK, "it took {took:?}");

    for server in [mesh.pod("shop/web"), batch] {
        let met = python(frontend, VISIT, &[&format!("{}:8080", server.ipv4())])?;
        assert_eq!(met, "met 10");
    }
    drop(held);
    for (node, reporter, security) in seen {
        wait::until(&format!("connections of {node} to end"), READY, || {
            let closed = "nodemesh_connections_closed_total";
            Ok((sum(&mesh, node, closed, &[reporter, security])? == 2).then_some(()))
        })
        .with_context(|| mesh.last_words())?;
        for metric in bytes {
            assert_eq!(sum(&mesh, node, metric, &[reporter, security])?, 1010, "{metric} {node}");
        }
    }
    let is_whole = |flow: &&mesh_harness::Flow| {
        flow.number("bytes_sent") == 1000 && flow.number("bytes_received") == 1000
    };
    assert_eq!(mesh.flows()?.iter().filter(is_whole).count(), seen.len());
    Ok(())
}
