//! The state of the controller: objects and captures in, pictures of the mesh out.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mesh_common::identity::TrustDomain;
use tokio::sync::watch;

use crate::{
    captured::{Captures, CapturesFile},
    compile::{ObjectStatus, compile, statuses},
    private_file::{self, PrivateFileError},
    source::Objects,
    view::Picture,
};

/// The one place where objects and captures meet.
#[derive(Debug)]
pub struct Mesh {
    trust_domain: TrustDomain,
    captures_file: CapturesFile,
    /// Where the status of objects is written, which in a cluster they would carry themselves.
    status_file: PathBuf,
    state: Mutex<State>,
    /// Only the newest picture is kept: an agent that is slow to take one misses those between.
    picture: watch::Sender<Arc<Picture>>,
}

#[derive(Debug, Default)]
struct State {
    objects: Objects,
    captures: Captures,
    complaints: BTreeSet<String>,
    statuses: Vec<ObjectStatus>,
}

impl Mesh {
    /// A mesh without objects, and with the captures saved in the state directory `dir`.
    ///
    /// # Errors
    /// Where the captures cannot be read.
    pub fn open(dir: &Path, trust_domain: TrustDomain) -> Result<Self, PrivateFileError> {
        let captures_file = CapturesFile::new(dir);
        let captures = captures_file.load()?;
        let state = State { captures, ..State::default() };
        Ok(Self {
            trust_domain,
            captures_file,
            status_file: dir.join("status.json"),
            state: Mutex::new(state),
            picture: watch::Sender::new(Arc::default()),
        })
    }

    /// Replaces the objects.
    pub fn set_objects(&self, objects: Objects) {
        let mut state = self.lock();
        state.objects = objects;
        self.publish(&mut state);
    }

    /// Notes which pods the agent of `node` captured, on disk before anyone is told of it.
    pub fn report_captures(&self, node: &str, uids: Vec<String>) {
        let mut state = self.lock();
        if !state.captures.report(node, uids) {
            return;
        }
        if let Err(error) = self.captures_file.save(&state.captures) {
            tracing::error!(
                %error,
                "captures are not saved: if the controller restarts, callers of newly captured \
                 pods speak plaintext until their agents report again"
            );
        }
        self.publish(&mut state);
    }

    /// The picture now, and as it changes.
    pub fn pictures(&self) -> watch::Receiver<Arc<Picture>> {
        self.picture.subscribe()
    }

    fn publish(&self, state: &mut State) {
        let index = state.objects.in_use.values().map(|(object, _)| object).collect();
        let compiled = compile(&index, &state.captures, &self.trust_domain);
        let refusals = state.objects.refusals.iter().map(ToString::to_string);
        let problems = compiled.problems.iter().map(|problem| {
            match state.objects.in_use.get(&problem.object) {
                Some((_, place)) => format!("{place}: {}: {}", problem.object, problem.reason),
                None => format!("{}: {}", problem.object, problem.reason),
            }
        });
        let complaints: BTreeSet<String> = refusals.chain(problems).collect();
        for new in complaints.difference(&state.complaints) {
            tracing::warn!("{new}");
        }
        for settled in state.complaints.difference(&complaints) {
            tracing::info!("no longer: {settled}");
        }
        state.complaints = complaints;
        self.picture.send_replace(Arc::new(Picture::new(&compiled)));
        self.write_statuses(statuses(&state.objects, &compiled), state);
    }

    fn write_statuses(&self, statuses: Vec<ObjectStatus>, state: &mut State) {
        if statuses == state.statuses && self.status_file.exists() {
            return;
        }
        let written = serde_json::to_vec_pretty(&statuses).map_err(|error| error.to_string());
        let written = written.and_then(|json| {
            private_file::write(&self.status_file, &json).map_err(|error| error.to_string())
        });
        if let Err(error) = written {
            tracing::warn!(error, "the status of objects is not written");
        }
        state.statuses = statuses;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
