//! What the machine has to be able to do, looked at before anything is installed or started.
//!
//! Every problem is named in one go, each with what to do about it.

use std::{fs, path::Path};

use anyhow::{Result, bail};
use mesh_harness::{cgroup, cleanup};

/// Debian 12's kernel, the oldest that is supported. The newest thing the kernel programs need is
/// `bpf_set_retval` (5.18); `bpf_get_netns_cookie` in sock_ops came with 5.15, cgroup.kill with
/// 5.14, sk_lookup with 5.9, links of cgroups with 5.7.
const MINIMUM_KERNEL: (u32, u32) = (6, 1);

/// Capabilities by number (linux/capability.h), of which containers often lack some.
const CAPABILITIES: [(u32, &str); 5] = [
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (21, "CAP_SYS_ADMIN"),
    (38, "CAP_PERFMON"),
    (39, "CAP_BPF"),
];

/// Fails with a list of everything that is missing.
pub fn check() -> Result<()> {
    let problems: Vec<_> =
        [user(), kernel(), btf(), cgroup2(), bpffs(), settings()].into_iter().flatten().collect();
    if problems.is_empty() {
        return Ok(());
    }
    bail!("this machine cannot run the mesh:\n  - {}", problems.join("\n  - "))
}

fn user() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some(
            "not root: loading kernel programs and making network namespaces needs it; run the \
             same command under sudo (with your PATH: sudo -E env \"PATH=$PATH\" cargo xtask …)"
                .to_owned(),
        );
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = missing_capabilities(&status);
    (!missing.is_empty()).then(|| {
        format!(
            "root without {}: run outside of the container, or start it with --privileged",
            missing.join(", ")
        )
    })
}

/// Of [`CAPABILITIES`], those that the text of `/proc/self/status` does not have.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective =
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default();
    let lacks = |(number, _): &(u32, _)| effective >> number & 1 == 0;
    CAPABILITIES.into_iter().filter(lacks).map(|(_, name)| name).collect()
}

fn kernel() -> Option<String> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let (major, minor) = MINIMUM_KERNEL;
    match version(&release) {
        Some(version) if version >= MINIMUM_KERNEL => None,
        _ => Some(format!(
            "kernel {release}: {major}.{minor} or newer is needed; on Debian 12 and later the \
             package linux-image-amd64 or linux-image-arm64 has one"
        )),
    }
}

/// Major and minor of a kernel release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn btf() -> Option<String> {
    (!Path::new("/sys/kernel/btf/vmlinux").exists()).then(|| {
        "no BTF (/sys/kernel/btf/vmlinux): socket storage needs it; take a kernel that is built \
         with CONFIG_DEBUG_INFO_BTF=y, as Debian's are"
            .to_owned()
    })
}

fn cgroup2() -> Option<String> {
    cgroup::root().err().map(|error| error.to_string())
}

fn bpffs() -> Option<String> {
    // Mounting takes root, which has its own line above.
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    cleanup::mount_bpffs().err().map(|error| {
        format!(
            "no BPF file system: {error:#}; mount -t bpf bpf /sys/fs/bpf, outside the container"
        )
    })
}

fn settings() -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    read_only_settings(&mounts).then(|| {
        "/proc/sys is read-only: pods' network settings cannot be changed; run outside of the \
         container, or start it with --privileged"
            .to_owned()
    })
}

/// Whether the text of `/proc/self/mounts` has /proc/sys mounted read-only over /proc.
fn read_only_settings(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some("/proc/sys")
            && fields.nth(1).is_some_and(|options| options.split(',').any(|o| o == "ro"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version("6.1.0-28-amd64"), Some((6, 1)));
        assert!(version("5.10.0").is_some_and(|version| version < MINIMUM_KERNEL));
        assert_eq!(version("strange"), None);
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert!(missing_capabilities("CapEff:\t000001ffffffffff\n").is_empty());
        assert_eq!(
            missing_capabilities("CapEff:\t00000000a80425fb\n"),
            ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_PERFMON", "CAP_BPF"]
        );
    }

    #[test]
    fn read_only_settings_are_seen() {
        assert!(read_only_settings("proc /proc/sys proc ro,nosuid 0 0\n"));
        assert!(!read_only_settings("proc /proc proc rw,nosuid 0 0\n"));
    }
}
