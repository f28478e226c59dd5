//! Removing everything that capture ever changed on a node, also after a crash.

use std::{io, path::Path};

use super::{
    finder::PodNetns,
    pins::Pins,
    procfs,
    record::{RecordError, Records},
    routing::{self, RoutingError},
    sysctl::{self, SysctlError},
};

/// What could not be removed. The rest was; a second cleanup tries again.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// Hooks and maps.
    #[error("cannot remove the pinned hooks: {0}; check --bpffs")]
    Pins(#[from] io::Error),
    /// Records.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A pod's rule.
    #[error("{pod}: {source}")]
    Routing {
        /// Namespace and name of the pod.
        pod: String,
        /// Why.
        source: RoutingError,
    },
    /// A pod's settings.
    #[error("{pod}: {source}")]
    Sysctl {
        /// Namespace and name of the pod.
        pod: String,
        /// Why.
        source: SysctlError,
    },
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Whether hooks or maps were pinned.
    pub hooks: bool,
    /// How many pods were set back to what they were.
    pub pods: usize,
}

/// Removes the hooks, pins, rules and setting changes of `node`. Its agent must not be running:
/// it would repair them.
///
/// # Errors
/// The first thing that could not be removed, after everything has been tried.
pub fn cleanup(
    node: &str,
    bpffs: &Path,
    state_dir: &Path,
    pod_netns: &PodNetns,
) -> Result<Cleaned, CleanupError> {
    let finder = pod_netns.finder();
    let mut first = None;
    let mut cleaned = Cleaned::default();
    match Pins::new(bpffs, node).remove_all() {
        Ok(hooks) => cleaned.hooks = hooks,
        Err(error) => first = Some(error.into()),
    }
    // In a container of its own nobody has done that for it.
    procfs::prepare();
    let records = Records::new(state_dir, node);
    for record in records.load()? {
        let pod = || format!("{}/{}", record.namespace, record.name);
        let result = match record.open_netns(&finder) {
            None => Ok(()),
            Some(netns) => routing::remove(&netns)
                .map_err(|source| CleanupError::Routing { pod: pod(), source })
                .and_then(|()| {
                    sysctl::restore(&netns, &record.sysctls)
                        .map_err(|source| CleanupError::Sysctl { pod: pod(), source })
                }),
        };
        match result.and_then(|()| Ok(records.remove(record.cookie)?)) {
            Ok(()) => cleaned.pods += 1,
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    first.map_or(Ok(cleaned), Err)
}
