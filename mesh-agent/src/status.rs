//! What the agent is doing and what is wrong, for `nodemesh status`, metrics and readiness.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mesh_common::{api::v1, model::NamespacedName};

use crate::capture::MapUse;

mod metrics;

pub use metrics::StatusCollector;

/// How long something that was wrong and is repaired is still shown, so that someone who looks
/// every few seconds cannot miss it.
const INCIDENT_SHOWN: Duration = Duration::from_secs(10);

/// The board that every room writes its state on.
#[derive(Debug, Default)]
pub struct Status {
    board: Mutex<Board>,
}

#[derive(Debug, Default)]
struct Board {
    controller: ControllerState,
    pods: Vec<PodState>,
    hooks: Vec<Hook>,
    counters: Vec<(&'static str, u64)>,
    maps: Vec<MapUse>,
    incidents: Vec<(Instant, String)>,
    /// Whether every pod was tried once.
    tried: bool,
}

/// The connection to the controller.
#[derive(Clone, Debug, Default)]
pub struct ControllerState {
    /// Where it is.
    pub address: String,
    /// Whether its stream is up.
    pub connected: bool,
    /// Whether a whole picture has arrived or was read from disk.
    pub synced: bool,
    /// Why it is not connected, with what to do.
    pub last_error: String,
}

/// A pod of this node that is in the mesh, or is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodState {
    /// Namespace and name.
    pub name: NamespacedName,
    /// What tells it from an earlier pod of the same name.
    pub uid: Arc<str>,
    /// What is being done with it.
    pub phase: Phase,
    /// What it lacks, if it shall be in the mesh and is not captured.
    pub uncaptured: Option<Uncaptured>,
    /// Why, where that is not plain.
    pub reason: String,
    /// What is worth knowing of it and no problem.
    pub notes: Vec<String>,
    /// Proxied connections.
    pub connections: usize,
}

/// What is being done with a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits for its certificate.
    Waiting,
    /// Its traffic goes through the proxy.
    Captured,
    /// It has left the mesh, and its last proxied connections end by themselves.
    Draining,
    /// Somebody on the node lets it around the mesh for a while.
    Bypassed,
    /// It cannot be captured now; it is tried again.
    Failed,
}

/// Why a pod that shall be in the mesh is not captured, in as few words as metrics want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Uncaptured {
    /// It was not tried yet.
    Waiting,
    /// Its certificate was refused, or does not come.
    Certificate,
    /// Something on the node stands in the way.
    Capture,
}

/// A kernel hook as it was last looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Such as `connect4`, or `sk_lookup namespace/pod` for a hook of one pod.
    pub name: String,
    /// Whether it is attached, if need be after it was put back.
    pub attached: bool,
    /// How often it had to be put back.
    pub repairs: u64,
    /// Why it could not be put back.
    pub error: Option<String>,
}

impl Hook {
    fn problem(&self) -> Option<String> {
        let why = self.error.as_deref().unwrap_or("it is put back at the next look");
        (!self.attached).then(|| format!("kernel hook {} is not attached: {why}", self.name))
    }
}

impl Uncaptured {
    /// Every reason, with its name in metrics.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::Waiting, "waiting"),
        (Self::Certificate, "certificate"),
        (Self::Capture, "capture"),
    ];
}

impl Phase {
    /// The name in status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Captured => "captured",
            Self::Draining => "draining",
            Self::Bypassed => "bypassed",
            Self::Failed => "failed",
        }
    }
}

impl Status {
    /// Changes what is known of the controller.
    pub fn controller(&self, change: impl FnOnce(&mut ControllerState)) {
        change(&mut self.board().controller);
    }

    /// Whether there is a whole picture of the mesh.
    pub fn is_synced(&self) -> bool {
        self.board().controller.synced
    }

    /// Replaces the list of pods. `tried`: each pod that is to be captured is captured, or cannot be
    /// for a reason that waiting alone will not mend.
    pub fn set_pods(&self, pods: Vec<PodState>, tried: bool) {
        let mut board = self.board();
        board.pods = pods;
        board.tried |= tried;
    }

    /// The pods that are in the mesh, or are to be, by name.
    pub fn pods(&self) -> Vec<PodState> {
        self.board().pods.clone()
    }

