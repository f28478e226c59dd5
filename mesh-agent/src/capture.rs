//! Capture: the kernel's side of the mesh on this node.
//!
//! [`Capture`] loads and attaches the kernel programs, takes pods in and lets them go, and sees
//! to it that every hook stays where it belongs. All of it is pinned: when the agent dies, the
//! programs stay and refuse new connections, and the next agent adopts them.
//!
//! ```text
//! <bpffs>/<node>/v<layout>/maps/<map>      shared by every instance of the programs
//!                          node/<hook>     links at the cgroup
//!                          pods/<cookie>/<hook>  links of the pods
//! <state-dir>/<node>/capture/<cookie>.json what a pod's namespace was like before
//! ```

mod error;
mod events;
mod finder;
mod guard;
mod heartbeat;
mod inbound;
mod interface;
mod kernel;
mod kubelet;
mod layouts;
mod links;
mod modes;
mod pins;
mod probes;
mod processes;
mod record;
mod resize;
mod sizes;
mod sysctl;

pub mod cgroup;
pub mod cleanup;
pub mod enroll;
pub mod listeners;
pub mod netns;
pub mod preflight;
pub mod procfs;
pub mod routing;
pub mod sockets;

pub use cleanup::cleanup;
pub use enroll::{Capture, Pod};
pub use error::CaptureError;
pub use events::Events;
pub use finder::PodNetns;
pub use links::HookState;
pub use modes::InboundModes;
pub use sizes::{MapUse, OVERFLOWS, Overflow, SIZED_MAPS, SizedMap};

use std::path::PathBuf;

/// What capture is told once, at start.
#[derive(Clone, Debug)]
pub struct CaptureConfig {
    /// The name of this node, under which everything is pinned.
    pub node: String,
    /// The cgroup v2 directory to attach at; `None`: the node's root.
    pub cgroup: Option<PathBuf>,
    /// The directory for pins, on a bpffs.
    pub bpffs: PathBuf,
    /// Where pods' network namespaces are found.
    pub pod_netns: PodNetns,
    /// The directory for what must survive a crash.
    pub state_dir: PathBuf,
    /// How many sets of listeners a pod gets; at least one.
    pub workers: usize,
    /// How many pods there is room for.
    pub max_pods: u32,
    /// How many connections may be under way to the proxy, and how many from it to local pods.
    pub max_connections: u32,
    /// How many addresses and ports of Services that nobody serves there is room for.
    pub max_unserved: u32,
    /// The compiled kernel programs; `None`: those embedded in the agent.
    pub object: Option<PathBuf>,
    /// Whether the kernel programs write to the agent's log.
    pub kernel_log: bool,
}
