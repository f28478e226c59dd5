//! Pods that are let around the mesh for a while, on demand of somebody on the node: when the mesh
//! itself is what is wrong. Nobody else is asked, it is kept over restarts, and it ends by itself.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use mesh_common::model::{Action, NamespacedName, PeerMode, Workload};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::files;

/// The longest time that a bypass may be asked for.
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What is let around the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// A pod, by namespace and name.
    Pod(String, String),
    /// The pods of a namespace, those to come as well.
    Namespace(String),
    /// All pods of the node.
    Node,
}

/// One that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Bypass {
    scope: Scope,
    /// Seconds since the Unix epoch.
    until: u64,
    /// Whether it holds for pods that the mesh protects.
    insecure: bool,
}

/// Every bypass that holds.
#[derive(Debug)]
pub struct Bypasses {
    file: Option<PathBuf>,
    held: Mutex<Vec<Bypass>>,
    changed: watch::Sender<u64>,
}

impl Default for Bypasses {
    fn default() -> Self {
        Self { file: None, held: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Bypasses {
    /// Those that an earlier agent wrote to `file` and whose time is not over, kept there.
    pub fn load(file: PathBuf) -> Self {
        let held = read(&file).unwrap_or_else(|error| {
            tracing::error!(
                path = %file.display(), %error,
                "cannot read what bypasses the mesh: nothing does any more; ask for it again"
            );
            Vec::new()
        });
        let longest = now() + LONGEST.as_secs();
        let mut bypasses = Self { file: Some(file), ..Self::default() };
        for mut bypass in held {
            // The clock may have been set back meanwhile.
            bypass.until = bypass.until.min(longest);
            tracing::warn!(scope = %bypass.scope, left = left(bypass.until), "bypasses the mesh still");
            bypasses.held.get_mut().unwrap_or_else(PoisonError::into_inner).push(bypass);
        }
        bypasses
    }

    /// Begins a bypass, or gives one of the same scope another end.
    ///
    /// # Errors
    /// Where it cannot be kept on disk; then it does not begin.
    pub fn begin(&self, scope: Scope, lasting: Duration, insecure: bool) -> io::Result<u64> {
        let until = now() + lasting.as_secs();
        self.change(|held| {
            held.retain(|bypass| bypass.scope != scope);
            held.push(Bypass { scope: scope.clone(), until, insecure });
        })?;
        tracing::warn!(%scope, time = left(until), insecure, "bypasses the mesh");
        Ok(until)
    }

    /// Ends the bypass of this scope; whether there was one.
    ///
    /// # Errors
    /// Where that cannot be kept on disk; then it goes on.
    pub fn end(&self, scope: &Scope) -> io::Result<bool> {
        let mut was_there = false;
        self.change(|held| {
            let before = held.len();
            held.retain(|bypass| bypass.scope != *scope);
            was_there = held.len() < before;
        })?;
        if was_there {
            tracing::info!(%scope, "bypasses the mesh no more");
        }
        Ok(was_there)
    }

    /// How much longer a pod bypasses the mesh, for people; `None` where it does not.
    pub fn left_for(&self, pod: &Workload) -> Option<String> {
        self.end_for(pod).map(left)
    }

    /// When a pod stops to bypass the mesh, seconds since the Unix epoch.
    pub fn end_for(&self, pod: &Workload) -> Option<u64> {
        let held = self.held();
        let until = held.iter().filter(|bypass| bypass.holds_for(pod)).map(|bypass| bypass.until);
        until.max()
    }

    /// What to tell about each that holds.
    pub fn problems(&self) -> Vec<String> {
        let problem = |bypass: &Bypass| {
            let Bypass { scope, until, .. } = bypass;
            let left = left(*until);
            format!(
                "{scope} bypasses the mesh for another {left}: no mTLS, no policies, no flows; end \
                 it with `nodemesh bypass {} --end`",
                scope.flags()
            )
        };
        self.held().iter().map(problem).collect()
    }

    /// Ends those whose time is over, and says when the next one's is.
    pub fn expire(&self) -> Option<Duration> {
        let now = now();
        let is_over = |bypass: &Bypass| bypass.until <= now;
        let over: Vec<_> = self.held().iter().filter(|it| is_over(it)).cloned().collect();
        if !over.is_empty() {
            for Bypass { scope, .. } in &over {
                tracing::info!(%scope, "its bypass of the mesh is over");
            }
            // What is over on disk as well is not read again.
            if let Err(error) = self.change(|held| held.retain(|bypass| !is_over(bypass))) {
                tracing::warn!(%error, "cannot forget on disk what bypassed the mesh");
                self.held().retain(|bypass| !is_over(bypass));
            }
        }
        let next = self.held().iter().map(|bypass| bypass.until).min();
        next.map(|until| Duration::from_secs(until.saturating_sub(now)))
    }

    /// Grows with every change.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Bypass>)) -> io::Result<()> {
        let mut held = self.held();
        let mut changed = held.clone();
        change(&mut changed);
        if changed == *held {
            return Ok(());
        }
        if let Some(file) = &self.file {
            files::replace(file, &serde_json::to_vec(&changed)?)?;
        }
        *held = changed;
        drop(held);
        self.changed.send_modify(|times| *times += 1);
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Vec<Bypass>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bypass {
    /// A pod that the mesh has begun to protect since is not let out for that.
    fn holds_for(&self, pod: &Workload) -> bool {
        self.until > now() && self.scope.covers(&pod.name) && (self.insecure || !is_protected(pod))
    }
}

impl Scope {
    /// Whether a pod is in it.
    pub fn covers(&self, pod: &NamespacedName) -> bool {
        match self {
            Self::Pod(namespace, name) => *pod.namespace == **namespace && *pod.name == **name,
            Self::Namespace(namespace) => *pod.namespace == **namespace,
            Self::Node => true,
        }
    }

    fn flags(&self) -> String {
        match self {
            Self::Pod(namespace, name) => format!("--pod {namespace}/{name}"),
            Self::Namespace(namespace) => format!("--namespace {namespace}"),
            Self::Node => "--node".to_owned(),
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod(namespace, name) => write!(f, "pod {namespace}/{name}"),
            Self::Namespace(namespace) => write!(f, "namespace {namespace}"),
            Self::Node => f.write_str("every pod of this node"),
        }
    }
}

/// Whether whoever may not call a pod could call it outside of the mesh.
pub fn is_protected(pod: &Workload) -> bool {
    let admission = &pod.admission;
    admission.peer_mode == PeerMode::Strict
        || admission.port_modes.iter().any(|port| port.mode == PeerMode::Strict)
        || admission.default_action == Action::Deny
        || !pod.authorization_policies.is_empty()
}

/// Seconds since the Unix epoch. Not the time since the machine started: that begins anew.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// How long it is until then.
fn left(until: u64) -> String {
    let seconds = until.saturating_sub(now());
    match seconds.div_ceil(60) {
        0 | 1 => format!("{seconds} s"),
        minutes @ 2..120 => format!("{minutes} min"),
        minutes => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

fn read(file: &PathBuf) -> io::Result<Vec<Bypass>> {
    match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        content => Ok(serde_json::from_slice(&content?)?),
    }
}

#[cfg(test)]
mod tests;
