//! A made-up /proc: directories with a `cgroup` and an `ns/net`, whose inode stands for the
//! namespace.

use super::*;

struct Procfs(tempfile::TempDir);

impl Procfs {
    fn new() -> Self {
        let procfs = Self(tempfile::tempdir().expect("a writable temporary directory"));
        fs::create_dir(procfs.path("netns")).expect("new");
        fs::create_dir(procfs.path("sys")).expect("new");
        procfs
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn processes(&self) -> Processes {
        Processes::new(self.0.path())
    }

    /// A process `pid` in the network namespace `netns` and the cgroup of the pod `uid`.
    fn process(&self, pid: u32, uid: &str, netns: &str) {
        self.end(pid);
        let namespace = self.path("netns").join(netns);
        if !namespace.exists() {
            fs::write(&namespace, "").expect("writable");
        }
        let directory = self.path(&pid.to_string());
        fs::create_dir_all(directory.join("ns")).expect("writable");
        fs::hard_link(namespace, directory.join("ns/net")).expect("one file system");
        self.move_to(pid, uid);
    }

    fn move_to(&self, pid: u32, uid: &str) {
        let line = format!("0::/kubepods/burstable/pod{uid}/1f\n");
        fs::write(self.path(&pid.to_string()).join("cgroup"), line).expect("writable");
    }

    fn end(&self, pid: u32) {
        let _ = fs::remove_dir_all(self.path(&pid.to_string()));
    }

    fn number(&self, netns: &str) -> Number {
        let metadata = fs::metadata(self.path("netns").join(netns)).expect("made before");
        (metadata.dev(), metadata.ino())
    }
}

/// The namespaces of a pod, in no order.
fn numbers(processes: &Processes, uid: &str) -> HashSet<Number> {
    let numbers = Mutex::new(HashSet::new());
    let (_, seen) = processes.look(uid, |found| {
        numbers.lock().expect("no panic").insert(found.number);
        None::<()>
    });
    let numbers = numbers.into_inner().expect("no panic");
    assert_eq!(seen.left, numbers.len(), "each once");
    numbers
}

/// Forgets when the last pass was, as time would.
fn wait(processes: &Processes) {
    processes.pass.lock().expect("no panic").made = None;
}

#[test]
fn one_pass_finds_every_pod_and_each_namespace_once() {
    let procfs = Procfs::new();
    for pid in 1..=3 {
        procfs.process(pid, "a", "a");
    }
    procfs.process(10, "b", "b");
    procfs.process(11, "b", "nested");
    let processes = procfs.processes();
    assert_eq!(numbers(&processes, "a"), [procfs.number("a")].into());
    // A pass finds what is there: whoever comes after it has to wait for the next.
    procfs.process(20, "c", "c");
    assert_eq!(numbers(&processes, "b").len(), 2);
    let (found, seen) = processes.look("c", Some);
    assert!(found.is_none() && !seen.is_new, "the pass is fresh");
    assert_eq!((seen.processes, seen.pods), (5, 2));
    wait(&processes);
    let nested = procfs.number("nested");
    let (found, seen) =
        processes.look("b", |found| (found.number == nested).then_some(found.number));
    assert_eq!(found, Some(nested));
    assert!(!seen.is_new, "what is known costs no pass");
    assert_eq!(numbers(&processes, "c"), [procfs.number("c")].into());
}

#[test]
fn a_pid_that_is_anothers_by_now_is_not_taken() {
    let procfs = Procfs::new();
    procfs.process(7, "a", "a");
    let processes = procfs.processes();
    assert_eq!(numbers(&processes, "a").len(), 1);
    // Its number went to a process of another pod, of which no pass knows yet.
    procfs.process(7, "b", "b");
    assert_eq!(numbers(&processes, "a").len(), 0);
    procfs.end(7);
    let (found, seen) = processes.look("a", Some);
    assert!(found.is_none() && seen.error.is_none(), "{seen:?}");
    // Out of the pod's cgroup, as a container with privileges may move itself.
    procfs.process(8, "c", "c");
    wait(&processes);
    assert_eq!(numbers(&processes, "c").len(), 1);
    procfs.move_to(8, "a");
    assert_eq!(numbers(&processes, "c").len(), 0);
}

#[test]
fn the_nodes_own_namespace_is_never_a_pods() {
    let procfs = Procfs::new();
    procfs.process(1, "host", "node");
    let mut processes = procfs.processes();
    processes.own = Some(procfs.number("node"));
    let (found, seen) = processes.look("host", Some);
    assert!(found.is_none() && seen.on_node && seen.left == 0, "{seen:?}");
    // What a runtime starts is in the pod's cgroup first and in its namespace then.
    procfs.process(1, "host", "pod");
    assert_eq!(numbers(&processes, "host"), [procfs.number("pod")].into());
}

#[test]
fn a_process_that_was_found_is_told_from_its_successor() {
    let procfs = Procfs::new();
    procfs.process(7, "a", "a");
    let found = procfs.processes().look("a", Some).0.expect("it is there");
    assert_eq!(found.process.number(), Some(procfs.number("a")));
    procfs.process(7, "b", "b");
    assert_eq!(found.process.number(), None, "what is open is of the one that ended");
}

#[test]
fn a_procfs_that_is_none_shows_nobody() {
    let (found, seen) = Processes::new(Path::new("/nonexistent")).look("a", Some);
    assert!(found.is_none() && seen.processes == 0 && seen.pods == 0, "{seen:?}");
}
