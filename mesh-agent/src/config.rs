//! What the agent is told when it starts: flags, with their defaults.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{ArgAction, Args, Parser, Subcommand};
use mesh_common::{listen::any, ports};

use crate::{
    capture::PodNetns,
    departure::{self, DaemonSet},
};

/// The node agent of nodemesh.
#[derive(Clone, Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run.
    #[command(flatten)]
    pub run: Option<Config>,
}

/// What the agent does besides running.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Remove every hook, pin, rule and sysctl change of a node, also after a crash.
    ///
    /// Stop the agent first. Pods keep running, outside the mesh.
    Cleanup(Paths),
}

/// Where a node's traces are.
#[derive(Args, Clone, Debug)]
pub struct Paths {
    /// Name of the node, as in the Node object
    #[arg(long)]
    pub node: String,
    /// Directory in a BPF file system for pinned programs and maps; made if missing
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/nodemesh")]
    pub bpffs: PathBuf,
    /// Where a pod's network namespace is, with {namespace} and {pod} [default: that of a process in
    /// the pod's cgroup]
    #[arg(long, value_name = "TEMPLATE")]
    pub pod_netns: Option<String>,
    /// Where the node's processes are seen [default: /host/proc if that is there, else /proc]
    #[arg(long, value_name = "DIR", conflicts_with = "pod_netns")]
    pub procfs: Option<PathBuf>,
    /// Directory for what has to survive a restart: snapshot, certificates, old settings
    #[arg(long, value_name = "DIR", default_value = "/var/lib/nodemesh")]
    pub state_dir: PathBuf,
    /// Socket for `nodemesh` [default: /run/nodemesh/NODE.sock]
    #[arg(long, value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
}

/// Everything that a running agent is told.
#[derive(Args, Clone, Debug)]
// clap leaves the group of a struct empty where another is flattened into it, and by its group it
// decides whether an optional struct was given at all.
#[group(args = ["controller"])]
pub struct Config {
    /// Where things are.
    #[command(flatten)]
    pub paths: Paths,
    /// Address of the controller, such as https://10.0.0.1:15012
    #[arg(long, value_name = "URL")]
    pub controller: String,
    /// Root certificate of the controller, PEM: root.crt in its state directory
    #[arg(long, value_name = "FILE")]
    pub controller_ca: PathBuf,
    /// File with the output of `mesh-controller token <node>`
    #[arg(long, value_name = "FILE")]
    pub join_token_file: PathBuf,
    /// DaemonSet that this agent is of: when that is deleted, or its namespace, the agent lets pods
    /// out of the mesh and cleans up before it ends
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub daemon_set: Option<DaemonSet>,
    /// Where the token for the API server is, and its certificate. For tests: in a cluster both are
    /// where Kubernetes puts them
    #[arg(long, value_name = "DIR", hide = true, default_value = departure::ACCOUNT)]
    pub service_account: PathBuf,
    /// cgroup v2 directory whose processes are captured [default: the root of the node's]
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,
    /// Address for Prometheus metrics
    #[arg(long, value_name = "ADDRESS", default_value_t = any(ports::METRICS))]
    pub metrics_address: SocketAddr,
    /// Address for probes (/readyz, /livez)
    #[arg(long, value_name = "ADDRESS", default_value_t = any(ports::READINESS))]
    pub readiness_address: SocketAddr,
    /// Threads that carry connections [default: half of the processors, at least 1]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// Pods that may be captured on this node at once
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = at_least_one())]
    pub max_pods: u32,
    /// Connections of captured pods that the kernel maps have room for
    #[arg(long, value_name = "N", default_value_t = 65536, value_parser = at_least_one())]
    pub max_connections: u32,
    /// Addresses and ports of Services without a ready endpoint that the kernel map has room for
    #[arg(long, value_name = "N", default_value_t = 65536, value_parser = at_least_one())]
    pub max_unserved: u32,
    /// Whether to read HTTP on its way to Services, and route it request by request; with `false` it
    /// is carried as bytes, and routes do nothing
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub http: bool,
    /// Flows to remember for `nodemesh flows`
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub remembered_flows: usize,
    /// Kernel programs to load instead of those that are built in
    #[arg(long, value_name = "FILE")]
    pub bpf_object: Option<PathBuf>,
    /// Log what the kernel programs do, for debugging them
    #[arg(long)]
    pub kernel_log: bool,
}

