//! Pods whose network namespaces are found among the processes of the node, by the cgroups that a
//! kubelet has put them into.

#[path = "support/world.rs"]
mod world;

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command},
};

use mesh_agent::capture::{Capture, CaptureConfig, InboundModes, PodNetns};
use mesh_common::{bpf::InboundMode, model::Workload};
use world::{World, eventually, read};

const SYSCTLS: &str =
    "cd /proc/sys/net; cat ipv4/tcp_fwmark_accept ipv4/fwmark_reflect ipv6/fwmark_reflect";

/// A world with kubelet's cgroups, and the processes that were started in them.
struct Node {
    world: World,
    running: Vec<Child>,
}

impl Node {
    fn new() -> Self {
        Self { world: World::new(), running: Vec::new() }
    }

    fn config(&self) -> CaptureConfig {
        let pod_netns = PodNetns::Processes("/proc".into());
        CaptureConfig { pod_netns, ..self.world.config() }
    }

    fn start(&self) -> Capture {
        Capture::start(self.config()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The cgroup of a container of pod `a`, as kubelets with the systemd driver call it.
    fn container(&self) -> PathBuf {
        let cgroup = self.config().cgroup.expect("the world's");
        cgroup
            .join("kubepods.slice/kubepods-burstable.slice")
            .join(format!("kubepods-burstable-pod{}.slice/1f", self.uid().replace('-', "_")))
    }

    /// The uid of pod `a`: other tests run beside this one, and their processes are seen.
    fn uid(&self) -> String {
        format!("{}-a", self.world.netns_name("uid"))
    }

    fn workload(&self, pod: &str) -> Workload {
        Workload { uid: self.uid().into(), ..self.world.workload(pod) }
    }

    /// Starts a process in a container of pod `a`, by `enter` in a network namespace.
    fn process(&mut self, enter: &[&str]) -> u32 {
        let container = self.container();
        fs::create_dir_all(&container).expect("cgroup v2 is writable");
        let mut command = Command::new("sh");
        command.args(["-c", "echo 0 >$1/cgroup.procs && shift && exec \"$@\"", "enter"]);
        let child = command.arg(&container).args(enter).args(["sleep", "1000"]).spawn();
        self.running.push(child.expect("sh starts"));
        let pid = self.running.last().expect("just pushed").id();
        // Before it sleeps it may still be where this process is.
        eventually("the process is in place", || {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.starts_with(b"sleep\0")
        });
        pid
    }

    fn process_in(&mut self, netns: &str) -> u32 {
        let netns = format!("--net=/run/netns/{}", self.world.netns_name(netns));
        self.process(&["nsenter", &netns])
    }

    fn end(&mut self, pid: u32) {
        let at = self.running.iter().position(|child| child.id() == pid).expect("it runs");
        let mut child = self.running.remove(at);
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
    }

    /// What capturing pod `a` came to.
    fn capture(&self, capture: &mut Capture) -> Result<u64, String> {
        let modes = InboundModes::from(InboundMode::Pass);
        capture
            .capture(&self.workload("a"), modes, |_, _| Ok(()))
            .map(|pod| pod.netns.cookie())
            .map_err(|error| error.to_string())
    }

    fn cookie(&self, pod: &str) -> u64 {
        self.world.netns(pod).cookie()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        let kubepods = self.config().cgroup.expect("the world's").join("kubepods.slice");
        for path in self.container().ancestors().take_while(|it| it.starts_with(&kubepods)) {
            let _ = fs::remove_dir(path);
        }
    }
}

#[test]
fn a_pod_is_found_by_its_processes_whatever_else_they_do() {
    let mut node = Node::new();
    let mut capture = node.start();
    let error = node.capture(&mut capture).expect_err("nothing runs yet");
    assert!(error.contains("test/a") && error.contains("/proc"), "{error}");

    // What starts a container, a network namespace of the container's own, and the container.
    node.process(&["env"]);
    node.process(&["unshare", "--net"]);
    eventually("a namespace without the pod's address is not taken", || {
        let error = node.capture(&mut capture).expect_err("no address");
        error.contains("none of them with an interface that has 10.99.0.1")
    });
    let first = node.process_in("a");
    let mut cookie = None;
    eventually("the pod is found", || {
        cookie = node.capture(&mut capture).ok();
        cookie.is_some()
    });
    assert_eq!(cookie, Some(node.cookie("a")));
    assert!(!capture.is_gone(&node.uid()));

    // Containers come and go, the sandbox stays.
    let second = node.process_in("a");
    node.end(first);
    assert!(!capture.is_gone(&node.uid()));
    node.end(second);
    for child in node.running.iter_mut().rev().take(1) {
        child.kill().expect("ours");
        child.wait().expect("ours");
    }
    assert!(!capture.is_gone(&node.uid()), "no process is no other namespace");
}

#[test]
fn a_pod_whose_sandbox_was_made_anew_is_captured_anew() {
    let mut node = Node::new();
    let mut capture = node.start();
    let first = node.process_in("a");
    assert_eq!(node.capture(&mut capture), Ok(node.cookie("a")));
    node.end(first);
    // The other namespace of the world plays the new one.
    node.process_in("b");
    eventually("the new sandbox is seen", || capture.is_gone(&node.uid()));
    capture.release(&node.uid()).expect("captured");
    capture.finish_release(&node.uid()).expect("released");
    let pod = capture.capture(&node.workload("b"), InboundMode::Pass, |_, _| Ok(()));
    assert_eq!(pod.expect("found").netns.cookie(), node.cookie("b"));
    assert!(!capture.is_gone(&node.uid()));
}

#[test]
fn what_an_earlier_agent_captured_is_found_though_its_process_ended() {
    let mut node = Node::new();
    let before = node.world.sh("a", SYSCTLS);
    let mut capture = node.start();
    let first = node.process_in("a");
    node.capture(&mut capture).expect("it runs");
    assert_ne!(node.world.sh("a", SYSCTLS), before);
    drop(capture);
    node.process_in("a");
    node.end(first);

    let mut capture = node.start();
    assert_eq!(capture.adopted().as_slice(), &[node.uid().into()]);
    capture.release(&node.uid()).expect("adopted");
    capture.finish_release(&node.uid()).expect("released");
    assert_eq!(node.world.sh("a", SYSCTLS), before);
    let _application = node.world.application("a", "10.99.0.1:8080");
    let stream = node.world.connect("b", "10.99.0.1:8080").expect("not captured");
    assert!(read(&stream).expect("read").starts_with("application saw"));

    // And what it left behind when nobody comes after it.
    node.capture(&mut capture).expect("it runs");
    drop(capture);
    let CaptureConfig { node: name, bpffs, state_dir, pod_netns, .. } = node.config();
    let cleaned = mesh_agent::capture::cleanup(&name, &bpffs, &state_dir, &pod_netns);
    assert_eq!(cleaned.expect("cleaned").pods, 1);
    assert_eq!(node.world.sh("a", SYSCTLS), before);
}
