//! Where in cgroup v2 the node's programs are attached: at the root of everything that is the
//! node's, so that they see the sockets of its pods and those of its kubelet.
//!
//! Usually that is the root of cgroup v2. Where several nodes share a kernel, as kind's do, it is
//! the cgroup of the container that the node is: what the agent's own cgroup and that of the node's
//! first process have in common.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    fs::{Mode, OFlags, openat},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::{kubelet, preflight::Missing};

/// The directory to attach at, open: the one that is `wanted`, or the node's.
///
/// # Errors
/// Says what is missing.
pub fn find(wanted: Option<&Path>) -> Result<File, Missing> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (mountinfo, own) = (read("/proc/self/mountinfo"), read("/proc/self/cgroup"));
    let open = |path: &Path| File::open(path).map_err(|_| Missing::NoCgroup(path.to_path_buf()));
    match wanted {
        Some(path) => check(path, &mountinfo, &own).and_then(|()| open(path)),
        None => match node_root(&mountinfo, &own, &read("/proc/1/cgroup")) {
            Some(path) => open(&path),
            None => mount().map_err(|error| Missing::Cgroup2(error.to_string())),
        },
    }
}

/// What was asked for has to be of cgroup v2, and the agent has to be in it.
fn check(attach: &Path, mountinfo: &str, own: &str) -> Result<(), Missing> {
    let mounts = mounts(mountinfo);
    let mount = mounts.iter().filter(|mount| attach.starts_with(&mount.at));
    let mount = mount.max_by_key(|mount| mount.at.components().count());
    // A file that every directory of cgroup v2 has.
    let Some(mount) = mount.filter(|_| attach.join("cgroup.procs").exists()) else {
        return Err(Missing::NoCgroup(attach.to_path_buf()));
    };
    let Some(below) = own_position(own).below(&mount.root) else { return Ok(()) };
    let own = mount.at.join(below);
    let is_in = own.starts_with(attach);
    if is_in { Ok(()) } else { Err(Missing::OutsideCgroup(own, attach.to_path_buf())) }
}

/// The node's root by what this process sees: its mounts, its cgroups and those of process 1, as in
/// proc_pid_mountinfo(5) and cgroups(7). `None` where nothing is mounted that shows it.
fn node_root(mountinfo: &str, own: &str, init: &str) -> Option<PathBuf> {
    let mounts = mounts(mountinfo);
    let mount = mounts.into_iter().max_by_key(|mount| mount.root.height())?;
    let own = own_position(own);
    // Without the node's processes the first one is a pod's, or the agent itself.
    let init = Some(init).filter(|init| kubelet::pod_uid(init).is_none());
    let init = init.and_then(version_2).map(Position::new).filter(|init| *init != own);
    let Some(shared) = init.map(|init| own.shared(&init)) else { return Some(mount.at) };
    match shared.below(&mount.root) {
        Some(below) => Some(mount.at.join(below)),
        // A runtime's own mount, which shows a container no more than itself.
        None if own == mount.root && shared != own => None,
        None => Some(mount.at),
    }
}

/// cgroup v2, mounted for nobody else and for no longer than it is open. It shows what the node's
/// first process sees, who is in the node's cgroup namespace.
fn mount() -> io::Result<File> {
    let mount = || {
        if let Ok(namespace) = File::open("/proc/1/ns/cgroup") {
            let kind = LinkNameSpaceType::ControlGroup;
            move_into_link_name_space(namespace.as_fd(), Some(kind))?;
        }
        let filesystem = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&filesystem)?;
        let flags = MountAttrFlags::empty();
        let mount = fsmount(&filesystem, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat(&mount, ".", flags, Mode::empty())?.into())
    };
    // On a thread that ends: this one stays in its namespace.
    let mounted = thread::scope(|scope| {
        scope.spawn(mount).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    mounted
        .inspect(|_| tracing::info!("cgroup v2 is mounted nowhere here: uses a mount of its own"))
}

/// A mount of cgroup v2.
struct Mount {
    at: PathBuf,
    /// The cgroup that is shown there.
    root: Position,
}

/// Every mount that no later one at the same place hides.
fn mounts(mountinfo: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
        let mut fields = mount.split(' ').skip(3);
        let (Some(root), Some(at)) = (fields.next(), fields.next()) else { continue };
        mounts.retain(|mount| mount.at != Path::new(at));
        if filesystem.starts_with("cgroup2 ") {
            mounts.push(Mount { at: at.into(), root: Position::new(root) });
        }
    }
    mounts
}

/// The path of a process in cgroup v2: the line of hierarchy 0.
fn version_2(cgroups: &str) -> Option<&str> {
    cgroups.lines().find_map(|line| line.strip_prefix("0::"))
}

fn own_position(cgroups: &str) -> Position {
    Position::new(version_2(cgroups).unwrap_or("/"))
}

