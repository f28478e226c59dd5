//! Where everything of one mesh is: every name is made from its id, so that meshes share a
//! kernel and what a crashed run left is found without having seen that run.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::cgroup;

/// What run directories, cgroups and pin directories are called before their id.
pub const PREFIX: &str = "nodemesh-";

/// Where run directories are made.
pub const RUN: &str = "/run";

/// Where pins go.
pub const BPFFS: &str = "/sys/fs/bpf";

/// The names and paths of the mesh with one id.
#[derive(Clone, Debug)]
pub struct Layout {
    id: String,
    cgroup_root: PathBuf,
}

impl Layout {
    /// The layout of the mesh called `id`.
    pub fn new(id: &str) -> Result<Self> {
        Ok(Self { id: id.to_owned(), cgroup_root: cgroup::root()? })
    }

    /// The id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Logs, objects, sockets, state: everything that is a file.
    pub fn run_dir(&self) -> PathBuf {
        Path::new(RUN).join(format!("{PREFIX}{}", self.id))
    }

    /// Who made the mesh: a process id and that process' start time.
    pub fn owner(&self) -> PathBuf {
        self.run_dir().join("owner")
    }

    /// The folder of YAML that the controller serves.
    pub fn objects(&self) -> PathBuf {
        self.run_dir().join("objects")
    }

    /// The log of a daemon or program.
    pub fn log(&self, name: &str) -> PathBuf {
        self.run_dir().join("logs").join(format!("{name}.log"))
    }

    /// Where the controller keeps its CA and join secret.
    pub fn controller_state(&self) -> PathBuf {
        self.run_dir().join("controller")
    }

    /// Where agents keep their snapshots and certificates.
    pub fn agent_state(&self) -> PathBuf {
        self.run_dir().join("agents")
    }

    /// The admin socket of a node's agent.
    pub fn socket(&self, node: &str) -> PathBuf {
        self.run_dir().join("sockets").join(format!("{node}.sock"))
    }

    /// The file with a node's join token.
    pub fn token(&self, node: &str) -> PathBuf {
        self.run_dir().join("tokens").join(node)
    }

    /// Files of a pod's programs.
    pub fn pod_files(&self, pod: &str) -> PathBuf {
        self.run_dir().join("pods").join(pod.replace('/', "-"))
    }

    /// The directory of pins.
    pub fn bpffs(&self) -> PathBuf {
        Path::new(BPFFS).join(format!("{PREFIX}{}", self.id))
    }

    /// The cgroup that everything of the mesh is in.
    pub fn cgroup(&self) -> PathBuf {
        self.cgroup_root.join(format!("{PREFIX}{}", self.id))
    }

    /// The cgroup that a node's agent attaches at.
    pub fn node_cgroup(&self, node: &str) -> PathBuf {
        self.cgroup().join(node)
    }

    /// The cgroup of a pod's container, as a kubelet calls it.
    pub fn pod_cgroup(&self, node: &str, uid: &str) -> PathBuf {
        self.node_cgroup(node).join("kubepods/burstable").join(format!("pod{uid}/app"))
    }

    /// The name of the network namespace of a node or of a pod, `namespace/name`.
    pub fn netns(&self, of: &str) -> String {
        format!("{}{}", self.netns_prefix(), of.replace('/', "-"))
    }

    /// What the names of all network namespaces of the mesh start with.
    pub fn netns_prefix(&self) -> String {
        format!("{}-", self.id)
    }

    /// The path of a pod's network namespace as the agent's flag takes it.
    pub fn pod_netns_template(&self) -> String {
        format!("{}/{}{{namespace}}-{{pod}}", crate::netns::DIRECTORY, self.netns_prefix())
    }
}

/// The addresses of the `n`th node on the link between nodes.
pub fn node_addresses(n: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, 80, 0, n), Ipv6Addr::new(0xfd80, 0, 0, 0, 0, 0, 0, n.into()))
}

/// The addresses by which a node's pods reach it.
pub fn gateway(node: u8) -> (Ipv4Addr, Ipv6Addr) {
    pod_addresses(node, 1)
}

/// The addresses with host part `host` in the pod range of the `n`th node.
pub fn pod_addresses(node: u8, host: u8) -> (Ipv4Addr, Ipv6Addr) {
    (
        Ipv4Addr::new(10, 81, node, host),
        Ipv6Addr::new(0xfd81, 0, 0, node.into(), 0, 0, 0, host.into()),
    )
}

/// `address` as a URL has it: IPv6 in brackets.
pub fn url_host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}
