//! However often pods come and go and daemons die: nothing is left behind, and no connection is
//! cut that has a right to live.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use mesh_harness::{
    Mesh,
    mesh::READY,
    pattern::Pattern,
    process::{self, Background},
    wait,
};
use mesh_stories::{
    python::{PRELUDE, PYTHON},
    shop,
    traces::Traces,
};

const ROUNDS: usize = 30;

/// Calls all the time, whatever comes of it, and says now and then that a call was answered. No
/// faster than ports that were in use come back, which takes a minute.
const TRAFFIC: &str = "
told = 0
while True:
    try:
        with tcp('10.0.0.1') as s:
            s.settimeout(2); s.connect(address(sys.argv[1])); talk(s)
        if time.monotonic() > told + 0.1: told = time.monotonic(); print('alive', flush=True)
    # Also the end of what was under way when an agent was killed.
    except Exception: pass
    time.sleep(0.005)
";

/// Talks on one connection until it is interrupted.
const HOLD: &str = "
s = tcp('10.0.0.1'); s.connect(address(sys.argv[1]))
while True:
    talk(s); print('alive', flush=True); time.sleep(0.1)
";

/// A program of shop/frontend that goes on; each with a log of its own.
fn start(mesh: &Mesh, name: &str, program: &str, to: &str) -> Result<Background> {
    let pod = mesh.pod("shop/frontend");
    let log = pod.files().join(format!("{name}.log"));
    pod.place.spawn(&[PYTHON, "-c", &format!("{PRELUDE}\n{program}"), to], &log)
}

/// Whether a program has had another answer since it was last looked at.
fn is_alive(held: &mut Background) -> Result<()> {
    let answers = |held: &Background| held.log().matches("alive").count();
    let known = answers(held);
    wait::until("a program to have an answer", Duration::from_secs(10), || {
        if let Some(code) = held.ended()? {
            anyhow::bail!("it ended with {code}");
        }
        Ok((answers(held) > known).then_some(()))
    })
    .with_context(|| process::tail(&held.log(), 8))
}

/// Into the mesh, one call, out again: an agent opens what it keeps for good.
fn once_around(mesh: &Mesh, to: &str) -> Result<()> {
    for meshed in [true, false] {
        mesh.objects().apply_namespace("shop", meshed)?;
        wait::until("pods to come or go", READY, || {
            Ok(((Traces::of(mesh)?.links_of("inbound") > 0) == meshed).then_some(()))
        })?;
        is_alive(&mut start(mesh, "first", HOLD, to)?)?;
    }
    // Drained pods are served for two seconds more.
    std::thread::sleep(Duration::from_secs(5));
    Ok(())
}

#[test]
fn big_thirty_rounds_leave_nothing_behind_and_cut_nothing() -> Result<()> {
    let seed = match std::env::var("NODEMESH_SEED") {
        Ok(seed) => seed.parse().context("NODEMESH_SEED is a number")?,
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    eprintln!("NODEMESH_SEED={seed}");
    let mut dice = Pattern::new(seed);
    let mut throw = |sides: u8| {
        let mut byte = [0];
        dice.fill(&mut byte);
        byte[0] % sides
    };

    let mesh = shop("rounds").lay_out()?;
    mesh.objects().apply_namespace("shop", false)?;
    mesh.pod("shop/web").serve_peer(8080, &["echo"])?;
    let to = format!("{}:8080", mesh.pod("shop/web").ipv4());
    let mut unmeshed = start(&mesh, "unmeshed", HOLD, &to)?;
    is_alive(&mut unmeshed)?;
    mesh.start_daemons()?;
    let mut before = Traces::of(&mesh)?;
    for program in ["inbound", "guard_pod", "guard_host"] {
        assert_eq!(before.links_of(program), 0, "nothing is captured yet");
    }
    once_around(&mesh, &to)?;
    before.take_descriptors(&mesh)?;

    let mut traffic = start(&mesh, "traffic", TRAFFIC, &to)?;
    let mut meshed = false;
    let mut held: Option<Background> = None;
    for round in 0..ROUNDS {
        let node = ["node-1", "node-2"][usize::from(throw(2))];
        let action = throw(6);
        eprintln!("round {round}: action {action} on {node}, meshed {meshed}");
        match action {
            0..=2 => {
                meshed = !meshed;
                mesh.objects().apply_namespace("shop", meshed)?;
            }
            // Connections through a proxy end with it; that is all that may.
            3 | 4 => {
                held = None;
                if action == 3 {
                    mesh.agent(node).kill();
                } else {
                    mesh.agent(node).stop()?;
                }
                mesh.agent(node).start()?;
                mesh.wait_ready(node)?;
            }
            _ => {
                mesh.controller().kill();
                mesh.start_controller()?;
            }
        }
        std::thread::sleep(Duration::from_millis(u64::from(throw(200)) * 5));
        // Every daemon runs, and nothing changes any more.
        for (what, program) in [("unmeshed", &mut unmeshed), ("traffic", &mut traffic)] {
            is_alive(program).with_context(|| {
                format!("{what}, round {round}, seed {seed}\n{}", mesh.last_words())
            })?;
        }
        match &mut held {
            Some(held) => {
                is_alive(held).with_context(|| format!("held, round {round}, seed {seed}"))?;
            }
            None => held = Some(start(&mesh, &format!("held-{round}"), HOLD, &to)?),
        }
    }
    drop((traffic, held));
    mesh.objects().apply_namespace("shop", false)?;
    before.are_all(&mesh).with_context(|| format!("seed {seed}\n{}", mesh.last_words()))?;
    is_alive(&mut unmeshed)
}
