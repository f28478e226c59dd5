//! The state of the controller: objects and captures in, pictures of the mesh out.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mesh_common::{identity::TrustDomain, model::NamespacedName};
use tokio::sync::{Notify, watch};

use crate::{
    captured::{Captures, CapturesFile, Missed, Report},
    compile::{ObjectStatus, Problem, compile, statuses},
    object::{Kind, Object, ObjectKey},
    private_file::{self, PrivateFileError},
    source::{Objects, Place},
    view::Picture,
};

/// The one place where objects and captures meet.
#[derive(Debug)]
pub struct Mesh {
    trust_domain: TrustDomain,
    /// Where what has to outlive the controller is kept; in a cluster, which keeps it, nowhere.
    files: Option<Files>,
    inputs: Mutex<Inputs>,
    /// Captures changed, and nobody compiled yet.
    stale: Notify,
    published: Mutex<Published>,
    /// Only the newest picture is kept: an agent that is slow to take one misses those between.
    picture: watch::Sender<Arc<Picture>>,
    outcome: watch::Sender<Arc<Outcome>>,
}

#[derive(Debug)]
struct Files {
    captures: CapturesFile,
    /// Where the status of objects is written, which in a cluster they carry themselves.
    status: PathBuf,
}

#[derive(Debug, Default)]
struct Inputs {
    objects: Arc<Objects>,
    captures: Captures,
}

#[derive(Debug, Default)]
struct Published {
    complaints: BTreeSet<String>,
    statuses: Vec<ObjectStatus>,
}

/// What people shall know of the objects.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The objects, and those that are refused.
    pub objects: Arc<Objects>,
    /// What became of nodemesh's own objects, and of pods that cannot be in the mesh.
    pub statuses: Vec<ObjectStatus>,
    /// What is wrong with objects in use.
    pub problems: Vec<Problem>,
    /// Pods that are in the mesh, and that no agent said it captured.
    pub uncaptured: Vec<Uncaptured>,
    /// How long compiling took.
    pub compiling: Duration,
}

/// A pod that is in the mesh and not captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncaptured {
    /// The pod.
    pub name: NamespacedName,
    /// Its uid.
    pub uid: Arc<str>,
    /// Its node.
    pub node: Option<Arc<str>>,
    /// Why, and the version of the agent that says so; `None` where none did.
    pub missed: Option<(Missed, String)>,
}

impl Mesh {
    /// A mesh without objects, and with the captures saved in the state directory `dir`.
    ///
    /// # Errors
    /// Where the captures cannot be read.
    pub fn open(dir: &Path, trust_domain: TrustDomain) -> Result<Self, PrivateFileError> {
        let files = Files { captures: CapturesFile::new(dir), status: dir.join("status.json") };
        let captures = files.captures.load()?;
        let inputs = Mutex::new(Inputs { captures, ..Inputs::default() });
        Ok(Self { files: Some(files), inputs, ..Self::new(trust_domain) })
    }