impl Paths {
    /// The directory of this node's state.
    pub fn node_state(&self) -> PathBuf {
        self.state_dir.join(&self.node)
    }

    /// Where pods' network namespaces are found.
    pub fn pod_netns(&self) -> PodNetns {
        const HOST: &str = "/host/proc";
        match &self.pod_netns {
            Some(template) => PodNetns::Path(template.clone()),
            None => PodNetns::Processes(self.procfs.clone().unwrap_or_else(|| {
                let is_mounted = Path::new(HOST).is_dir();
                if is_mounted { HOST } else { "/proc" }.into()
            })),
        }
    }

    /// The Unix socket for `nodemesh`.
    pub fn admin_socket(&self) -> PathBuf {
        let default = || PathBuf::from(format!("/run/nodemesh/{}.sock", self.node));
        self.admin_socket.clone().unwrap_or_else(default)
    }
}

impl Config {
    /// Threads that carry connections.
    pub fn workers(&self) -> usize {
        let half = || std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2);
        self.workers.unwrap_or_else(half).max(1)
    }
}

/// The kernel makes no map without room.
fn at_least_one() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    const RUN: [&str; 9] = [
        "mesh-agent",
        "--node",
        "node-1",
        "--controller",
        "https://10.0.0.1:15012",
        "--controller-ca",
        "root.crt",
        "--join-token-file",
        "token",
    ];

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn runs_by_default_with_these_defaults() {
        let cli = Cli::try_parse_from(RUN).expect("complete");
        assert!(cli.command.is_none());
        let config = cli.run.expect("a configuration");
        assert_eq!(config.paths.admin_socket(), PathBuf::from("/run/nodemesh/node-1.sock"));
        assert_eq!(config.paths.node_state(), PathBuf::from("/var/lib/nodemesh/node-1"));
        assert_eq!(config.metrics_address.to_string(), "[::]:15020");
        assert_eq!(config.readiness_address.to_string(), "[::]:15021");
        assert!(config.workers() >= 1);
    }

    #[test]
    fn cleans_up_with_nothing_but_a_node() {
        let cli = Cli::try_parse_from(["mesh-agent", "cleanup", "--node", "node-1"]);
        let Some(Command::Cleanup(paths)) = cli.expect("complete").command else {
            panic!("not understood as cleanup");
        };
        assert_eq!(paths.node, "node-1");
    }

    #[test]
    fn says_what_is_missing() {
        let error = Cli::try_parse_from(&RUN[..7]).expect_err("no token");
        assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument);
        assert!(error.to_string().contains("--join-token-file"), "{error}");
    }

    #[test]
    fn the_manifest_knows_these_flags() {
        let manifest = include_str!("../../deploy/base/agent.yaml");
        let flags = manifest.lines().filter_map(|line| line.trim().strip_prefix("- --"));
        let flags = flags.map(|flag| format!("--{}", flag.replace("$(NODE_NAME)", "node-1")));
        let cli = Cli::try_parse_from(std::iter::once("mesh-agent".to_owned()).chain(flags));
        let config = cli.expect("flags that exist").run.expect("a configuration");
        assert_eq!(config.paths.node, "node-1");
        let places = [
            config.paths.bpffs.clone(),
            config.paths.state_dir.clone(),
            config.paths.admin_socket(),
            config.controller_ca.clone(),
            config.join_token_file.clone(),
            // Where cgroup v2 is looked for is no flag.
            "/sys/fs/cgroup".into(),
        ];
        let mounts = manifest.lines().filter_map(|line| line.trim().strip_prefix("mountPath: "));
        let mounts: Vec<_> = mounts.collect();
        for place in &places {
            let is_mounted = mounts.iter().any(|mount| place.starts_with(mount));
            assert!(is_mounted, "{} is on no mount of the manifest", place.display());
        }
        for mount in mounts {
            let is_used = places.iter().any(|place| place.starts_with(mount));
            assert!(is_used, "nothing of the agent's is at {mount}");
        }
        let set = format!("{}/{}", mesh_common::SYSTEM_NAMESPACE, mesh_common::names::AGENT);
        assert_eq!(config.daemon_set, Some(set.parse().expect("a name")));
    }
}
