//! How kubelets name the cgroups of pods.
//!
//! With the systemd driver `kubepods-burstable-pod<uid>.slice`, the uid's dashes as underscores;
//! with the cgroupfs driver `pod<uid>` below `kubepods`, `burstable` or `besteffort`. Where a node
//! is a container itself, as in kind, more comes before; and a process in a cgroup namespace of
//! its own sees `..` in place of what it shares with another.

/// The uid of the pod that a process is in, by the content of its `/proc/PID/cgroup`: a line for
/// each hierarchy of version 1, and `0::PATH` for version 2. `None` for a process of no pod, and
/// for one that hierarchies disagree about.
pub fn pod_uid(cgroups: &str) -> Option<String> {
    // Controllers are separated by commas and have no colons; paths may.
    let paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut uids = paths.filter_map(uid_in);
    let uid = uids.next()?;
    uids.all(|other| other == uid).then_some(uid)
}

/// The outermost name in a path that is a pod's: what containers make below their own cgroup may
/// be called anything.
fn uid_in(path: &str) -> Option<String> {
    let mut above = "";
    for name in path.split('/').filter(|name| !name.is_empty()) {
        if let Some(uid) = of_slice(name).or_else(|| of_directory(above, name)) {
            return Some(uid);
        }
        above = name;
    }
    None
}

fn of_slice(name: &str) -> Option<String> {
    // A runtime with the other driver than the kubelet's takes `SLICE:PREFIX:ID` for one name.
    let slice = name.split(':').next().unwrap_or(name);
    let (before, uid) = slice.strip_suffix(".slice")?.rsplit_once("-pod")?;
    let is_kubelets = before.split('-').any(|part| part == "kubepods");
    (is_kubelets && !uid.is_empty()).then(|| uid.replace('_', "-"))
}

fn of_directory(above: &str, name: &str) -> Option<String> {
    let uid = name.strip_prefix("pod")?;
    let is_kubelets = matches!(above, "kubepods" | "burstable" | "besteffort" | "..");
    (is_kubelets && !uid.is_empty()).then(|| uid.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0c8c1d3e-51a2-4b0e-9d6b-3f4a5b6c7d8e";

    /// `{}` stands for the uid, `{_}` for the uid as systemd's names have it.
    #[track_caller]
    fn assert_uid(line: &str, expected: Option<&str>) {
        let line = line.replace("{}", UID).replace("{_}", &UID.replace('-', "_"));
        assert_eq!(pod_uid(&line).as_deref(), expected, "{line}");
    }

    #[test]
    fn both_drivers_and_both_versions_are_understood() {
        for line in [
            // systemd, version 2: burstable, guaranteed, and a container's own cgroup below.
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{_}.slice/cri-containerd-1f.scope\n",
            "0::/kubepods.slice/kubepods-pod{_}.slice/crio-1f.scope/container/init.scope\n",
            // cgroupfs.
            "0::/kubepods/besteffort/pod{}/1f\n",
            "0::/kubepods/pod{}/1f\n",
            // kind, both drivers, seen from the machine and from within the node.
            "0::/docker/9a/kubelet/kubepods/burstable/pod{}/1f\n",
            "0::/docker/9a/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{_}.slice/cri-containerd-1f.scope\n",
            "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{_}.slice/1f\n",
            // From a cgroup namespace of the agent's own.
            "0::/../../kubepods-besteffort-pod{_}.slice/cri-containerd-1f.scope\n",
            "0::/../../pod{}/1f\n",
            "0::/../../../burstable/pod{}/1f\n",
            // Version 1, hybrid, and a kubelet and a runtime with different drivers.
            "11:memory:/kubepods/burstable/pod{}/1f\n4:cpu,cpuacct:/kubepods/burstable/pod{}/1f\n1:name=systemd:/kubepods/burstable/pod{}/1f\n",
            "3:pids:/kubepods.slice/kubepods-pod{_}.slice:cri-containerd:1f\n",
            "2:pids:/kubepods/pod{}/1f\n0::/\n",
            "2:pids:/\n0::/kubepods/pod{}/1f\n",
        ] {
            assert_uid(line, Some(UID));
        }
    }

    #[test]
    fn a_static_pod_has_a_hash_for_a_uid() {
        let line = "0::/kubepods.slice/kubepods-pod0f3c2d1e0f3c2d1e0f3c2d1e0f3c2d1e.slice/1f\n";
        assert_uid(line, Some("0f3c2d1e0f3c2d1e0f3c2d1e0f3c2d1e"));
    }

    #[test]
    fn what_is_no_pods_cgroup_is_left_alone() {
        for line in [
            "",
            "0::/\n",
            "0::/system.slice/containerd.service\n",
            "0::/kubepods.slice/kubepods-burstable.slice\n",
            "0::/machine.slice/libpod-1f.scope\n",
            "0::/system.slice/podman-pod1.slice\n",
            "0::/user.slice/pods/pod1\n",
            "0::/kubepods/pod\n",
            "no cgroups\n",
            // Moved in one hierarchy only.
            "2:pids:/kubepods/pod{}/1f\n0::/kubepods/podother/1f\n",
        ] {
            assert_uid(line, None);
        }
    }

    #[test]
    fn what_a_container_makes_below_its_own_is_not_believed() {
        assert_uid("0::/kubepods/pod{}/1f/kubepods/podvictim/1f\n", Some(UID));
        assert_uid("0::/../../pod{}/1f/kubepods.slice/kubepods-podvictim.slice\n", Some(UID));
    }
}
