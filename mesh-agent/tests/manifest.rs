//! What deploy/base/agent.yaml may not lose: each was needed on a real node, and its loss would be
//! seen on one alone.

use mesh_common::names::TOKEN_AUDIENCE;

const MANIFEST: &str = include_str!("../../deploy/base/agent.yaml");
const CONTROLLER: &str = include_str!("../../deploy/base/controller.yaml");
const NAMESPACE: &str = include_str!("../../deploy/base/namespace.yaml");

/// The lines, without what is before and behind them.
fn lines(manifest: &str) -> Vec<&str> {
    manifest.lines().map(str::trim).collect()
}

/// What stands above each line that `is_meant`.
fn above(is_meant: impl Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
    let lines = lines(MANIFEST);
    lines.windows(2).filter(|pair| is_meant(pair[1])).map(|pair| (pair[1], pair[0])).collect()
}

#[test]
fn the_agent_sees_the_nodes_processes_network_and_mounts() {
    for setting in ["hostPID: true", "hostNetwork: true"] {
        let found = above(|line| line == setting);
        assert_eq!(found.len(), 1, "{setting}");
        assert!(found[0].1.starts_with("# "), "{setting} without a reason");
    }
    // What is mounted on the node later is seen by an agent that runs.
    for path in ["/sys/fs/bpf", "/sys/fs/cgroup"] {
        let mount = format!("mountPath: {path}");
        let at = lines(MANIFEST).iter().position(|line| *line == mount).expect("mounted");
        assert_eq!(lines(MANIFEST)[at + 1], "mountPropagation: HostToContainer", "{path}");
    }
    assert!(lines(MANIFEST).contains(&"type: spc_t"), "SELinux would forbid all of it");
}

#[test]
fn each_mount_has_a_reason() {
    let mounts = MANIFEST.lines().skip_while(|line| line.trim() != "volumeMounts:").skip(1);
    let mounts: Vec<_> = mounts.map(str::trim).take_while(|line| *line != "volumes:").collect();
    let names = mounts.iter().filter(|line| line.starts_with("- name: ")).count();
    assert_eq!(names, 6);
    for pair in mounts.windows(2).filter(|pair| pair[1].starts_with("- name: ")) {
        assert!(pair[0].starts_with("# "), "{} without a reason", pair[1]);
    }
    assert!(mounts[0].starts_with("# "), "{} without a reason", mounts[0]);
}

#[test]
fn the_token_is_for_the_controller_alone() {
    assert!(lines(MANIFEST).contains(&format!("audience: {TOKEN_AUDIENCE}").as_str()));
}

#[test]
fn workloads_go_where_their_image_runs() {
    for manifest in [MANIFEST, CONTROLLER] {
        for label in ["kubernetes.io/os: linux", "kubernetes.io/arch: amd64"] {
            assert!(lines(manifest).contains(&label), "{label}");
        }
    }
}

#[test]
fn the_namespace_says_in_each_mode_that_it_is_privileged() {
    for mode in ["enforce", "warn", "audit"] {
        let label = format!("pod-security.kubernetes.io/{mode}: privileged");
        assert!(lines(NAMESPACE).contains(&label.as_str()), "{label}");
    }
}
