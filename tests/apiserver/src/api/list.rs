//! Lists: selected, at a revision, page by page.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{Answer, read};
use crate::{
    accept::Form,
    cluster::Cluster,
    convert::present,
    error::ApiError,
    meta,
    registry::Resource,
    request::Request,
    route::Target,
    selector::{FieldSelector, LabelSelector},
    store::{Compacted, Key, Locked, Object},
    table,
};

/// What of a resource is selected.
#[derive(Clone, Debug)]
pub struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    name: Option<String>,
    everything: bool,
}

impl Selection {
    /// Reads the selectors of a request.
    pub fn of(request: &Request, target: &Target) -> Result<Self, ApiError> {
        let get = |key| request.query.get(key).unwrap_or_default();
        let labels = LabelSelector::parse(get("labelSelector")).map_err(ApiError::bad_request)?;
        let fields = FieldSelector::parse(get("fieldSelector"), &target.resource.fields)
            .map_err(ApiError::bad_request)?;
        let everything = labels == LabelSelector::default() && fields == FieldSelector::default();
        Ok(Self { labels, fields, name: target.name.clone(), everything })
    }

    /// Whether an object, as it is stored, is selected.
    pub fn matches(&self, resource: &Resource, object: &Value) -> bool {
        let object = present(resource, object);
        self.labels.matches(&object)
            && self.fields.matches(&object)
            && self.name.as_deref().is_none_or(|name| meta::text(&object, "name") == name)
    }
}

/// Answers with a list.
pub fn list(cluster: &Cluster, request: &Request, target: &Target) -> Result<Answer, ApiError> {
    let page = page(&cluster.store.lock(), request, target)?;
    let resource = &target.resource;
    let objects: Vec<_> = page.objects.iter().map(|object| present(resource, object)).collect();
    let list = page.metadata();
    Ok(match request.form()? {
        Form::Plain | Form::Aggregated => {
            let version = resource.api_version();
            Answer::Json(http::StatusCode::OK, body(&resource.list_kind, &version, &list, &objects))
        }
        Form::Metadata => {
            let partial: Vec<_> =
                objects.iter().map(|object| Cow::Owned(meta::partial(object))).collect();
            let kind = "PartialObjectMetadataList";
            Answer::Json(http::StatusCode::OK, body(kind, "meta.k8s.io/v1", &list, &partial))
        }
        Form::Table => {
            let objects: Vec<_> = objects.iter().map(AsRef::as_ref).collect();
            let include = read::include(request)?;
            Answer::ok(&table::table(&resource.columns, &objects, list, include))
        }
    })
}

/// The JSON of a list, without a copy of its items.
fn body(kind: &str, version: &str, metadata: &Value, items: &[Cow<'_, Value>]) -> Vec<u8> {
    let head = json!({ "apiVersion": version, "kind": kind, "metadata": metadata }).to_string();
    // Its last brace goes to the end.
    let mut body = head.into_bytes();
    body.pop();
    body.extend_from_slice(b",\"items\":[");
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        body.extend_from_slice(item.to_string().as_bytes());
    }
    body.extend_from_slice(b"]}");
    body
}

/// Some objects, and how to get the rest.
pub struct Page {
    pub objects: Vec<Object>,
    pub revision: u64,
    next: Option<String>,
    remaining: Option<usize>,
}

impl Page {
    fn metadata(&self) -> Value {
        let mut metadata = json!({ "resourceVersion": self.revision.to_string() });
        if let Some(next) = &self.next {
            metadata["continue"] = next.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        metadata
    }
}

/// The objects that a list request asks for.
pub fn page(store: &Locked<'_>, request: &Request, target: &Target) -> Result<Page, ApiError> {
    let selection = Selection::of(request, target)?;
    let limit = request.query.number("limit")?.filter(|&limit| limit > 0);
    let from = request.query.get("continue").map(Continue::parse).transpose()?;
    let current = store.revision();
    let revision = match (&from, exact(request)?) {
        (Some(from), _) => from.revision.unwrap_or(current),
        (None, Some(exact)) => exact,
        (None, None) => current,
    };
    if let Some(asked) = request.query.number("resourceVersion")?.filter(|&asked| asked > current) {
        return Err(ApiError::too_large_version(asked, current));
    }
    let storage = &target.resource.storage;
    let mut all = store
        .list_at(storage, target.namespace.as_deref(), revision)
        .map_err(|compacted| expired(compacted, from.as_ref()))?;
    if let Some(from) = &from {
        all.retain(|(key, _)| place(key) > from.place);
    }
    let mut objects = Vec::new();
    let mut next = None;
    let mut remaining = None;
    for (at, (_, object)) in all.iter().enumerate() {
        if !selection.matches(&target.resource, object) {
            continue;
        }
        if limit == Some(objects.len() as u64) {
            let place = place(&all[at - 1].0);
            next = Some(Continue { revision: Some(revision), place }.token());
            remaining = selection.everything.then_some(all.len() - at);
            break;
        }
        objects.push(object.clone());
    }
    Ok(Page { objects, revision, next, remaining })
}

fn exact(request: &Request) -> Result<Option<u64>, ApiError> {
    match request.query.get("resourceVersionMatch") {
        Some("Exact") => request.query.number("resourceVersion"),
        None | Some("NotOlderThan") => Ok(None),
        Some(other) => {
            Err(ApiError::bad_request(format!("unknown resourceVersionMatch \"{other}\"")))
        }
    }
}

/// The error for a revision that is forgotten, with a token to go on with the present one.
fn expired(_: Compacted, from: Option<&Continue>) -> ApiError {
    let Some(from) = from else {
        return ApiError::expired("The resourceVersion for the provided list is too old.");
    };
    let mut error = ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can \
         start a new list without the continue parameter, or use the continue token in this \
         response to retrieve the remainder of the results. Continuing with the provided token \
         results in an inconsistent list - objects that were created, modified, or deleted \
         between the time the first chunk was returned and now may show up in the list.",
    );
    let inconsistent = Continue { revision: None, place: from.place.clone() };
    error.continue_token = Some(inconsistent.token());
    error
}

/// Where a list goes on.
#[derive(Debug)]
struct Continue {
    /// None: with whatever is there now.
    revision: Option<u64>,
    place: (String, String),
}

fn place(key: &Key) -> (String, String) {
    (key.namespace.clone(), key.name.clone())
}

impl Continue {
    fn token(&self) -> String {
        let (namespace, name) = &self.place;
        let revision = self.revision.map_or(-1, |revision| revision as i64);
        let token = json!({ "v": "meta.k8s.io/v1", "rv": revision, "ns": namespace, "name": name });
        BASE64_URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn parse(token: &str) -> Result<Self, ApiError> {
        let bad = || ApiError::bad_request("continue key is not valid");
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        let text = |field: &str| token[field].as_str().map(str::to_owned).ok_or_else(bad);
        let revision = token["rv"].as_i64().ok_or_else(bad)?;
        Ok(Self { revision: revision.try_into().ok(), place: (text("ns")?, text("name")?) })
    }
}
