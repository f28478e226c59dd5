//! Where the programs are attached, on a machine where cgroup v2 is not mounted any more.

use std::{env, fs, os::unix::fs::MetadataExt, process::Command};

use mesh_agent::capture::cgroup;

/// Set for the half of the test that runs in a mount namespace of its own: the root's inode.
const INSIDE: &str = "NODEMESH_TEST_INSIDE";
/// Lists the mounts of cgroup v2, the last first.
const MOUNTS: &str = "awk '$3 == \"cgroup2\" { print $2 }' /proc/self/mounts | tac";

#[test]
fn cgroup2_that_is_mounted_nowhere_is_mounted_for_the_agent_alone() {
    let root = cgroup::find(None).unwrap_or_else(|missing| panic!("{missing}"));
    let inode = root.metadata().expect("open").ino().to_string();
    let Some(expected) = env::var_os(INSIDE) else {
        let this = env::current_exe().expect("this test");
        let again =
            "exec \"$0\" --exact cgroup2_that_is_mounted_nowhere_is_mounted_for_the_agent_alone";
        let script = format!("for at in $({MOUNTS}); do umount $at || exit 3; done; {again}");
        let status = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .arg(this)
            .env(INSIDE, inode)
            .status()
            .expect("unshare of util-linux");
        assert!(status.success(), "see above");
        return;
    };
    assert_eq!(expected, *inode, "the same cgroup");
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    assert!(!mounts.contains("cgroup2"), "nothing is left behind: {mounts}");
}
