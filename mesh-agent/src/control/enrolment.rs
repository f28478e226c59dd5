//! Pods coming into the mesh and leaving it.
//!
//! One thread compares the pods that shall be captured with those that are, and takes the steps
//! between: system calls block, and a pod's network namespace must not be entered from a thread
//! that does anything else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_common::{identity::SpiffeId, model::Workload};

use crate::{
    backoff::Backoff,
    capture::{InboundModes, MapUse},
    identity::NoCertificate,
    status::{Hook, Phase, PodState, Uncaptured},
};

mod captures;
mod inspection;
mod pressure;
mod thread;

pub use captures::{Captures, Missed};
pub use thread::{EnrolmentThread, Reports};

/// The first wait before a pod that could not be captured is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The longest such wait: a namespace that appears late is found within this.
const RETRY_CAP: Duration = Duration::from_secs(5);
/// How long a pod waits for a certificate that nobody refuses before that counts as a failure.
const CERTIFICATE_PATIENCE: Duration = Duration::from_secs(30);

/// What takes the steps: the kernel and the proxy. Errors are texts for people.
pub trait Captor: Send {
    /// Captures a pod; one that drains is captured anew.
    fn capture(&mut self, pod: &Workload, modes: &InboundModes) -> Result<(), String>;
    /// Changes what happens to plaintext that arrives.
    fn set_inbound_modes(&mut self, uid: &str, modes: &InboundModes) -> Result<(), String>;
    /// Captures no new connections of a pod until it is captured anew; those that are proxied go
    /// on, and whoever speaks HBONE to it is served still.
    fn bypass(&mut self, uid: &str) -> Result<(), String>;
    /// Captures no new connections of a pod; those that are proxied go on.
    fn release(&mut self, uid: &str) -> Result<(), String>;
    /// Leaves nothing behind in a released pod.
    fn finish_release(&mut self, uid: &str) -> Result<(), String>;
    /// Proxied connections of a pod.
    fn connections(&self, uid: &str) -> usize;
    /// Whether the proxy has nothing more to do for a released pod: its last connection ended,
    /// and whoever did not know yet that it left had time to hear it.
    fn is_drained(&self, uid: &str) -> bool;
    /// Whether the network namespace that a pod was captured in has ended.
    fn is_gone(&self, uid: &str) -> bool;
    /// Uids of pods that an earlier agent captured and that were not captured again yet.
    fn adopted(&self) -> Vec<Arc<str>>;
    /// Looks at every hook, puts back what is missing, and reads the counters.
    fn inspect(&mut self) -> (Vec<Hook>, Vec<(&'static str, u64)>);
    /// What is worth knowing of a pod and no problem.
    fn notes(&self, uid: &str) -> Vec<String>;
    /// Looks whether that is still so.
    fn look_around(&mut self);
    /// Counts what the kernel maps hold that have a limit.
    fn map_use(&self) -> Result<Vec<MapUse>, String>;
}

/// What is known of each pod.
#[derive(Debug, Default)]
pub struct Enrolment {
    pods: BTreeMap<Arc<str>, Entry>,
}

#[derive(Debug)]
struct Entry {
    workload: Arc<Workload>,
    /// Since when it is wanted.
    since: Instant,
    state: State,
    /// How much longer it bypasses the mesh, where it does.
    bypassed: Option<String>,
    /// What failed last, and when to try again.
    failure: Option<Failure>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was done yet.
    New,
    /// The kernel hands its connections to the proxy.
    Captured(InboundModes),
    /// Its new connections go around the mesh, and the proxy goes on to serve it.
    Bypassed,
    /// Released; its last connections end.
    Draining,
}

#[derive(Debug)]
struct Failure {
    reason: String,
    /// What it lacks because of this, if it is not captured.
    lacks: Uncaptured,
    backoff: Backoff,
    /// `None` while there is no certificate, which wakes the thread when it comes.
    retry_at: Option<Instant>,
}

impl Enrolment {
    /// Takes every step that is possible now towards `desired` being captured and nothing else.
    /// `certificate` says whether an identity has one, or why not, and `bypassed` how much longer a
    /// pod bypasses the mesh, if it does.
    pub fn reconcile(
        &mut self,
        now: Instant,
        desired: &[Arc<Workload>],
        certificate: impl Fn(&SpiffeId) -> Result<(), NoCertificate>,
        bypassed: impl Fn(&Workload) -> Option<String>,
        captor: &mut dyn Captor,
    ) {
        // Before what takes longer: until then the kernel lets in plaintext that may be refused now.
        for workload in desired {
            if let Some(entry) = self.pods.get_mut(&workload.uid) {
                entry.adjust(now, workload, captor);
            }
        }
        let wanted: BTreeSet<_> = desired.iter().map(|workload| &workload.uid).collect();
        let leaving: Vec<_> =
            self.pods.keys().filter(|uid| !wanted.contains(uid)).cloned().collect();
        for uid in leaving {
            if self.pods.get_mut(&uid).is_some_and(|entry| entry.leave(now, captor)) {
                self.pods.remove(&uid);
            }
        }
        for workload in desired {
            let entry = self.pods.entry(Arc::clone(&workload.uid));
            let entry = entry.or_insert_with(|| Entry::new(Arc::clone(workload), now));
            entry.bypassed = bypassed(workload);
            if entry.bypassed.is_some() {
                entry.bypass(now, workload, captor);
            } else {
                entry.enter(now, workload, &certificate, captor);
            }
        }
        for uid in captor.adopted().into_iter().filter(|uid| !wanted.contains(uid)) {
            // Their proxied connections ended with the earlier agent.
            match captor.release(&uid).and_then(|()| captor.finish_release(&uid)) {
                Ok(()) => tracing::info!(%uid, "an earlier agent's pod has left the mesh"),
                Err(reason) => {
                    tracing::warn!(%uid, reason, "cannot release an earlier agent's pod");
                }
            }
        }
    }

    /// Uids of the pods that are captured.
    pub fn captured(&self) -> BTreeSet<Arc<str>> {
        let captured = self.pods.iter().filter(|(_, entry)| entry.is_captured());
        captured.map(|(uid, _)| Arc::clone(uid)).collect()
    }

    /// What the controller is told; `bypass_end` is when a pod's bypass ends.
    pub fn captures(&self, bypass_end: impl Fn(&Workload) -> Option<u64>) -> Captures {
        let uncaptured = self.pods.iter().filter_map(|(uid, entry)| {
            let missed = match entry.phase() {
                Phase::Waiting => Missed::Waiting(entry.reason()),
                Phase::Failed => Missed::Failed(entry.reason()),
                Phase::Bypassed => Missed::Bypassed(bypass_end(&entry.workload)?),
                Phase::Captured | Phase::Draining => return None,
            };
            Some((Arc::clone(uid), missed))
        });
        Captures { captured: self.captured(), uncaptured: uncaptured.collect() }
    }

    /// The identities that are needed: of pods that are, or shall be, captured, or still drain.
    pub fn identities(&self) -> BTreeSet<SpiffeId> {
        self.pods.values().filter_map(|entry| entry.workload.identity.clone()).collect()
    }

    /// Whether each pod was tried: it is captured, or failed for a reason that is said, and does not
    /// merely wait.
    pub fn is_tried(&self) -> bool {
        self.pods.values().all(|entry| entry.phase() != Phase::Waiting)
    }

    /// Whether a pod drains, so that its connections have to be looked at.
    pub fn is_draining(&self) -> bool {
        self.pods.values().any(|entry| entry.state == State::Draining)
    }

    /// When the next failed step is to be tried again.
    pub fn next_retry(&self) -> Option<Instant> {
        let retries = self.pods.values().filter_map(|entry| entry.failure.as_ref()?.retry_at);
        retries.min()
    }

    /// The pods as status shows them.
    pub fn states(&self, captor: &dyn Captor) -> Vec<PodState> {
        let mut states: Vec<_> = self
            .pods
            .iter()
            .map(|(uid, entry)| PodState {
                name: entry.workload.name.clone(),
                uid: Arc::clone(uid),
                phase: entry.phase(),
                uncaptured: entry.uncaptured(),
                reason: entry.reason(),
                notes: captor.notes(uid),
                connections: captor.connections(uid),
            })
            .collect();
        states.sort_by(|one, other| one.name.cmp(&other.name));
        states
    }
}

impl Entry {
    fn new(workload: Arc<Workload>, now: Instant) -> Self {
        Self { workload, since: now, state: State::New, bypassed: None, failure: None }
    }

    fn is_captured(&self) -> bool {
        matches!(self.state, State::Captured(_))
    }

    fn reason(&self) -> String {
        match (&self.failure, &self.bypassed) {
            (Some(failure), _) => failure.reason.clone(),
            (None, Some(left)) => format!("outside the mesh for another {left}"),
            (None, None) => String::new(),
        }
    }

    fn phase(&self) -> Phase {
        if self.is_bypassed() {
            return Phase::Bypassed;
        }
        match (self.uncaptured(), &self.state) {
            (Some(Uncaptured::Waiting), _) => Phase::Waiting,
            (Some(Uncaptured::Certificate | Uncaptured::Capture), _) => Phase::Failed,
            (None, State::Draining) => Phase::Draining,
            (None, State::New | State::Bypassed | State::Captured(_)) => Phase::Captured,
        }
    }

    /// Whether it is outside the mesh for a while, as somebody wants it.
    fn is_bypassed(&self) -> bool {
        self.bypassed.is_some() && self.failure.is_none() && !self.is_captured()
    }

    /// What keeps it from being captured, if it shall be and is not.
    fn uncaptured(&self) -> Option<Uncaptured> {
        if self.is_bypassed() {
            return None;
        }
        let lacks = self.failure.as_ref().map(|failure| failure.lacks);
        match self.state {
            State::New | State::Bypassed => Some(lacks.unwrap_or(Uncaptured::Waiting)),
            // A step that failed is one out of the mesh, or is taken again in a moment.
            State::Draining => lacks.filter(|lacks| *lacks != Uncaptured::Capture),
            State::Captured(_) => None,
        }
    }

    /// Has a pod that stays captured receive plaintext as `workload` says.
    fn adjust(&mut self, now: Instant, workload: &Arc<Workload>, captor: &mut dyn Captor) {
        if !is_same_place(&self.workload, workload) || self.is_waiting_until(now) {
            return;
        }
        let modes = InboundModes::of(workload);
        if matches!(&self.state, State::Captured(current) if *current != modes) {
            self.set_modes(now, modes, captor);
        }
    }

    fn set_modes(&mut self, now: Instant, modes: InboundModes, captor: &mut dyn Captor) {
        let set = |uid: &str, captor: &mut dyn Captor| captor.set_inbound_modes(uid, &modes);
        if self.step(now, "change the inbound modes of", set, captor) {
            let InboundModes { others, ports, probes } = &modes;
            let name = &self.workload.name;
            tracing::info!(pod = %name, ?others, ?ports, ?probes, "inbound modes");
            self.state = State::Captured(modes);
        }
    }

    /// Steps towards being captured as `workload` says.
    fn enter(
        &mut self,
        now: Instant,
        workload: &Arc<Workload>,
        certificate: &impl Fn(&SpiffeId) -> Result<(), NoCertificate>,
        captor: &mut dyn Captor,
    ) {
        let moved = !is_same_place(&self.workload, workload);
        self.workload = Arc::clone(workload);
        if moved {
            // What failed for what it was may work for what it is.
            self.failure = None;
            self.since = now;
        }
        if self.is_waiting_until(now) {
            return;
        }
        let gone = self.state != State::New && captor.is_gone(&workload.uid);
        if (moved || gone) && self.is_captured() {
            if !self.step(now, "release", |uid, captor| captor.release(uid), captor) {
                return;
            }
            self.state = State::Draining;
        }
        if gone {
            let finish = |uid: &str, captor: &mut dyn Captor| captor.finish_release(uid);
            if !self.step(now, "finish the release of", finish, captor) {
                return;
            }
            self.state = State::New;
        }
        let modes = InboundModes::of(workload);
        match &self.state {
            State::Captured(current) if *current == modes => {}
            State::Captured(_) => self.set_modes(now, modes, captor),
            State::New | State::Bypassed | State::Draining => {
                let Some(identity) = &workload.identity else { return };
                if let Err(missing) = certificate(identity) {
                    self.lack_certificate(now, missing);
                    return;
                }
                let capture = |_: &str, captor: &mut dyn Captor| captor.capture(workload, &modes);
                if self.step(now, "capture", capture, captor) {
                    self.state = State::Captured(modes);
                }
            }
        }
    }

    /// Notes that there is no certificate, and says so where waiting alone will not help.
    fn lack_certificate(&mut self, now: Instant, missing: NoCertificate) {
        let NoCertificate { reason, is_refused } = missing;
        let is_late = now.duration_since(self.since) >= CERTIFICATE_PATIENCE;
        let lacks =
            if is_refused || is_late { Uncaptured::Certificate } else { Uncaptured::Waiting };
        let known = self.failure.as_ref();
        let is_known = known.is_some_and(|known| known.lacks == lacks && known.reason == reason);
        if lacks == Uncaptured::Certificate && !is_known {
            tracing::warn!(pod = %self.workload.name, reason, "cannot capture the pod; will try again");
        }
        let backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        self.failure = Some(Failure { reason, lacks, backoff, retry_at: None });
    }

    /// Steps towards going around the mesh.
    fn bypass(&mut self, now: Instant, workload: &Arc<Workload>, captor: &mut dyn Captor) {
        self.workload = Arc::clone(workload);
        let waits_for_certificate = |failure: &Failure| failure.retry_at.is_none();
        if self.failure.as_ref().is_some_and(waits_for_certificate) {
            self.failure = None;
        }
        if self.is_waiting_until(now) {
            return;
        }
        let uid = &workload.uid;
        let is_gone = self.state != State::New && captor.is_gone(uid);
        if self.is_captured() {
            let bypass = |uid: &str, captor: &mut dyn Captor| captor.bypass(uid);
            if !self.step(now, "let around the mesh", bypass, captor) {
                return;
            }
            self.state = State::Bypassed;
        }
        let finish = |uid: &str, captor: &mut dyn Captor| captor.finish_release(uid);
        if is_gone && self.step(now, "finish the release of", finish, captor) {
            self.state = State::New;
        }
        // An earlier agent captured it, and ended before it could release it.
        let release = |uid: &str, captor: &mut dyn Captor| {
            captor.release(uid).and_then(|()| captor.finish_release(uid))
        };
        if self.state == State::New {
            if captor.adopted().contains(uid) {
                self.step(now, "release", release, captor);
            } else {
                // What kept it from being captured does not matter now.
                self.failure = None;
            }
        }
    }

    /// Steps towards being gone; whether it is.
    fn leave(&mut self, now: Instant, captor: &mut dyn Captor) -> bool {
        if self.is_waiting_until(now) && self.state != State::New {
            return false;
        }
        self.bypassed = None;
        if self.is_captured() || self.state == State::Bypassed {
            if !self.step(now, "release", |uid, captor| captor.release(uid), captor) {
                return false;
            }
            self.state = State::Draining;
        }
        if self.state == State::New {
            return true;
        }
        let uid = &self.workload.uid;
        if !captor.is_drained(uid) && !captor.is_gone(uid) {
            return false;
        }
        let finish = |uid: &str, captor: &mut dyn Captor| captor.finish_release(uid);
        let finished = self.step(now, "finish the release of", finish, captor);
        if finished {
            tracing::info!(pod = %self.workload.name, "has left the mesh");
        }
        finished
    }

    /// Takes one step, and notes its failure or that there is none any more.
    fn step(
        &mut self,
        now: Instant,
        what: &str,
        step: impl FnOnce(&str, &mut dyn Captor) -> Result<(), String>,
        captor: &mut dyn Captor,
    ) -> bool {
        let Err(reason) = step(&self.workload.uid, captor) else {
            self.failure = None;
            return true;
        };
        let (known, mut backoff) = match self.failure.take() {
            Some(earlier) => (earlier.reason == reason, earlier.backoff),
            None => (false, Backoff::new(RETRY_FIRST, RETRY_CAP)),
        };
        if !known {
            tracing::warn!(pod = %self.workload.name, reason, "cannot {what} the pod; will try again");
        }
        let retry_at = Some(now + backoff.wait());
        self.failure = Some(Failure { reason, lacks: Uncaptured::Capture, backoff, retry_at });
        false
    }

    fn is_waiting_until(&self, now: Instant) -> bool {
        let retry_at = self.failure.as_ref().and_then(|failure| failure.retry_at);
        retry_at.is_some_and(|retry_at| now < retry_at)
    }
}

/// Whether what capturing a pod depends on is the same.
fn is_same_place(one: &Workload, other: &Workload) -> bool {
    one.name == other.name && one.addresses == other.addresses && one.identity == other.identity
}

#[cfg(test)]
mod tests;
