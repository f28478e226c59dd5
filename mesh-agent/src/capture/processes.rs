//! The pods whose processes /proc shows.
//!
//! One pass over all processes finds every pod's; it is made when a pod is looked for that the last
//! one did not find, or whose processes have ended since. Nobody is asked but the kernel: no
//! runtime's socket is needed.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags, open, openat},
    io::Errno,
};

use super::kubelet;

/// A pass is good for this long, so that pods that come together are found by one. Whoever is not
/// found is looked for again no sooner than half a second later.
const FRESH: Duration = Duration::from_millis(250);
/// And for this many times as long as it took: while a pod is missing, looking for it may cost a
/// tenth of a processor, however many processes there are.
const FRESH_TIMES: u32 = 10;

/// The number by which the kernel tells a namespace from all others that are alive.
pub type Number = (u64, u64);

/// The processes of a node by the pod that they are of.
#[derive(Debug)]
pub struct Processes {
    procfs: PathBuf,
    /// The agent's own network namespace: whatever is in it is the node's and no pod's.
    own: Option<Number>,
    pass: Mutex<Pass>,
}

/// What one pass found.
#[derive(Debug, Default)]
struct Pass {
    /// When it was over, and how long it took.
    made: Option<(Instant, Duration)>,
    processes: usize,
    pods: HashMap<String, Vec<String>>,
}

/// A process of a pod, and the network namespace that it is in.
#[derive(Debug)]
pub struct Found {
    /// The process.
    pub process: Process,
    /// Its namespace, open.
    pub namespace: File,
    /// The number of its namespace.
    pub number: Number,
}

/// What a look saw besides what was taken.
#[derive(Debug, Default)]
pub struct Seen {
    /// How many namespaces of the pod's processes were not taken.
    pub left: usize,
    /// Whether processes of the pod are in the node's own namespace.
    pub on_node: bool,
    /// Why a namespace could not be opened.
    pub error: Option<io::Error>,
    /// Whether all processes were gone through for this look.
    pub is_new: bool,
    /// How many processes there are.
    pub processes: usize,
    /// How many pods they are of.
    pub pods: usize,
}

/// A process, of which nothing is read that another of the same number has.
#[derive(Debug)]
pub struct Process {
    directory: OwnedFd,
    path: PathBuf,
}

impl Processes {
    /// The processes that `procfs` shows.
    pub fn new(procfs: &Path) -> Self {
        let own = fs::metadata("/proc/thread-self/ns/net").ok().map(|it| (it.dev(), it.ino()));
        Self { procfs: procfs.to_path_buf(), own, pass: Mutex::default() }
    }

    /// Where they are looked for.
    pub fn procfs(&self) -> &Path {
        &self.procfs
    }

    /// The first that `take` takes of the network namespaces that the pod's processes are in. All
    /// processes are gone through anew where it takes none and the last pass is too old.
    pub fn look<T>(&self, uid: &str, take: impl Fn(Found) -> Option<T>) -> (Option<T>, Seen) {
        let mut pass = self.pass.lock().unwrap_or_else(PoisonError::into_inner);
        let (taken, seen) = self.look_at(&pass, uid, &take);
        if taken.is_some() || pass.is_fresh() {
            return (taken, seen);
        }
        *pass = self.pass();
        let (taken, seen) = self.look_at(&pass, uid, &take);
        (taken, Seen { is_new: true, ..seen })
    }

    fn look_at<T>(
        &self,
        pass: &Pass,
        uid: &str,
        take: &impl Fn(Found) -> Option<T>,
    ) -> (Option<T>, Seen) {
        let (processes, pods) = (pass.processes, pass.pods.len());
        let mut seen = Seen { processes, pods, ..Seen::default() };
        let mut numbers = HashSet::new();
        for pid in pass.pods.get(uid).into_iter().flatten() {
            match self.namespace_of(pid, uid) {
                Ok(None) => {}
                Ok(Some(found)) if Some(found.number) == self.own => seen.on_node = true,
                Ok(Some(found)) if !numbers.insert(found.number) => {}
                Ok(Some(found)) => {
                    if let Some(taken) = take(found) {
                        return (Some(taken), seen);
                    }
                    seen.left += 1;
                }
                Err(error) => seen.error = Some(error),
            }
        }
        (None, seen)
    }

    /// The namespace that a process is in; `None` where it has ended or is not the pod's any more.
    fn namespace_of(&self, pid: &str, uid: &str) -> io::Result<Option<Found>> {
        let path = self.procfs.join(pid);
        let found = Process::open(path).and_then(|process| {
            let (namespace, number) = process.namespace()?;
            // Only now: a runtime moves its child into the pod's cgroup before it has joined the
            // pod's namespaces, and the number may have been given to another process by now.
            let is_pods = kubelet::pod_uid(&process.cgroups()?).is_some_and(|of| of == uid);
            Ok(is_pods.then_some(Found { process, namespace, number }))
        });
        match found {
            Err(error) if has_ended(&error) => Ok(None),
            other => other,
        }
    }

    fn pass(&self) -> Pass {
        let start = Instant::now();
        let mut pass = Pass::default();
        let mut cgroups = String::new();
        for entry in fs::read_dir(&self.procfs).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().filter(|it| it.bytes().all(|it| it.is_ascii_digit()))
            else {
                continue;
            };
            cgroups.clear();
            // What has ended meanwhile is of no pod.
            let read = File::open(entry.path().join("cgroup"))
                .and_then(|mut file| file.read_to_string(&mut cgroups));
            if read.is_err() {
                continue;
            }
            pass.processes += 1;
            if let Some(uid) = kubelet::pod_uid(&cgroups) {
                pass.pods.entry(uid).or_default().push(pid.to_owned());
            }
        }
        pass.made = Some((Instant::now(), start.elapsed()));
        let (processes, pods) = (pass.processes, pass.pods.len());
        tracing::debug!(processes, pods, took = ?start.elapsed(), "looked through /proc");
        pass
    }
}

impl Pass {
    fn is_fresh(&self) -> bool {
        let Some((at, took)) = self.made else { return false };
        at.elapsed() < FRESH.max(took * FRESH_TIMES)
    }
}

impl Process {
    fn open(path: PathBuf) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { directory: open(&path, flags, Mode::empty())?, path })
    }

    /// Where its network namespace is, for as long as it lives.
    pub fn namespace_path(&self) -> PathBuf {
        self.path.join("ns/net")
    }

    /// The network namespace that it is in now, if it lives.
    pub fn number(&self) -> Option<Number> {
        self.namespace().ok().map(|(_, number)| number)
    }

    fn namespace(&self) -> io::Result<(File, Number)> {
        let file = self.file("ns/net")?;
        let metadata = file.metadata()?;
        Ok((file, (metadata.dev(), metadata.ino())))
    }

    fn cgroups(&self) -> io::Result<String> {
        io::read_to_string(self.file("cgroup")?)
    }

    fn file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(openat(&self.directory, name, flags, Mode::empty())?.into())
    }
}

/// What the kernel says of a process that is not there any more, or is no more than its exit code.
fn has_ended(error: &io::Error) -> bool {
    let ended = [Errno::NOENT, Errno::SRCH].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|errno| ended.contains(&errno))
}

#[cfg(test)]
mod tests;