    /// Replaces what is known of the kernel.
    pub fn set_kernel(&self, hooks: Vec<Hook>, counters: Vec<(&'static str, u64)>) {
        let mut board = self.board();
        board.hooks = hooks;
        board.counters = counters;
    }

    /// Replaces what is known of the kernel maps that have a limit.
    pub fn set_maps(&self, maps: Vec<MapUse>) {
        self.board().maps = maps;
    }

    /// Shows `problem` for a while, though it is already over.
    pub fn incident(&self, problem: String) {
        self.incident_at(Instant::now(), problem);
    }

    /// Why the agent is not ready: it is once its kernel programs are attached, it has a picture
    /// of the mesh, and every pod that was to be captured was tried once. One that cannot be captured
    /// is a problem of its own: it must not stop the rollout that may mend it.
    pub fn not_ready(&self) -> Vec<String> {
        let board = self.board();
        let mut reasons = Vec::new();
        if !board.controller.synced {
            reasons.push("no picture of the mesh: the controller has not answered yet".to_owned());
        }
        if board.hooks.is_empty() {
            reasons.push("kernel programs are not attached yet".to_owned());
        }
        reasons.extend(board.hooks.iter().filter_map(Hook::problem));
        if !board.tried {
            let pending = board.pods.iter().filter(|pod| pod.phase == Phase::Waiting);
            let before = reasons.len();
            reasons.extend(
                pending.map(|pod| format!("pod {} is not captured: {}", pod.name, pod.reason)),
            );
            if reasons.len() == before {
                reasons.push("pods have not been looked at yet".to_owned());
            }
        }
        reasons
    }

    /// Everything, as `nodemesh status` gets it, but for what other rooms know.
    pub fn to_wire(&self, node: &str, resources: usize) -> v1::NodeStatus {
        self.to_wire_at(Instant::now(), node, resources)
    }

    fn to_wire_at(&self, now: Instant, node: &str, resources: usize) -> v1::NodeStatus {
        let mut board = self.board();
        board.incidents.retain(|(at, _)| now.saturating_duration_since(*at) < INCIDENT_SHOWN);
        let ControllerState { address, connected, synced, last_error } = board.controller.clone();
        v1::NodeStatus {
            node: node.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            problems: board.problems(),
            pods: board.pods.iter().map(Into::into).collect(),
            hooks: board.hooks.iter().map(Into::into).collect(),
            certificates: Vec::new(),
            plaintext: None,
            counters: board.counters.iter().map(|(name, it)| ((*name).to_owned(), *it)).collect(),
            controller: Some(v1::ControllerStatus {
                address,
                connected,
                synced,
                last_error,
                resources: u32::try_from(resources).unwrap_or(u32::MAX),
            }),
        }
    }

    fn incident_at(&self, now: Instant, problem: String) {
        let mut board = self.board();
        board.incidents.retain(|(at, earlier)| {
            *earlier != problem && now.saturating_duration_since(*at) < INCIDENT_SHOWN
        });
        board.incidents.push((now, problem));
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.controller.connected {
            let why = match self.controller.last_error.as_str() {
                "" => "no answer yet",
                error => error,
            };
            problems.push(format!("not connected to the controller: {why}"));
        }
        for pod in self.pods.iter().filter(|pod| pod.phase == Phase::Failed) {
            problems.push(format!("pod {} is not in the mesh: {}", pod.name, pod.reason));
        }
        problems.extend(self.hooks.iter().filter_map(Hook::problem));
        problems.extend(self.maps.iter().filter_map(MapUse::problem));
        problems.extend(self.incidents.iter().map(|(_, problem)| problem.clone()));
        problems
    }
}

impl From<&PodState> for v1::PodStatus {
    fn from(pod: &PodState) -> Self {
        Self {
            name: Some((&pod.name).into()),
            state: pod.phase.as_str().to_owned(),
            reason: pod.reason.clone(),
            connections: u32::try_from(pod.connections).unwrap_or(u32::MAX),
            unmeshed: 0,
            plaintext: 0,
            notes: pod.notes.clone(),
        }
    }
}

impl From<&Hook> for v1::HookStatus {
    fn from(hook: &Hook) -> Self {
        Self { name: hook.name.clone(), attached: hook.attached, repairs: hook.repairs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected() -> Status {
        let status = Status::default();
        status.controller(|controller| {
            controller.connected = true;
            controller.synced = true;
        });
        status
    }

    fn hook(attached: bool) -> Hook {
        Hook { name: "connect4".into(), attached, repairs: 0, error: Some("no memory".into()) }
    }

    #[test]
    fn incidents_are_shown_for_a_while_and_once() {
        let status = connected();
        let start = Instant::now();
        status.incident_at(start, "hook connect4 was gone".into());
        status.incident_at(start + Duration::from_secs(2), "hook connect4 was gone".into());
        let problems = |after| {
            status.to_wire_at(start + Duration::from_secs(after), "node-1", 0).problems.len()
        };
        assert_eq!((problems(3), problems(11), problems(12)), (1, 1, 0));
    }

    #[test]
    fn ready_needs_a_picture_hooks_and_every_pod_once() {
        let status = Status::default();
        assert_eq!(status.not_ready().len(), 3);
        let status = connected();
        status.set_kernel(vec![hook(true)], Vec::new());
        let pod = PodState {
            name: NamespacedName::new("shop", "web"),
            uid: "u1".into(),
            phase: Phase::Waiting,
            uncaptured: Some(Uncaptured::Waiting),
            reason: "waits for its certificate".into(),
            notes: Vec::new(),
            connections: 0,
        };
        status.set_pods(vec![pod.clone()], false);
        assert_eq!(status.not_ready(), ["pod shop/web is not captured: waits for its certificate"]);
        let failed = PodState { phase: Phase::Failed, ..pod.clone() };
        status.set_pods(vec![failed], true);
        assert!(status.not_ready().is_empty(), "one that cannot be captured holds up nobody");
        assert_eq!(status.to_wire("node-1", 0).problems.len(), 1);
        status.set_pods(vec![pod], false);
        assert!(status.not_ready().is_empty(), "a later pod does not take readiness away");
        status.set_kernel(vec![hook(false)], Vec::new());
        assert_eq!(status.not_ready(), ["kernel hook connect4 is not attached: no memory"]);
    }
}
