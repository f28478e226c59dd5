//! Where the network namespaces of pods are found: at a path made from a pod's name, or among the
//! node's processes by its uid.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use mesh_common::model::Workload;

use super::{
    interface,
    netns::{Netns, NetnsError},
    processes::{Found, Process, Processes, Seen},
};

/// How a pod's network namespace is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodNetns {
    /// At this path, with `{namespace}` and `{pod}`.
    Path(String),
    /// As that of a process which this procfs shows in the pod's cgroup.
    Processes(PathBuf),
}

/// Finds the network namespaces of pods.
#[derive(Debug)]
pub enum Finder {
    /// By path.
    Path(String),
    /// By process.
    Processes(Processes),
}

/// What shows whether a pod still has the network namespace that was found.
#[derive(Debug)]
pub enum Place {
    /// The path where it was found.
    Path(PathBuf),
    /// A process of the pod that is in it.
    Process(Mutex<Process>),
}

/// Why a pod's network namespace was not found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Not at its path.
    #[error(transparent)]
    Path(#[from] NetnsError),
    /// Not among the processes.
    #[error("no process with the pod's network namespace: {0}")]
    Processes(Box<Reason>),
}

/// What was found instead of a process in a namespace of its own.
#[derive(Debug)]
pub struct Reason {
    procfs: PathBuf,
    uid: String,
    addresses: Vec<IpAddr>,
    seen: Seen,
}

impl PodNetns {
    /// What finds them.
    pub fn finder(&self) -> Finder {
        match self {
            Self::Path(template) => Finder::Path(template.clone()),
            Self::Processes(procfs) => Finder::Processes(Processes::new(procfs)),
        }
    }
}

impl Finder {
    /// The network namespace of a pod, and what shows whether it goes on to have it.
    ///
    /// # Errors
    /// Says where it was looked for, and what may be the reason.
    pub fn find(&self, pod: &Workload) -> Result<(Netns, Place), FindError> {
        let processes = match self {
            Self::Path(template) => {
                let path = path_of(template, &pod.name.namespace, &pod.name.name);
                return Ok((Netns::open(&path)?, Place::Path(path)));
            }
            Self::Processes(processes) => processes,
        };
        let (found, seen) = processes.look(&pod.uid, |found| {
            let Found { process, namespace, .. } = found;
            let netns = Netns::from_file(namespace).ok()?;
            // A container may have made further namespaces, and moved processes into them.
            let link = interface::find(&netns, &pod.addresses).ok()?;
            link.map(|_| (netns, Place::Process(Mutex::new(process))))
        });
        found.ok_or_else(|| {
            FindError::Processes(Box::new(Reason {
                procfs: processes.procfs().to_path_buf(),
                uid: pod.uid.to_string(),
                addresses: pod.addresses.clone(),
                seen,
            }))
        })
    }

    /// Whether a pod has another namespace by now, or the one that it had is not at its path.
    ///
    /// A pod of which no process is seen keeps its namespace: where a runtime keeps no process for
    /// a sandbox there is none while a container starts again.
    pub fn is_replaced(&self, uid: &str, netns: &Netns, place: &Place) -> bool {
        let process = match (self, place) {
            (_, Place::Path(path)) => return Netns::number_at(path) != Some(netns.number()),
            (Self::Path(_), Place::Process(_)) => return false,
            (Self::Processes(_), Place::Process(process)) => process,
        };
        let mut process = process.lock().unwrap_or_else(PoisonError::into_inner);
        if process.number() == Some(netns.number()) {
            return false;
        }
        let same = |found: Found| (found.number == netns.number()).then_some(found.process);
        let Self::Processes(processes) = self else { return false };
        let (another, seen) = processes.look(uid, same);
        // What an earlier pass found may be less than there is.
        match another {
            Some(another) => *process = another,
            None => return seen.is_new && seen.left > 0,
        }
        false
    }

    /// The network namespace with this cookie: at `path`, or of the pod with this uid.
    pub fn find_again(&self, cookie: u64, path: &Path, uid: &str) -> Option<Netns> {
        let netns = Netns::open(path).ok().filter(|netns| netns.cookie() == cookie);
        let Self::Processes(processes) = self else { return netns };
        netns.or_else(|| {
            let same = |found: Found| {
                Netns::from_file(found.namespace).ok().filter(|netns| netns.cookie() == cookie)
            };
            processes.look(uid, same).0
        })
    }
}

impl Place {
    /// A path where the namespace is now.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Process(process) => {
                process.lock().unwrap_or_else(PoisonError::into_inner).namespace_path()
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { procfs, uid, addresses, seen } = self;
        let Seen { left, on_node, error, processes, pods, .. } = seen;
        let procfs = procfs.display();
        let addresses = addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
        if let Some(error) = error {
            write!(
                f,
                "those of pod uid {uid} under {procfs} cannot be looked at: {error}; the agent \
                 needs CAP_SYS_PTRACE"
            )
        } else if *left > 0 {
            write!(
                f,
                "those of pod uid {uid} under {procfs} are in {left} network namespaces, none of \
                 them with an interface that has {addresses}: the pod is being set up, or its \
                 status is of an earlier sandbox"
            )
        } else if *on_node {
            write!(
                f,
                "those of pod uid {uid} under {procfs} are in the node's own network: the pod is \
                 being started, or uses hostNetwork"
            )
        } else if *pods == 0 {
            write!(
                f,
                "none of the {processes} processes under {procfs} is in a cgroup of a pod: the \
                 agent's pod needs `hostPID: true`, or --procfs must lead to the node's /proc"
            )
        } else {
            write!(
                f,
                "none of the {processes} processes under {procfs}, which are of {pods} pods, is in \
                 a cgroup of pod uid {uid}: it has not started yet, or runs in a virtual machine"
            )
        }
    }
}

/// The path that the template gives for a pod.
fn path_of(template: &str, namespace: &str, pod: &str) -> PathBuf {
    template.replace("{namespace}", namespace).replace("{pod}", pod).into()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_template_gives_a_path_for_each_pod() {
        let path = path_of("/run/netns/{namespace}-{pod}", "shop", "web-1");
        assert_eq!(path, Path::new("/run/netns/shop-web-1"));
    }

    #[test]
    fn what_was_seen_instead_tells_what_to_do() {
        let text = |seen| {
            Reason {
                procfs: "/proc".into(),
                uid: "u1".into(),
                addresses: vec![[10, 0, 0, 1].into()],
                seen,
            }
            .to_string()
        };
        let nothing = || Seen { processes: 40, pods: 3, ..Seen::default() };
        assert!(text(Seen { pods: 0, ..nothing() }).contains("hostPID: true"));
        let missing = text(nothing());
        assert!(missing.contains("of 3 pods") && missing.contains("pod uid u1"), "{missing}");
        assert!(text(Seen { left: 2, ..nothing() }).contains("has 10.0.0.1"));
        assert!(text(Seen { on_node: true, ..nothing() }).contains("hostNetwork"));
        let refused = Some(io::Error::from_raw_os_error(libc::EACCES));
        assert!(text(Seen { error: refused, ..nothing() }).contains("CAP_SYS_PTRACE"));
    }
}
