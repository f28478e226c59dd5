//! A kernel map that is full refuses, and says so; nothing goes around the proxy.

use anyhow::{Context, Result};
use mesh_harness::{mesh::READY, wait};
use mesh_stories::{python::python, shop};
use rustix::process::{Pid, Signal, kill_process};

/// Opens more connections than the map has room for, while nobody accepts, then uses them.
const MANY: &str = "
ends = []
streams = []
# Stopped, the agent accepts nothing, so every connection stays in the map until it goes on.
os.kill(int(sys.argv[2]), 19)
for _ in range(40):
    s = tcp('10.0.0.1'); s.connect(address(sys.argv[1])); streams.append(s)
os.kill(int(sys.argv[2]), 18)
for s in streams:
    try: ends.append(talk(s))
    except OSError as error: ends.append(errno.errorcode.get(error.errno, 'timeout'))
    except Exception: ends.append('closed')
print(ends.count('hello'), ends.count('ECONNRESET'), len(ends))
";

#[test]
fn more_connections_than_the_map_holds_are_refused_and_counted() -> Result<()> {
    let mesh = shop("full-maps").agent_flags(&["--max-connections", "16"]).start()?;
    let (frontend, web) = (mesh.pod("shop/frontend"), mesh.pod("shop/web"));
    web.serve_peer(8080, &["echo"])?;
    let pid = mesh.agent("node-1").pid().context("the agent runs")?;
    let agent = Pid::from_raw(i32::try_from(pid)?).context("a pid")?;
    let seen = python(frontend, MANY, &[&format!("{}:8080", web.ipv4()), &pid.to_string()]);
    kill_process(agent, Signal::CONT)?;
    assert_eq!(seen?.lines().last(), Some("16 24 40"));

    wait::until("status to count the refused ones", READY, || {
        let (status, _) = mesh.status("node-1")?;
        Ok((status["counters"]["publish_failed"] == 24).then_some(()))
    })
    .with_context(|| format!("{:?}", mesh.status("node-1")))?;
    // Every connection that reached the server came through the proxies.
    assert!(mesh.flows()?.iter().all(|flow| flow.field("security") == "mtls"));
    // And there is room again.
    assert_eq!(frontend.call_peer(&format!("{}:8080", web.ipv4()), &["echo", "10"])?.code, 0);
    Ok(())
}
