//! A kernel map that is full refuses, and says so; nothing goes around the proxy.

use anyhow::{Context, Result};
use mesh_harness::{Mesh, mesh::READY, wait};
use mesh_stories::{
    python::{python, spawn_python},
    shop,
};
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

/// Opens as many connections as it is told and holds them.
const HOLD: &str = "
held = []
for _ in range(int(sys.argv[2])):
    s = tcp('10.0.0.1'); s.connect(address(sys.argv[1])); talk(s); held.append(s)
time.sleep(600)
";

/// Every map with a limit.
const MAPS: [&str; 7] =
    ["PODS", "PROBES", "ORIGINAL_DESTINATIONS", "ADMITTED", "UPSTREAMS", "PASSED", "UNSERVED"];

/// The value of a metric about a map.
fn of_map(mesh: &Mesh, node: &str, metric: &str, map: &str) -> Result<u64> {
    let url = "http://127.0.0.1:15020/metrics";
    let text = mesh.node(node).place.run(&["curl", "--silent", "--fail", url])?.success()?;
    let start = format!("nodemesh_kernel_map_{metric}{{map=\"{map}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&start));
    Ok(value.with_context(|| format!("{start} is not in\n{text}"))?.parse()?)
}

/// The problems that status has with a map, if it fails for them.
fn problems_with(mesh: &Mesh, node: &str, map: &str) -> Result<Vec<String>> {
    let (status, code) = mesh.status(node)?;
    let problems = status["problems"].as_array().context("problems")?;
    let problems = problems.iter().filter_map(|it| it.as_str()).map(str::to_owned);
    Ok(problems.filter(|it| code == 1 && it.contains(map)).collect())
}

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
    let overflow = "no room in kernel map ORIGINAL_DESTINATIONS";
    let problems = problems_with(&mesh, "node-1", overflow)?;
    assert!(problems.iter().any(|it| it.contains("--max-connections")), "{problems:?}");
    let log = mesh.agent("node-1").last_words();
    assert_eq!(log.lines().filter(|line| line.contains(overflow)).count(), 1, "{log}");
    // Every connection that reached the server came through the proxies.
    assert!(mesh.flows()?.iter().all(|flow| flow.field("security") == "mtls"));
    // And there is room again.
    assert_eq!(frontend.call_peer(&format!("{}:8080", web.ipv4()), &["echo", "10"])?.code, 0);
    Ok(())
}

#[test]
fn how_full_a_map_is_is_a_metric_and_a_problem_before_it_is_too_late() -> Result<()> {
    let flags = ["--max-connections", "20", "--max-pods", "30", "--max-unserved", "40"];
    let mesh = shop("filling-maps").agent_flags(&flags).start()?;
    let web = mesh.pod("shop/web");
    web.serve_peer(8080, &["echo"])?;
    let capacities = [30, 30 * 64, 20, 20, 20, 20, 40];
    for (map, capacity) in MAPS.into_iter().zip(capacities) {
        assert_eq!(of_map(&mesh, "node-2", "capacity", map)?, capacity, "{map}");
    }
    wait::until("the pod to be counted", READY, || {
        Ok((of_map(&mesh, "node-2", "entries", "PODS")? == 1).then_some(()))
    })?;
    assert_eq!(problems_with(&mesh, "node-2", "kernel map")?, [""; 0]);

    // Plaintext of a caller outside the mesh is listed in PASSED: 18 of 20 are 90 %.
    let place = format!("{}:8080", web.ipv4());
    let holder = spawn_python(mesh.pod("legacy/client"), HOLD, &[&place, "18"])?;
    wait::until("status to warn", READY, || {
        let problems = problems_with(&mesh, "node-2", "PASSED")?;
        let told = "PASSED is almost full, 18 entries of 20";
        let is_told = |it: &String| it.contains(told) && it.contains("--max-connections");
        Ok(problems.iter().any(is_told).then_some(()))
    })?;
    assert_eq!(of_map(&mesh, "node-2", "entries", "PASSED")?, 18);
    drop(holder);
    wait::until("status to be well again", READY, || {
        Ok((mesh.status("node-2")?.1 == 0).then_some(()))
    })?;
    assert_eq!(of_map(&mesh, "node-2", "entries", "PASSED")?, 0);
    let log = mesh.agent("node-2").last_words();
    assert_eq!(log.lines().filter(|line| line.contains("PASSED is almost full")).count(), 1);
    Ok(())
}