/// A cgroup as the kernel names it to who is in a cgroup namespace: so many steps up from that
/// one's root, and down from there by name.
#[derive(Debug, PartialEq, Eq)]
struct Position {
    up: usize,
    down: Vec<String>,
}

impl Position {
    fn new(path: &str) -> Self {
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let up = names.iter().take_while(|name| **name == "..").count();
        Self { up, down: names.into_iter().skip(up).map(str::to_owned).collect() }
    }

    /// The more is above, the less is below.
    fn height(&self) -> (usize, std::cmp::Reverse<usize>) {
        (self.up, std::cmp::Reverse(self.down.len()))
    }

    /// The lowest cgroup that both are in.
    fn shared(&self, other: &Self) -> Self {
        let up = self.up.max(other.up);
        // Steps up are only taken where the ways part.
        let same = self.up == other.up;
        let pairs =
            self.down.iter().zip(&other.down).take_while(|(one, other)| same && one == other);
        Self { up, down: pairs.map(|(name, _)| name.clone()).collect() }
    }

    /// The way down to this from `root`, where it is below and the way is known by name.
    fn below(&self, root: &Self) -> Option<PathBuf> {
        let down = (self.up == root.up).then_some(&self.down)?;
        let is_below = down.starts_with(&root.down);
        is_below.then(|| down.iter().skip(root.down.len()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "31 30 0:27 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n";
    const HYBRID: &str = "\
        30 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n\
        32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        31 30 0:27 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n";

    #[track_caller]
    fn assert_root(mountinfo: &str, own: &str, init: &str, expected: Option<&str>) {
        assert_eq!(node_root(mountinfo, own, init).as_deref(), expected.map(Path::new));
    }

    #[test]
    fn a_machine_is_its_own_root_in_every_version() {
        let init = "0::/init.scope\n";
        let root = Some("/sys/fs/cgroup");
        assert_root(UNIFIED, "0::/system.slice/agent.service\n", init, root);
        assert_root(UNIFIED, "0::/kubepods/besteffort/poda/1f\n", init, root);
        assert_root(UNIFIED, "0::/\n", "0::/\n", root);
        let unified = Some("/sys/fs/cgroup/unified");
        assert_root(HYBRID, "4:memory:/a\n0::/\n", "4:memory:/\n0::/\n", unified);
        assert_root(HYBRID, "4:memory:/kubepods/poda/1f\n0::/a\n", "0::/init.scope\n", unified);
        // Without the node's processes nothing is known but the mount.
        let own = "0::/kubepods/poda/1f\n";
        assert_root(UNIFIED, own, own, root);
        assert_root(UNIFIED, own, "0::/kubepods/podb/1f\n", root);
        assert_root(UNIFIED, own, "", root);
    }

    #[test]
    fn a_node_that_is_a_container_has_a_root_of_its_own() {
        // In the machine's cgroup namespace, with the machine's mount.
        let own = "0::/docker/9a/kubelet.slice/kubelet-kubepods.slice/1f\n";
        let root = Some("/sys/fs/cgroup/docker/9a");
        assert_root(UNIFIED, own, "0::/docker/9a/init.scope\n", root);
        // In the node's own, which is what kind does.
        let root = Some("/sys/fs/cgroup");
        assert_root(UNIFIED, "0::/kubelet/kubepods/poda/1f\n", "0::/init.scope\n", root);
        // The node's processes are the machine's, and so is the first.
        assert_root(UNIFIED, "0::/kubepods/poda/1f\n", "0::/..\n", root);
    }

    #[test]
    fn an_agent_in_a_cgroup_namespace_of_its_own_uses_the_nodes_mount() {
        let init = "0::/../../../init.scope\n";
        // What the runtime mounted, and the node's over it.
        let over = "\
            40 39 0:27 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n\
            41 39 0:27 /../../.. /sys/fs/cgroup rw master:9 - cgroup2 cgroup2 rw\n";
        assert_root(over, "0::/\n", init, Some("/sys/fs/cgroup"));
        let hybrid = "\
            40 39 0:27 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n\
            41 39 0:27 /../../.. /host/unified rw master:9 - cgroup2 cgroup2 rw\n";
        assert_root(hybrid, "0::/\n", init, Some("/host/unified"));
        // Only its own: there no pod would be caught.
        let own = "40 39 0:27 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_root(own, "0::/\n", init, None);
    }

    #[test]
    fn cgroup2_that_is_mounted_nowhere_has_to_be_mounted() {
        assert_root("31 30 0:27 / /sys/fs/cgroup rw - cgroup cgroup rw\n", "", "", None);
        let hidden = format!("{UNIFIED}32 30 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n");
        assert_root(&hidden, "0::/\n", "0::/init.scope\n", None);
    }
}
