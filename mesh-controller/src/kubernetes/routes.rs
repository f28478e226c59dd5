//! Writes the status of routes into the cluster: read, changed and written back where nobody else
//! wrote meanwhile, since all of `status.parents` is one value to an API server.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use kube::{
    Client,
    api::{ListParams, Patch, PatchParams},
    core::Request,
};
use mesh_common::model::NamespacedName;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiError, FIELD_MANAGER, Resource, Verb,
    notices::Refusals,
    route_status::{is_ours, merged, parents, patch, programmed},
    writer::bounded,
};
use crate::{
    compile::{ObjectStatus, ParentStatus},
    object::{Kind, ObjectKey},
};

const PAGE: u32 = 500;

/// Writes.
pub(super) struct RouteWriter {
    client: Client,
    known: BTreeMap<ObjectKey, Known>,
    is_loaded: bool,
}

/// What a route carries.
enum Known {
    /// As it was read: its collection, version and status.
    Read(String, Value),
    /// What was written, and for which generation.
    Written(Vec<ParentStatus>, Option<i64>),
    /// Something else than what was read: somebody wrote meanwhile.
    Changed,
}

impl RouteWriter {
    pub(super) fn new(client: Client) -> Self {
        Self { client, known: BTreeMap::new(), is_loaded: false }
    }

    /// Reads anew what routes carry: another controller may have written it.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.is_loaded = false;
    }

    /// Reads which routes carry entries of ours.
    async fn load(&mut self) -> Result<(), ApiError> {
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_route()) {
            let resource = Resource::of(kind);
            for version in 0..=resource.older.len() {
                match self.list(kind, version).await {
                    // The kind is not installed, or not in this version.
                    Err(ApiError::NotFound { .. }) => {}
                    result => {
                        result?;
                        break;
                    }
                }
            }
        }
        self.is_loaded = true;
        Ok(())
    }

    async fn list(&mut self, kind: Kind, version: usize) -> Result<(), ApiError> {
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
        let resource = Resource::of(kind);
        let request = Request::new(resource.paths().nth(version).unwrap_or(&resource.path));
        let mut parameters = ListParams::default().limit(PAGE);
        loop {
            let list = request.list(&parameters).map_err(kube::Error::BuildRequest);
            let list = async { self.client.request::<Page>(list?).await };
            let page = bounded(Verb::List, &resource.name, list).await?;
            for object in page.items.unwrap_or_default() {
                if !parents(&object).iter().any(is_ours) {
                    continue;
                }
                let text =
                    |field: &str| object.pointer(field).and_then(Value::as_str).unwrap_or_default();
                let name = NamespacedName::new(text("/metadata/namespace"), text("/metadata/name"));
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let read = json!({"metadata": metadata, "status": object["status"]});
                let own = Resource::of_namespace(kind, Some(&name.namespace));
                let Some(path) = own.paths().nth(version).map(str::to_owned) else { continue };
                self.known.insert(ObjectKey { kind, name }, Known::Read(path, read));
            }
            if page.metadata.r#continue.is_empty() {
                return Ok(());
            }
            parameters.continue_token = Some(page.metadata.r#continue);
        }
    }

    /// Writes what differs from what is known to be there.
    pub(super) async fn write(
        &mut self,
        statuses: &[ObjectStatus],
        refusals: &Refusals,
    ) -> Result<(), ApiError> {
        if !self.is_loaded {
            self.load().await?;
        }
        let of_routes = statuses.iter().filter(|status| !status.parents.is_empty());
        let mut wanted: BTreeMap<ObjectKey, (Vec<ParentStatus>, Option<i64>)> = of_routes
            .filter_map(|it| {
                let key = it.key()?;
                let parents = programmed(&it.parents, refusals.of(&key));
                Some((key, (parents, it.observed_generation)))
            })
            .collect();
        // What is no longer attached to a Service shall not say that it is.
        for key in self.known.keys() {
            wanted.entry(key.clone()).or_insert((Vec::new(), None));
        }
        let mut result = Ok(());
        for (key, (ours, generation)) in wanted {
            if let Some(Known::Written(known, at)) = self.known.get(&key)
                && (known, *at) == (&ours, generation)
            {
                continue;
            }
            match self.write_one(&key, &ours, generation).await {
                Ok(()) if ours.is_empty() => {
                    self.known.remove(&key);
                }
                Ok(()) => {
                    self.known.insert(key, Known::Written(ours, generation));
                }
                // It comes up again soon.
                Err(ApiError::Conflict { .. }) => {
                    self.known.insert(key, Known::Changed);
                }
                Err(error) if error.is_outage() => return Err(error),
                // One route must not keep the others from their status.
                Err(error) => result = Err(error),
            }
        }
        result
    }

    async fn write_one(
        &mut self,
        key: &ObjectKey,
        ours: &[ParentStatus],
        generation: Option<i64>,
    ) -> Result<(), ApiError> {
        let read = match self.known.get_mut(key) {
            Some(Known::Read(path, object)) => Some((std::mem::take(path), object.take())),
            _ => self.read(key).await?,
        };
        // It is gone.
        let Some((path, object)) = read else { return Ok(()) };
        self.known.remove(key);
        let current = parents(&object);
        let now = Timestamp::now().strftime("%FT%TZ").to_string();
        let new = merged(&current, ours, generation, &now);
        if new == current {
            return Ok(());
        }
        let parameters =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..Default::default() };
        let request = Request::new(&path)
            .patch_subresource(
                "status",
                &key.name.name,
                &parameters,
                &Patch::Merge(patch(&object, &new)),
            )
            .map_err(kube::Error::BuildRequest);
        let name = format!("{}/status", Resource::of(key.kind).name);
        let request = async { self.client.request::<Value>(request?).await };
        match bounded(Verb::Patch, &name, request).await {
            Ok(_) | Err(ApiError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The route, and the collection that the server has it in.
    async fn read(&self, key: &ObjectKey) -> Result<Option<(String, Value)>, ApiError> {
        let resource = Resource::of_namespace(key.kind, Some(&key.name.namespace));
        for path in resource.paths() {
            let request = Request::new(path).get(&key.name.name, &Default::default());
            let request = request.map_err(kube::Error::BuildRequest);
            let request = async { self.client.request::<Value>(request?).await };
            match bounded(Verb::Get, &resource.name, request).await {
                Err(ApiError::NotFound { .. }) => {}
                object => return Ok(Some((path.to_owned(), object?))),
            }
        }
        Ok(None)
    }
}