    /// A mesh without objects that keeps nothing.
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            files: None,
            inputs: Mutex::default(),
            stale: Notify::new(),
            published: Mutex::default(),
            picture: watch::Sender::new(Arc::default()),
            outcome: watch::Sender::new(Arc::default()),
        }
    }

    /// Replaces the objects.
    pub fn set_objects(&self, objects: Objects) {
        lock(&self.inputs).objects = objects.into();
        self.publish();
    }

    /// Notes which pods the agent of `node` captured. With files that is on disk before anyone is
    /// told of it; without, [`publish`](Self::publish) is whose business [`stale`](Self::stale) is.
    pub fn report_captures(&self, node: &str, report: Report) {
        {
            let mut inputs = lock(&self.inputs);
            if !inputs.captures.report(node, report) {
                return;
            }
            let saved = self.files.as_ref().map(|files| files.captures.save(&inputs.captures));
            if let Some(Err(error)) = saved {
                tracing::error!(
                    %error,
                    "captures are not saved: if the controller restarts, callers of newly captured \
                     pods speak plaintext until their agents report again"
                );
            }
        }
        match self.files {
            Some(_) => self.publish(),
            None => self.stale.notify_one(),
        }
    }

    /// Ends when captures were reported that no picture has.
    pub async fn stale(&self) {
        self.stale.notified().await;
    }

    /// The picture now, and as it changes.
    pub fn pictures(&self) -> watch::Receiver<Arc<Picture>> {
        self.picture.subscribe()
    }

    /// What became of the objects, now and as it changes.
    pub fn outcomes(&self) -> watch::Receiver<Arc<Outcome>> {
        self.outcome.subscribe()
    }

    /// The node that runs the pod `name` with this uid.
    pub fn node_of_pod(&self, name: &NamespacedName, uid: &str) -> Option<Arc<str>> {
        let objects = lock(&self.inputs).objects.clone();
        let key = ObjectKey { kind: Kind::Pod, name: name.clone() };
        match &*objects.in_use.get(&key)?.0 {
            Object::Pod(pod) if *pod.uid == *uid => pod.node.clone(),
            _ => None,
        }
    }

    /// The uid of an object in use, where the API server gave it one.
    pub fn uid_of(&self, key: &ObjectKey) -> Option<Arc<str>> {
        lock(&self.inputs).objects.clone().uid_of(key)
    }

    /// Compiles what is known now and shows it to everybody.
    pub fn publish(&self) {
        // Held throughout, so that an older picture never follows a newer one.
        let mut published = lock(&self.published);
        let (objects, captures) = {
            let inputs = lock(&self.inputs);
            (inputs.objects.clone(), inputs.captures.clone())
        };
        let started = Instant::now();
        let index = objects.in_use.values().map(|(object, _)| object).collect();
        let compiled = compile(&index, &captures, &self.trust_domain);
        self.picture.send_replace(Arc::new(Picture::new(&compiled)));
        let compiling = started.elapsed();

        let refusals = objects.refusals.iter().map(ToString::to_string);
        let problems =
            compiled.problems.iter().map(|problem| match objects.in_use.get(&problem.object) {
                Some((_, place @ Place::File { .. })) => {
                    format!("{place}: {}: {}", problem.object, problem.reason)
                }
                _ => format!("{}: {}", problem.object, problem.reason),
            });
        let complaints: BTreeSet<String> = refusals.chain(problems).collect();
        for new in complaints.difference(&published.complaints) {
            tracing::warn!("{new}");
        }
        for settled in published.complaints.difference(&complaints) {
            tracing::info!("no longer: {settled}");
        }
        published.complaints = complaints;
        let statuses = statuses(&objects, &compiled);
        if let Some(files) = &self.files {
            files.write_statuses(&statuses, &mut published);
        }
        let uncaptured = compiled.workloads().filter(|it| it.enrolled && !it.captured).map(|it| {
            let missed = it.node.as_ref().and_then(|node| captures.missed(node, &it.uid));
            Uncaptured {
                name: it.name.clone(),
                uid: it.uid.clone(),
                node: it.node.clone(),
                missed: missed.map(|(missed, version)| (missed.clone(), version.to_owned())),
            }
        });
        self.outcome.send_replace(Arc::new(Outcome {
            statuses,
            uncaptured: uncaptured.collect(),
            problems: compiled.problems,
            compiling,
            objects,
        }));
    }
}

impl Files {
    fn write_statuses(&self, statuses: &[ObjectStatus], published: &mut Published) {
        if statuses == published.statuses && self.status.exists() {
            return;
        }
        let written = serde_json::to_vec_pretty(statuses).map_err(|error| error.to_string());
        let written = written.and_then(|json| {
            private_file::write(&self.status, &json).map_err(|error| error.to_string())
        });
        if let Err(error) = written {
            tracing::warn!(error, "the status of objects is not written");
        }
        published.statuses = statuses.to_vec();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
