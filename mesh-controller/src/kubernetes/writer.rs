//! Writes into the cluster what became of its objects: status and Events, by one controller of all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use kube::{
    Client,
    api::{ListParams, Patch, PatchParams, PostParams},
    core::Request,
};
use mesh_common::model::{ResourceKey, ResourceKind, RouteKind};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    ApiError, FIELD_MANAGER, Verb,
    backoff::Backoff,
    events::{Events, Notice},
    health::Health,
    routes::RouteWriter,
    status::{self, Difference},
};
use crate::{
    compile::{ObjectStatus, Problem},
    crd::Status,
    mesh::{Mesh, Outcome},
    object::{Kind, ObjectKey},
    serve::{Controller, Refused},
    source::{Place, Refusal},
    view::Picture,
};

/// Changes that follow one another closely are written once.
const SETTLE: Duration = Duration::from_millis(200);
/// How often it is looked whether something is due that no change tells of.
const TICK: Duration = Duration::from_secs(5);
/// Numbers change with every pod; they are written this often at most.
const NUMBERS: Duration = Duration::from_secs(10);
/// A pod that is in the mesh is captured within seconds; after so long something is wrong.
const CAPTURE: Duration = Duration::from_secs(60);
/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
const PAGE: u32 = 500;
const STATUS: &str = "status of nodemesh.dev kinds";
const ROUTES: &str = "status of routes";
const EVENTS: &str = "events.events.k8s.io";

/// Writes.
pub struct Writer {
    client: Client,
    name: String,
    health: Health,
    known: BTreeMap<ObjectKey, (Status, Instant)>,
    routes: RouteWriter,
    events: Events,
    /// Since when pods are in the mesh and not captured, by uid.
    uncaptured: BTreeMap<Arc<str>, Instant>,
}

