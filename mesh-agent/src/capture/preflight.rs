//! What must be there before anything is attached, and what to do about what is not.

use std::{
    fmt, fs,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock, statfs},
    mount::{MountFlags, mount},
};

use super::{CaptureConfig, cgroup, procfs};

/// The oldest kernel that capture works on: Debian 12's, a long-term kernel. Its newest piece,
/// errors of our choice from connect() (`bpf_set_retval`), came with 5.18.
const MINIMUM_KERNEL: (u32, u32) = (6, 1);
/// The first kernel whose programs at interfaces are links of their own (TCX), which a container
/// cannot take away.
const TCX_KERNEL: (u32, u32) = (6, 6);
/// Where a bpffs is mounted by custom.
const BPFFS: &str = "/sys/fs/bpf";
/// BPF_FS_MAGIC in the kernel's include/uapi/linux/magic.h.
const BPFFS_MAGIC: i64 = 0xcafe_4a11;
/// What the kernel knows about itself, which the loader reads.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// A capability that the agent needs: its bit, name and reason. What CAP_BPF allows is among what
/// CAP_SYS_ADMIN allows, without which nobody enters a namespace.
const CAPABILITIES: [(u32, &str, &str); 3] = [
    (12, "CAP_NET_ADMIN", "to attach to network namespaces and to set rules in pods"),
    (19, "CAP_SYS_PTRACE", "to open the network namespaces of pods' processes"),
    (21, "CAP_SYS_ADMIN", "to load kernel programs and to enter the network namespaces of pods"),
];

/// Something that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Capabilities, by name and what for.
    Capability(&'static str, &'static str),
    /// The kernel is too old: its release.
    Kernel(String),
    /// CONFIG_DEBUG_INFO_BTF.
    Btf,
    /// No cgroup v2, and why it cannot be mounted.
    Cgroup2(String),
    /// What was given with --cgroup is no directory of cgroup v2.
    NoCgroup(PathBuf),
    /// The agent's own cgroup, and the one that it shall attach at.
    OutsideCgroup(PathBuf, PathBuf),
    /// No bpffs at this directory, and why it cannot be mounted.
    Bpffs(PathBuf, String),
    /// The node's name cannot be part of a path.
    NodeName(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capability(name, reason) => {
                write!(f, "{name}, {reason}: run the agent as root, or add it to its container")
            }
            Self::Kernel(release) => {
                let (major, minor) = MINIMUM_KERNEL;
                write!(f, "Linux {major}.{minor} or later: this is {release}")
            }
            Self::Btf => write!(f, "{BTF}: the kernel needs CONFIG_DEBUG_INFO_BTF"),
            Self::Cgroup2(reason) => write!(
                f,
                "cgroup v2: the node's is mounted nowhere that the agent sees, and cannot be mounted: {reason}; mount the node's /sys/fs/cgroup into the agent's container, or boot with systemd.unified_cgroup_hierarchy=1"
            ),
            Self::NoCgroup(path) => {
                write!(f, "{}, a directory of cgroup v2: check --cgroup", path.display())
            }
            Self::OutsideCgroup(own, attach) => write!(
                f,
                "the agent in a cgroup under {}: it is in {}, where its own connections are not seen; move it or change --cgroup",
                attach.display(),
                own.display()
            ),
            Self::Bpffs(path, reason) => write!(
                f,
                "a bpffs at {}: `mount -t bpf bpf {BPFFS}` failed: {reason}",
                path.display()
            ),
            Self::NodeName(name) => write!(
                f,
                "a node name of lower-case letters, digits, dashes and dots: `{name}` is none"
            ),
        }
    }
}

/// Everything that is missing.
#[derive(Debug, thiserror::Error)]
#[error("this machine cannot capture pods yet. Missing:{}", .missing.iter().map(|one| format!("\n  - {one}")).collect::<String>())]
pub struct PreflightError {
    /// At least one thing.
    pub missing: Vec<Missing>,
}

/// Looks for everything at once, mounts a bpffs if that is all that is missing of it, and gives
/// the cgroup to attach at.
///
/// # Errors
/// Names each thing that is missing.
pub fn check(config: &CaptureConfig) -> Result<File, PreflightError> {
    let mut missing = Vec::new();
    if !is_node_name(&config.node) {
        missing.push(Missing::NodeName(config.node.clone()));
    }
    missing.extend(missing_capabilities(&read("/proc/self/status")));
    let release = release();
    if kernel_version(&release).is_none_or(|version| version < MINIMUM_KERNEL) {
        missing.push(Missing::Kernel(release));
    }
    if !Path::new(BTF).exists() {
        missing.push(Missing::Btf);
    }
    let cgroup = match cgroup::find(config.cgroup.as_deref()) {
        Ok(cgroup) => Some(cgroup),
        Err(reason) => {
            missing.push(reason);
            None
        }
    };
    // Mounting is pointless, and perhaps not wanted, where capture cannot start anyway.
    if missing.is_empty() {
        missing.extend(mount_bpffs(&config.bpffs).err());
        procfs::prepare();
    }
    match cgroup {
        Some(cgroup) if missing.is_empty() => Ok(cgroup),
        _ => Err(PreflightError { missing }),
    }
}

