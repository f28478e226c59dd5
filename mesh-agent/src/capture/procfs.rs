//! /proc/sys of a container, which runtimes mount read-only.

use std::path::Path;

use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    io,
    mount::{MountFlags, mount_remount},
};

/// What container runtimes mount read-only over /proc.
const SETTINGS: &str = "/proc/sys";

/// Makes the settings writable in this mount namespace, as [`make_writable`] does. What cannot be is
/// logged: settings that are as they should be need no writing, so it may not matter.
pub fn prepare() {
    if let Err(error) = make_writable() {
        tracing::warn!(%error, "/proc/sys is read-only, and cannot be mounted otherwise");
    }
}

/// Makes the settings writable in this mount namespace; whether they were not. Outside, and for
/// other containers, nothing changes. It takes CAP_SYS_ADMIN, which the agent has anyway, and an
/// AppArmor profile that lets it mount.
///
/// # Errors
/// Where the kernel or a security module refuses.
pub fn make_writable() -> io::Result<bool> {
    let settings = Path::new(SETTINGS);
    if !statvfs(settings)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(false);
    }
    // What is left out would be taken away: the flags of /proc itself stay.
    let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_remount(settings, flags, c"")?;
    Ok(true)
}
