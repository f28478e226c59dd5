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
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    ApiError, FIELD_MANAGER, Verb,
    backoff::Backoff,
    events::{Events, Notice},
    health::Health,
    notices::{Refusals, Waits, notices},
    routes::RouteWriter,
    status::{self, Difference},
};
use crate::{
    compile::ObjectStatus,
    crd::Status,
    mesh::{Mesh, Outcome},
    object::ObjectKey,
    serve::Controller,
    view::Picture,
};

/// Changes that follow one another closely are written once.
const SETTLE: Duration = Duration::from_millis(200);
/// How often it is looked whether something is due that no change tells of.
const TICK: Duration = Duration::from_secs(5);
/// Numbers change with every pod; they are written this often at most.
const NUMBERS: Duration = Duration::from_secs(10);
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
    uncaptured: Waits,
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
    /// A writer for the controller called `name` that complains of a pod which is in the mesh and
    /// for longer than `patience` not captured.
    pub fn new(client: Client, name: String, health: Health, patience: Duration) -> Self {
        let events = Events::new(Instant::now());
        let uncaptured = Waits::new(patience);
        let routes = RouteWriter::new(client.clone());
        Self { client, name, health, known: BTreeMap::new(), routes, events, uncaptured }
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
        let refusals = Refusals::new(&nacks, picture);
        let statuses = self.write_statuses(&outcome.statuses, &refusals).await;
        self.health.is_well(STATUS, statuses.as_ref().err());
        let notices = notices(outcome, &nacks, &mut self.uncaptured, Instant::now());
        let events = self.write_events(notices).await;
        self.health.is_well(EVENTS, events.as_ref().err());
        let routes = self.routes.write(&outcome.statuses, &refusals).await;
        self.health.is_well(ROUTES, routes.as_ref().err());
        statuses.and(events).and(routes)
    }

    async fn write_statuses(
        &mut self,
        statuses: &[ObjectStatus],
        refusals: &Refusals,
    ) -> Result<(), ApiError> {
        let mut kept = BTreeSet::new();
        let mut result = Ok(());
        for object in statuses {
            let Some(key) = object.key().filter(|key| key.kind.is_ours()) else { continue };
            kept.insert(key.clone());
            let wanted = status::wanted(object, refusals.of(&key));
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