/// Whether the kernel can attach the guards of a pod's link.
pub fn has_tcx() -> bool {
    kernel_version(&release()).is_some_and(|version| version >= TCX_KERNEL)
}

fn release() -> String {
    read("/proc/sys/kernel/osrelease").trim_end().to_owned()
}

/// A missing file reads as empty, and what is looked for in it is then missing.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn is_node_name(name: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(allowed)
}

fn missing_capabilities(status: &str) -> Vec<Missing> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or_default();
    CAPABILITIES
        .into_iter()
        .filter(|(bit, _, _)| effective & (1 << bit) == 0)
        .map(|(_, name, reason)| Missing::Capability(name, reason))
        .collect()
}

/// Major and minor of a release such as `6.18.44-1-amd64`.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn mount_bpffs(directory: &Path) -> Result<(), Missing> {
    let error = |source: io::Error| Missing::Bpffs(directory.to_path_buf(), source.to_string());
    if is_bpffs(directory).map_err(error)? {
        return Ok(());
    }
    let target = if directory.starts_with(BPFFS) { Path::new(BPFFS) } else { directory };
    let parent = target.parent().unwrap_or(target);
    fs::create_dir_all(parent).map_err(error)?;
    // Agents that start together must not mount one bpffs over another.
    let lock = File::open(parent).map_err(error)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|errno| error(errno.into()))?;
    if is_bpffs(directory).map_err(error)? {
        return Ok(());
    }
    fs::create_dir_all(target).map_err(error)?;
    mount("bpf", target, "bpf", MountFlags::empty(), None).map_err(|errno| error(errno.into()))?;
    tracing::info!(path = %target.display(), "mounted a bpffs");
    if is_in_container() {
        tracing::warn!(
            "the bpffs is in this container alone and ends with it: while no agent runs, captured \
             pods are outside the mesh; mount one on the node: `mount -t bpf bpf {BPFFS}`"
        );
    }
    Ok(())
}

/// Whether others of the node have other mounts. Without the node's processes nobody knows.
fn is_in_container() -> bool {
    let mounts = |process| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    mounts("1").is_some_and(|node| mounts("self") != Some(node))
}

/// Whether `path`, or the nearest directory above it that exists, is on a bpffs.
fn is_bpffs(path: &Path) -> io::Result<bool> {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    Ok(statfs(existing)?.f_type == BPFFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_read_from_any_release() {
        assert_eq!(kernel_version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(kernel_version("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("6.1-rc1"), Some((6, 1)));
        assert_eq!(kernel_version("unknown"), None);
    }

    #[test]
    fn each_missing_capability_is_named() {
        assert_eq!(missing_capabilities("CapEff:\t000001ffffffffff\n"), []);
        let names: Vec<_> = missing_capabilities("CapEff:\t0000000000001000\n")
            .into_iter()
            .map(|missing| missing.to_string())
            .collect();
        assert_eq!(names.len(), 2);
        assert!(names[0].starts_with("CAP_SYS_PTRACE"), "{names:?}");
        assert!(names[1].starts_with("CAP_SYS_ADMIN"), "{names:?}");
    }

    #[test]
    fn node_names_cannot_leave_their_directory() {
        assert!(is_node_name("ip-10-0-0-1.example.org"));
        for name in ["", "..", ".x", "a/b", "a_b", "A"] {
            assert!(!is_node_name(name), "{name}");
        }
    }

    #[test]
    fn the_manifest_gives_every_capability_with_its_reason_and_no_other() {
        let manifest = include_str!("../../../deploy/base/agent.yaml");
        let added = manifest.lines().skip_while(|line| line.trim() != "add:").skip(1);
        let added = added.map(str::trim).take_while(|line| line.starts_with(['-', '#']));
        let given = added.filter(|line| line.starts_with('-')).count();
        assert_eq!(given, CAPABILITIES.len());
        for (_, name, reason) in CAPABILITIES {
            let short = name.strip_prefix("CAP_").expect("a capability");
            let line = manifest.lines().position(|line| line.trim() == format!("- {short}"));
            let line = line.unwrap_or_else(|| panic!("{name}, {reason}, is not in the manifest"));
            let above = manifest.lines().nth(line - 1).unwrap_or_default();
            assert!(above.trim().starts_with("# "), "{name} without a reason");
        }
    }
}
