//! Taking a mesh away: by its id, whether this process made it or one that was killed.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::Path,
};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

use crate::{
    cgroup,
    layout::{BPFFS, Layout, PREFIX, RUN},
    link::ip,
    netns,
};

/// Held while a mesh is claimed or abandoned ones are looked for.
const LOCK: &str = "/run/nodemesh-harness.lock";

/// What the owner file of a mesh says that is to outlive its maker.
const KEPT: &str = "kept";

/// Takes away what an earlier mesh of this id left, kept or crashed.
///
/// # Errors
/// Where that mesh is in use.
pub fn make_room(layout: &Layout) -> Result<()> {
    if let Some(owner) = living_owner(layout) {
        bail!("mesh {} is in use by process {owner}", layout.id());
    }
    sweep(layout)
}

/// Makes this process the owner of the mesh, of which there must be no trace of an earlier one
/// that is still in use.
pub fn claim(layout: &Layout) -> Result<()> {
    let _lock = lock()?;
    make_room(layout)?;
    fs::create_dir_all(layout.run_dir())
        .with_context(|| format!("making {}", layout.run_dir().display()))?;
    let own = std::process::id();
    fs::write(layout.owner(), format!("{own} {}", started(own).unwrap_or_default()))?;
    mount_bpffs()
}

/// Lets a mesh outlive its maker.
pub fn disown(layout: &Layout) -> Result<()> {
    fs::write(layout.owner(), KEPT).context("writing the owner file")
}

/// Takes away every mesh whose maker is gone.
pub fn sweep_abandoned() -> Result<()> {
    let _lock = lock()?;
    for entry in fs::read_dir(RUN)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(id) = name.strip_prefix(PREFIX) else { continue };
        let layout = Layout::new(id)?;
        let Ok(owner) = fs::read_to_string(layout.owner()) else { continue };
        if owner != KEPT && living_owner(&layout).is_none() {
            sweep(&layout)?;
        }
    }
    Ok(())
}

/// Takes away everything that carries the id of the mesh: processes first, then what they used.
pub fn sweep(layout: &Layout) -> Result<()> {
    cgroup::remove(&layout.cgroup())?;
    remove_tree(&layout.bpffs())?;
    for name in namespaces(layout)? {
        ip(&format!("netns del {name}"))?;
    }
    remove_tree(&layout.run_dir())
}

/// The names of the mesh's network namespaces that exist.
pub fn namespaces(layout: &Layout) -> Result<Vec<String>> {
    let entries = match fs::read_dir(netns::DIRECTORY) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(netns::DIRECTORY),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(&layout.netns_prefix()) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Mounts the BPF file system where nobody has yet.
pub fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
        return Ok(());
    }
    rustix::mount::mount("bpf", BPFFS, "bpf", rustix::mount::MountFlags::empty(), None)
        .with_context(|| format!("mounting the BPF file system at {BPFFS}"))
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn lock() -> Result<File> {
    let file = File::create(LOCK).with_context(|| format!("{LOCK} (are you root?)"))?;
    flock(&file, FlockOperation::LockExclusive).context(LOCK)?;
    Ok(file)
}

/// The process that owns a mesh, if it lives.
fn living_owner(layout: &Layout) -> Option<u32> {
    let text = fs::read_to_string(layout.owner()).ok()?;
    let (pid, start) = text.split_once(' ')?;
    let pid = pid.parse().ok()?;
    (started(pid)? == start).then_some(pid)
}

/// When a process started, in ticks since boot: with the pid, what tells it from a later one.
fn started(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, in parentheses, may hold blanks; start time is the 22nd of proc(5).
    let after_name = stat.rsplit_once(") ")?.1;
    after_name.split(' ').nth(19).map(str::to_owned)
}
