//! Everything that a mesh has in the kernel and its agents hold, before and after.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use mesh_harness::{Mesh, cgroup, ledger::Ledger, mesh::READY, process, wait};
use serde_json::Value;

/// Maps whose entries come with pods and connections and have to go with them.
const MAPS: [&str; 7] =
    ["PODS", "ORIGINAL_DESTINATIONS", "ADMITTED", "UPSTREAMS", "PASSED", "PROBES", "UNSERVED"];
/// A map that every program of a node uses, by which it is known whose that is.
const SHARED: &str = "COUNTERS";

/// What is there.
#[derive(Debug)]
pub struct Traces {
    pods: Vec<Ledger>,
    /// Links by the name of their program.
    links: BTreeMap<String, usize>,
    pins: BTreeSet<PathBuf>,
    entries: BTreeMap<PathBuf, usize>,
    descriptors: Vec<(String, BTreeMap<String, usize>)>,
}

impl Traces {
    /// What is there now.
    pub fn of(mesh: &Mesh) -> Result<Self> {
        let pins = pins(mesh)?;
        let pods = mesh.pods().map(|pod| Ledger::of_namespace(&pod.place.netns));
        let descriptors = mesh.nodes().iter().map(|node| descriptors(mesh, &node.name));
        Ok(Self {
            pods: pods.collect::<Result<_>>()?,
            links: links(&pins)?,
            entries: entries(&pins)?,
            pins,
            descriptors: descriptors.collect::<Result<_>>()?,
        })
    }

    /// How many links a program of this name has, on every node.
    pub fn links_of(&self, program: &str) -> usize {
        self.links.get(program).copied().unwrap_or_default()
    }

    /// Forgives what agents have opened since, which they keep for good.
    pub fn take_descriptors(&mut self, mesh: &Mesh) -> Result<()> {
        self.descriptors = Self::of(mesh)?.descriptors;
        Ok(())
    }

    /// Waits until nothing is there that was not before.
    pub fn are_all(&self, mesh: &Mesh) -> Result<()> {
        let mut left = Vec::new();
        // Draining and its grace, and connections that nobody has closed yet.
        wait::until("everything to be as before", 2 * READY, || {
            left = self.differences(&Self::of(mesh)?);
            Ok(left.is_empty().then_some(()))
        })
        .with_context(|| format!("left: {left:#?}"))
    }

    fn differences(&self, after: &Self) -> Vec<String> {
        let pods = self.pods.iter().zip(&after.pods);
        let mut left: Vec<_> = pods.flat_map(|(was, is)| was.differences(is)).collect();
        if self.links != after.links {
            left.push(format!("links were {:?}, are {:?}", self.links, after.links));
        }
        let pins = self.pins.symmetric_difference(&after.pins);
        left.extend(pins.map(|pin| format!("{} came or went", pin.display())));
        for (map, now) in &after.entries {
            let was = self.entries.get(map).copied().unwrap_or_default();
            if *now != was {
                left.push(format!("{}: {now} entries, before {was}", map.display()));
            }
        }
        for ((node, was), (_, is)) in self.descriptors.iter().zip(&after.descriptors) {
            for (kind, now) in is {
                let was = was.get(kind).copied().unwrap_or_default();
                if *now > was {
                    left.push(format!("{node}: {now} descriptors of {kind}, before {was}"));
                }
            }
        }
        left
    }
}

/// What the agents have pinned.
pub fn pins(mesh: &Mesh) -> Result<BTreeSet<PathBuf>> {
    let mut pins = BTreeSet::new();
    collect(&mesh.layout().bpffs(), &mut pins)?;
    Ok(pins)
}

/// What `bpftool --json` says.
pub fn bpftool(arguments: &[&str]) -> Result<Value> {
    // It fails where something that it lists, which may be another mesh's, vanishes meanwhile.
    wait::until("bpftool to list what is there", READY, || {
        let mut command = Command::new("bpftool");
        command.arg("--json").args(arguments);
        let seen = process::run(&mut command, READY)?;
        Ok(if seen.code == 0 { Some(serde_json::from_str(&seen.stdout)?) } else { None })
    })
}

/// How many BPF links hang at the mesh's cgroups and namespaces.
pub fn kernel_links(mesh: &Mesh) -> Result<usize> {
    let links = bpftool(&["link", "show"])?;
    let mut ours = Vec::new();
    for node in mesh.nodes() {
        let path = mesh.layout().node_cgroup(&node.name);
        ours.push(("cgroup_id", cgroup::id(&path)?));
    }
    for pod in mesh.pods() {
        ours.push(("netns_ino", fs::metadata(pod.place.netns.path())?.ino()));
    }
    let is_ours = |link: &&Value| ours.iter().any(|(key, id)| link[key] == *id);
    Ok(list(&links).filter(is_ours).count())
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

fn pinned<'a>(pins: &'a BTreeSet<PathBuf>, names: &[&str]) -> impl Iterator<Item = &'a PathBuf> {
    pins.iter().filter(move |pin| names.iter().any(|name| pin.ends_with(name)))
}

/// By their programs, as a link at a network device does not say in whose namespace that is.
fn links(pins: &BTreeSet<PathBuf>) -> Result<BTreeMap<String, usize>> {
    let mut shared = BTreeSet::new();
    for pin in pinned(pins, &[SHARED]) {
        let map = bpftool(&["map", "show", "pinned", &pin.to_string_lossy()])?;
        shared.insert(map["id"].as_u64().context("a map without an id")?);
    }
    let programs = bpftool(&["prog", "show"])?;
    let ours: BTreeMap<_, _> = list(&programs)
        .filter(|program| {
            let maps = &program["map_ids"];
            list(maps).filter_map(Value::as_u64).any(|map| shared.contains(&map))
        })
        .filter_map(|program| Some((program["id"].as_u64()?, program["name"].as_str()?)))
        .collect();
    let mut links = BTreeMap::new();
    for link in list(&bpftool(&["link", "show"])?) {
        if let Some(name) = link["prog_id"].as_u64().and_then(|id| ours.get(&id)) {
            *links.entry((*name).to_owned()).or_default() += 1;
        }
    }
    Ok(links)
}

fn entries(pins: &BTreeSet<PathBuf>) -> Result<BTreeMap<PathBuf, usize>> {
    let mut entries = BTreeMap::new();
    for pin in pinned(pins, &MAPS) {
        let dump = bpftool(&["map", "dump", "pinned", &pin.to_string_lossy()])?;
        entries.insert(pin.clone(), list(&dump).count());
    }
    Ok(entries)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// How many descriptors of each kind an agent holds: `socket`, `anon_inode:bpf-map` and so on.
fn descriptors(mesh: &Mesh, node: &str) -> Result<(String, BTreeMap<String, usize>)> {
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
    Ok((node.to_owned(), kinds))
}
