//! However often pods come and go and daemons die: nothing is left behind, and no connection is
//! cut that has a right to live.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use mesh_harness::{
    Mesh,
    ledger::Ledger,
    mesh::READY,
    pattern::Pattern,
    process::{self, Background},
    wait,
};
use mesh_stories::{
    python::{PRELUDE, PYTHON},
    shop,
};

const ROUNDS: usize = 30;

/// Calls as fast as it can, whatever comes of it.
const TRAFFIC: &str = "
while True:
    try:
        s = tcp('10.0.0.1'); s.settimeout(2)
        s.connect(address(sys.argv[1])); talk(s)
    except OSError: time.sleep(0.01)
";

/// Talks on one connection until it is interrupted.
const HOLD: &str = "
s = tcp('10.0.0.1'); s.connect(address(sys.argv[1]))
while True:
    talk(s); print('alive', flush=True); time.sleep(0.1)
";

/// What the kernel and the agents hold for a mesh.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    links: usize,
    pins: BTreeSet<PathBuf>,
    entries: Vec<(String, usize)>,
}

impl Holdings {
    fn of(mesh: &Mesh) -> Result<Self> {
        let mut pins = BTreeSet::new();
        collect(&mesh.layout().bpffs(), &mut pins)?;
        let mut entries = Vec::new();
        for pin in &pins {
            let name = pin.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if ["PODS", "ORIGINAL_DESTINATIONS", "ADMITTED"].contains(&name.as_str()) {
                let dump = bpftool(&["map", "dump", "pinned", &pin.to_string_lossy()])?;
                entries.push((name, dump.as_array().map_or(0, Vec::len)));
            }
        }
        let links = bpftool(&["link", "show"])?;
        let namespaces: BTreeSet<_> = mesh
            .pods()
            .map(|pod| {
                Ok(std::os::unix::fs::MetadataExt::ino(&fs::metadata(pod.place.netns.path())?))
            })
            .collect::<Result<_>>()?;
        let is_ours = |link: &&serde_json::Value| {
            link["netns_ino"].as_u64().is_some_and(|number| namespaces.contains(&number))
        };
        let links = links.as_array().into_iter().flatten().filter(is_ours).count();
        Ok(Self { links, pins, entries })
    }
}

fn collect(directory: &Path, pins: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, pins)?;
        } else {
            pins.insert(path);
        }
    }
    Ok(())
}

fn bpftool(arguments: &[&str]) -> Result<serde_json::Value> {
    // It fails where something that it lists, which may be another mesh's, vanishes meanwhile.
    wait::until("bpftool to list what is there", READY, || {
        let mut command = Command::new("bpftool");
        command.arg("--json").args(arguments);
        let seen = process::run(&mut command, READY)?;
        Ok(if seen.code == 0 { Some(serde_json::from_str(&seen.stdout)?) } else { None })
    })
}

/// How many descriptors of each kind an agent holds: `socket`, `anon_inode:bpf-map` and so on.
fn descriptors(mesh: &Mesh, node: &str) -> Result<BTreeMap<String, usize>> {
    let pid = mesh.agent(node).pid().context("the agent runs")?;
    let mut kinds = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that was closed meanwhile has no target any more.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let target = target.to_string_lossy();
        let kind = target.split_once(":[").map_or(target.as_ref(), |(kind, _)| kind);
        // The kernel spells a new link and one that was opened from its pin differently.
        *kinds.entry(kind.replace('_', "-")).or_default() += 1;
    }
    Ok(kinds)
}

/// Waits until no pod is captured any more and nothing of any is there.
fn is_as_before(mesh: &Mesh, before: &Before) -> Result<()> {
    let mut left = Vec::new();
    // Draining and its grace, and connections that nobody has closed yet.
    wait::until("everything to be as before", 2 * READY, || {
        left.clear();
        let ledgers = ledgers(mesh)?;
        left.extend(before.ledgers.iter().zip(&ledgers).flat_map(|(a, b)| a.differences(b)));
        let holdings = Holdings::of(mesh)?;
        if holdings != before.holdings {
            left.push(format!("{:?}, now {holdings:?}", before.holdings));
        }
        for (node, before) in ["node-1", "node-2"].into_iter().zip(&before.descriptors) {
            for (kind, now) in descriptors(mesh, node)? {
                let count = before.get(&kind).copied().unwrap_or_default();
                if now > count {
                    left.push(format!("{node}: {now} descriptors of {kind}, before {count}"));
                }
            }
        }
        Ok(left.is_empty().then_some(()))
    })
    .with_context(|| format!("left: {left:#?}"))
}

fn ledgers(mesh: &Mesh) -> Result<Vec<Ledger>> {
    mesh.pods().map(|pod| Ledger::of_namespace(&pod.place.netns)).collect()
}

struct Before {
    ledgers: Vec<Ledger>,
    holdings: Holdings,
    descriptors: [BTreeMap<String, usize>; 2],
}

/// A program of shop/frontend that goes on; each with a log of its own.
fn start(mesh: &Mesh, name: &str, program: &str, to: &str) -> Result<Background> {
    let pod = mesh.pod("shop/frontend");
    let log = pod.files().join(format!("{name}.log"));
    pod.place.spawn(&[PYTHON, "-c", &format!("{PRELUDE}\n{program}"), to], &log)
}

/// Whether a held connection has answered again since it was last looked at.
fn is_alive(held: &mut Background) -> Result<()> {
    let answers = |held: &Background| held.log().matches("alive").count();
    let known = answers(held);
    wait::until("a held connection to answer", Duration::from_secs(10), || {
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
            Ok(((Holdings::of(mesh)?.links > 0) == meshed).then_some(()))
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
    let (ledgers_before, holdings) = (ledgers(&mesh)?, Holdings::of(&mesh)?);
    assert_eq!(holdings.links, 0, "nothing is captured yet");
    once_around(&mesh, &to)?;
    let before = Before {
        ledgers: ledgers_before,
        holdings,
        descriptors: [descriptors(&mesh, "node-1")?, descriptors(&mesh, "node-2")?],
    };

    let traffic = start(&mesh, "traffic", TRAFFIC, &to)?;
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
        is_alive(&mut unmeshed).with_context(|| format!("unmeshed, round {round}, seed {seed}"))?;
        match &mut held {
            Some(held) => {
                is_alive(held).with_context(|| format!("held, round {round}, seed {seed}"))?;
            }
            None => held = Some(start(&mesh, &format!("held-{round}"), HOLD, &to)?),
        }
    }
    drop((traffic, held));
    mesh.objects().apply_namespace("shop", false)?;
    is_as_before(&mesh, &before).with_context(|| format!("seed {seed}\n{}", mesh.last_words()))?;
    is_alive(&mut unmeshed)
}
