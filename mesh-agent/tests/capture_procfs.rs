//! Settings in a container whose runtime has mounted them read-only.

use std::{env, fs, process::Command};

use mesh_agent::capture::procfs;

/// Set for the half of the test that runs in a mount namespace of its own.
const INSIDE: &str = "NODEMESH_TEST_INSIDE";
/// A setting that writing back as it is does not change.
const SETTING: &str = "/proc/sys/net/ipv4/tcp_fwmark_accept";

#[test]
fn settings_that_are_mounted_read_only_can_be_written() {
    if env::var_os(INSIDE).is_none() {
        let lay_out = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && \
                       exec \"$0\" --exact settings_that_are_mounted_read_only_can_be_written";
        let status = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", lay_out])
            .arg(env::current_exe().expect("this test"))
            .env(INSIDE, "1")
            .status()
            .expect("unshare of util-linux");
        assert!(status.success(), "see above");
        return;
    }
    let value = fs::read_to_string(SETTING).expect("a setting");
    fs::write(SETTING, &value).expect_err("read-only");
    assert!(procfs::make_writable().expect("may mount"));
    fs::write(SETTING, &value).expect("writable");
    assert!(!procfs::make_writable().expect("no need any more"));
}
