//! Everything that can stand in the way of capture.

use std::io;

use mesh_common::model::NamespacedName;

use super::{
    finder::FindError, guard::GuardError, kernel::KernelError, links::LinkError,
    listeners::ListenError, preflight::PreflightError, record::RecordError, routing::RoutingError,
    sizes, sysctl::SysctlError,
};

/// Why a pod, or the node, is not captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The machine lacks something.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The kernel programs.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The agent's own network namespace.
    #[error("cannot tell the node's network namespace: {0}; nodemesh needs Linux 5.14")]
    Own(io::Error),
    /// Hooks that are no longer wanted.
    #[error("cannot remove old hooks: {0}; check --bpffs")]
    Pins(io::Error),
    /// The pod's namespace.
    #[error("{pod}: {source}")]
    Netns {
        /// The pod.
        pod: NamespacedName,
        /// Why.
        source: FindError,
    },
    /// The pod's listeners.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The pod's settings.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The pod's rule.
    #[error(transparent)]
    Routing(#[from] RoutingError),
    /// What is kept on disk.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The pod's hook.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The pod's link.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// A kernel map.
    #[error("cannot write the kernel map {map}: {source}; if it is full, {}", sizes::advice(map))]
    Map {
        /// The map.
        map: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The proxy did not take the listeners.
    #[error("the proxy cannot serve the pod: {0}")]
    Serve(io::Error),
    /// The control plane gave a pod without what every pod has.
    #[error("{0} has no identity or no address: it is no pod that can be captured")]
    NoPod(NamespacedName),
    /// No such pod.
    #[error("no captured pod has the uid {0}")]
    Unknown(String),
}

/// Says which map it was.
pub(super) fn map(map: &'static str) -> impl Fn(io::Error) -> CaptureError {
    move |source| CaptureError::Map { map, source }
}
