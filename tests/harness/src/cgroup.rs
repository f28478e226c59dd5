//! The cgroup of a mesh: a directory a node and below it one a pod, where hooks are attached and
//! by which everything a mesh started is found again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::wait;

/// How long killed processes may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

/// Where version 2 of cgroups is mounted.
pub fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    mount_point(&mounts).context(
        "cgroup2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup (or below it, at unified)",
    )
}

/// The first cgroup2 mount in the text of `/proc/self/mountinfo`.
fn mount_point(mounts: &str) -> Option<PathBuf> {
    // Fields, the fifth being the mount point, then " - ", then the file system's type.
    mounts.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| fields.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// Makes the directory of a cgroup and its parents.
pub fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("making cgroup {}", path.display()))
}

/// The id by which the kernel and bpftool know a cgroup: the inode of its directory.
pub fn id(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata(path).with_context(|| format!("cgroup {}", path.display()))?.ino())
}

/// Kills everything in a cgroup and below it and takes its directories away; fine if absent.
pub fn remove(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    // cgroup.kill (kernel 5.14) misses nobody who forks meanwhile, which a loop over pids would.
    fs::write(path.join("cgroup.kill"), "1")
        .with_context(|| format!("killing the processes of {}", path.display()))?;
    wait::until(&format!("{} to empty", path.display()), DEATH, || match remove_directories(path) {
        Ok(()) => Ok(Some(())),
        Err(error) if error.raw_os_error() == Some(EBUSY) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("removing {}", path.display())),
    })
}

/// rmdir of a cgroup that still has processes, dying ones included.
const EBUSY: i32 = rustix::io::Errno::BUSY.raw_os_error();

fn remove_directories(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_directories(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_mount_is_found_among_legacy_ones() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
            40 30 0:36 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_point("31 30 0:27 / /x rw - cgroup cgroup rw,cpu\n"), None);
    }
}