/// Writes whenever `leads` says so and something changed, for ever.
pub async fn run(
    mut writer: Writer,
    mesh: Arc<Mesh>,
    controller: Controller,
    mut leads: watch::Receiver<bool>,
) {
    let mut outcomes = mesh.outcomes();
    while leads.wait_for(|leads| *leads).await.is_ok() {
        let mut backoff = Backoff::default();
        let mut is_loaded = false;
        while *leads.borrow_and_update() {
            let started = Instant::now();
            let result = match is_loaded {
                true => Ok(()),
                false => writer.load().await,
            };
            is_loaded |= result.is_ok();
            let result = match result {
                Ok(()) => {
                    let outcome = outcomes.borrow_and_update().clone();
                    let picture = mesh.pictures().borrow().clone();
                    writer.write(&outcome, &picture, &controller).await
                }
                Err(error) => Err(error),
            };
            let wait = match result {
                Ok(()) => SETTLE,
                Err(error) => backoff.next(started.elapsed(), error.retry_after()),
            };
            tokio::time::sleep(wait).await;
            tokio::select! {
                _ = outcomes.changed() => {}
                () = controller.nacks().changed() => {}
                _ = leads.changed() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }
}

impl Writer {
    /// A writer for the controller called `name`.
    pub fn new(client: Client, name: String, health: Health) -> Self {
        let events = Events::new(Instant::now());
        let (known, uncaptured) = (BTreeMap::new(), BTreeMap::new());
        let routes = RouteWriter::new(client.clone());
        Self { client, name, health, known, routes, events, uncaptured }
    }

    /// Reads what objects carry now: another controller may have written it.
    async fn load(&mut self) -> Result<(), ApiError> {
        #[derive(Deserialize)]
        struct Page {
            metadata: PageMetadata,
            items: Option<Vec<Value>>,
        }
        #[derive(Deserialize)]
        struct PageMetadata {
            #[serde(default)]
            r#continue: String,
        }
        self.routes.forget();
        self.known.clear();
        for kind in status::kinds() {
            let resource = super::Resource::of(kind);
            let request = Request::new(&resource.path);
            let mut parameters = ListParams::default().limit(PAGE);
            loop {
                let list = request.list(&parameters).map_err(kube::Error::BuildRequest);
                let list = async { self.client.request::<Page>(list?).await };
                let page = match bounded(Verb::List, &resource.name, list).await {
                    // Kinds that are not installed have no objects.
                    Err(ApiError::NotFound { .. }) => break,
                    page => page?,
                };
                for object in page.items.unwrap_or_default() {
                    let text = |field: &str| {
                        object.pointer(field).and_then(Value::as_str).unwrap_or_default()
                    };
                    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
                    let name = mesh_common::model::NamespacedName::new(namespace, name);
                    let written = status::of(&object);
                    self.known.insert(ObjectKey { kind, name }, (written, Instant::now()));
                }
                if page.metadata.r#continue.is_empty() {
                    break;
                }
                parameters.continue_token = Some(page.metadata.r#continue);
            }
        }
        Ok(())
    }

    async fn write(
        &mut self,
        outcome: &Outcome,
        picture: &Picture,
        controller: &Controller,
    ) -> Result<(), ApiError> {
        // What a version was refused for is no news once there is another.
        let mut nacks = controller.nacks().all();
        nacks.retain(|(node, key), refused| picture.version(node, key) == Some(refused.version));
        let statuses = self.write_statuses(&outcome.statuses, &nacks).await;
        self.health.is_well(STATUS, statuses.as_ref().err());
        let notices = notices(outcome, &nacks, &mut self.uncaptured);
        let events = self.write_events(notices).await;
        self.health.is_well(EVENTS, events.as_ref().err());
        let routes = self.routes.write(&outcome.statuses).await;
        self.health.is_well(ROUTES, routes.as_ref().err());
        statuses.and(events).and(routes)
    }

    async fn write_statuses(
        &mut self,
        statuses: &[ObjectStatus],
        nacks: &BTreeMap<(String, ResourceKey), Refused>,
    ) -> Result<(), ApiError> {
        let mut kept = BTreeSet::new();
        let mut result = Ok(());
        for object in statuses {
            let Some(key) = object.key().filter(|key| key.kind.is_ours()) else { continue };
            kept.insert(key.clone());
            let wanted = status::wanted(object, &refusals_of(&key, nacks));
            let (known, at) = match self.known.get(&key) {
                Some((known, at)) => (known.clone(), Some(*at)),
                None => (Status::default(), None),
            };
            let is_due = match status::difference(&wanted, &known) {
                Difference::None => false,
                Difference::Numbers => at.is_none_or(|at| at.elapsed() >= NUMBERS),
                Difference::Conditions => true,
            };
            if !is_due {
                continue;
            }
            let now = Timestamp::now().strftime("%FT%TZ").to_string();
            let new = status::since(wanted, &known, &now);
            match self.patch_status(&key, &new).await {
                // It went meanwhile.
                Ok(()) | Err(ApiError::NotFound { .. }) => {
                    self.known.insert(key, (new, Instant::now()));
                }
                // One object must not keep the others from their status; an outage does.
                Err(error) if error.is_outage() => return Err(error),
                Err(error) => result = Err(error),
            }
        }
        self.known.retain(|key, _| kept.contains(key));
        result
    }

    async fn patch_status(&self, key: &ObjectKey, written: &Status) -> Result<(), ApiError> {
        let collection = status::collection(key);
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(status::patch(key, written));
        let request = Request::new(&collection.path)
            .patch_subresource("status", &key.name.name, &parameters, &patch)
            .map_err(kube::Error::BuildRequest);
        let name = format!("{}/status", collection.name);
        let request = async { self.client.request::<Value>(request?).await };
        bounded(Verb::Patch, &name, request).await.map(|_| ())
    }

    async fn write_events(&mut self, notices: BTreeSet<Notice>) -> Result<(), ApiError> {
        for (notice, count) in self.events.due(&notices, Instant::now()) {
            self.say(&notice, count).await?;
            self.events.said(notice, count, Instant::now());
        }
        Ok(())
    }

    async fn say(&self, notice: &Notice, count: i32) -> Result<(), ApiError> {
        if count > 1 && self.say_again(notice, count).await? {
            return Ok(());
        }
        let event = serde_json::to_vec(&notice.event(&self.name))
            .map_err(|error| ApiError::away(Verb::Create, EVENTS, &error.to_string()))?;
        let request = Request::new(notice.collection().path).create(&PostParams::default(), event);
        let request = async {
            self.client.request::<Value>(request.map_err(kube::Error::BuildRequest)?).await
        };
        match bounded(Verb::Create, EVENTS, request).await {
            // A controller before this one said so.
            Err(ApiError::Conflict { .. }) => {
                self.say_again(notice, 2).await?;
                Ok(())
            }
            // Its namespace went meanwhile.
            Ok(_) | Err(ApiError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether there was an Event to say again.
    async fn say_again(&self, notice: &Notice, count: i32) -> Result<bool, ApiError> {
        let now = Timestamp::now().strftime("%FT%T%.6fZ").to_string();
        let patch = json!({"series": {"count": count.max(2), "lastObservedTime": now}});
        let request = Request::new(notice.collection().path)
            .patch(&notice.name(), &PatchParams::default(), &Patch::Merge(patch))
            .map_err(kube::Error::BuildRequest);
        let request = async { self.client.request::<Value>(request?).await };
        match bounded(Verb::Patch, EVENTS, request).await {
            Ok(_) => Ok(true),
            Err(ApiError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

pub(super) async fn bounded<T>(
    verb: Verb,
    resource: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(result) => result.map_err(|error| ApiError::new(verb, resource, &error)),
        Err(_) => Err(ApiError::away(verb, resource, "no answer in time")),
    }
}

/// The nodes whose agents refused what was made of an object, and why.
fn refusals_of(
    key: &ObjectKey,
    nacks: &BTreeMap<(String, ResourceKey), Refused>,
) -> Vec<(String, String)> {
    if key.kind != Kind::AuthorizationPolicy {
        return Vec::new();
    }
    let resource = ResourceKey { kind: ResourceKind::AuthorizationPolicy, name: key.name.clone() };
    let of_key = nacks.iter().filter(|((_, refused), _)| *refused == resource);
    of_key.map(|((node, _), refused)| (node.clone(), refused.reason.clone())).collect()
}

/// What holds now that an operator should know.
fn notices(
    outcome: &Outcome,
    nacks: &BTreeMap<(String, ResourceKey), Refused>,
    uncaptured: &mut BTreeMap<Arc<str>, Instant>,
) -> BTreeSet<Notice> {
    let uid_of = |object: &ObjectKey| outcome.objects.uid_of(object).unwrap_or_default();
    let problem = |problem: &Problem| Notice {
        object: problem.object.clone(),
        uid: uid_of(&problem.object),
        reason: problem.code.name(),
        note: problem.reason.clone(),
    };
    let refusal = |refusal: &Refusal| match (&refusal.place, &refusal.object) {
        (Place::Cluster { uid, .. }, Some(object)) => Some(Notice {
            object: object.clone(),
            uid: uid.clone(),
            reason: "Refused",
            note: refusal.reason.clone(),
        }),
        _ => None,
    };
    let mut notices: BTreeSet<_> = (outcome.problems.iter().map(problem))
        .chain(outcome.objects.refusals.iter().filter_map(refusal))
        .collect();
    let uids: BTreeSet<&str> = outcome.uncaptured.iter().map(|pod| &*pod.uid).collect();
    uncaptured.retain(|uid, _| uids.contains(&**uid));
    for pod in &outcome.uncaptured {
        let since = uncaptured.entry(pod.uid.clone()).or_insert_with(Instant::now);
        if since.elapsed() < CAPTURE {
            continue;
        }
        let node = pod.node.as_deref().unwrap_or("none");
        let note = format!(
            "labels put this pod in the mesh, but the agent of node {node} has not captured it for \
             more than {} s: its traffic is plaintext; `nodemesh status` on that node says why",
            CAPTURE.as_secs()
        );
        let object = ObjectKey { kind: Kind::Pod, name: pod.name.clone() };
        let uid = outcome.objects.uid_of(&object).unwrap_or_else(|| pod.uid.clone());
        notices.insert(Notice { object, uid, reason: "NotCaptured", note });
    }
    for ((node, key), refused) in nacks {
        let kind = match key.kind {
            ResourceKind::Workload => Kind::Pod,
            ResourceKind::Service => Kind::Service,
            ResourceKind::AuthorizationPolicy => continue,
            ResourceKind::Route(RouteKind::Grpc) => Kind::GrpcRoute,
            ResourceKind::Route(RouteKind::Http) => Kind::HttpRoute,
            ResourceKind::Route(RouteKind::Tls) => Kind::TlsRoute,
            ResourceKind::Route(RouteKind::Tcp) => Kind::TcpRoute,
        };
        let object = ObjectKey { kind, name: key.name.clone() };
        let note = format!("the agent of node {node} refuses it: {}", refused.reason);
        let uid = uid_of(&object);
        notices.insert(Notice { object, uid, reason: "RefusedByAgent", note });
    }
    notices
}
