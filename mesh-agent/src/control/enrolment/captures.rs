//! What the controller is told of the pods of this node.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_common::api::v1::{CaptureReport, UncapturedPod, uncaptured_pod::State};

/// The pods that are captured, and why others are not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    /// Uids of captured pods.
    pub captured: BTreeSet<Arc<str>>,
    /// What is in the way of the others, by uid.
    pub uncaptured: BTreeMap<Arc<str>, Missed>,
}

/// Why a pod that labels put in the mesh is not captured. Nothing here changes by itself as time
/// passes: each change is a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missed {
    /// It was not tried yet, or waits for this.
    Waiting(String),
    /// It cannot be captured now.
    Failed(String),
    /// Somebody lets it around the mesh until then, seconds since the Unix epoch.
    Bypassed(u64),
}

impl From<&Captures> for CaptureReport {
    fn from(captures: &Captures) -> Self {
        let pod = |(uid, missed): (&Arc<str>, &Missed)| {
            let (state, reason, until) = match missed {
                Missed::Waiting(reason) => (State::Waiting, reason.clone(), 0),
                Missed::Failed(reason) => (State::Failed, reason.clone(), 0),
                Missed::Bypassed(until) => (State::Bypassed, String::new(), *until),
            };
            let workload_uid = uid.to_string();
            UncapturedPod { workload_uid, state: state.into(), reason, until }
        };
        Self {
            workload_uids: captures.captured.iter().map(ToString::to_string).collect(),
            uncaptured: captures.uncaptured.iter().map(pod).collect(),
        }
    }
}
