//! Creating, updating and patching.

use http::StatusCode;
use serde_json::Value;

use super::{Answer, about, admit, read, remove};
use crate::{
    cluster::Cluster,
    convert::{present, stored},
    effects,
    error::{About, ApiError, Cause},
    meta,
    patch::{
        Patch,
        apply::{self, Managed, Types, Who},
    },
    registry::{Generation, Resource},
    request::Request,
    route::Target,
    store::{Key, Locked, Object},
};

/// How a write is meant.
pub struct Options {
    /// Everything but the storing.
    pub dry_run: bool,
    /// Who owns the fields that are written.
    pub manager: String,
    /// What becomes of unknown fields.
    pub validation: FieldValidation,
    /// Take fields from other managers.
    pub force: bool,
    /// Whether the write is a server-side apply.
    pub applies: bool,
}

/// What becomes of fields that the kind does not have: they are dropped in any case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl Options {
    /// Reads the parameters of a request.
    pub fn of(request: &Request) -> Result<Self, ApiError> {
        let dry_run = match request.query.get("dryRun") {
            None => false,
            Some("All") => true,
            Some(other) => {
                let message =
                    format!("dryRun: Unsupported value: \"{other}\": supported values: \"All\"");
                return Err(ApiError::bad_request(message));
            }
        };
        let validation = match request.query.get("fieldValidation") {
            Some("Ignore") => FieldValidation::Ignore,
            None | Some("Warn") => FieldValidation::Warn,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                return Err(ApiError::bad_request(format!("unknown fieldValidation \"{other}\"")));
            }
        };
        // As the real server: the program's name out of the user agent.
        let agent = request.user_agent.split('/').next().unwrap_or_default();
        let manager = request.query.get("fieldManager").unwrap_or(agent).to_owned();
        Ok(Self {
            dry_run,
            manager,
            validation,
            force: request.query.is_on("force"),
            applies: false,
        })
    }
}

/// Creates the object of the body.
pub fn create(cluster: &Cluster, request: &Request, target: &Target) -> Result<Answer, ApiError> {
    if target.name.is_some() || (target.resource.namespaced && target.namespace.is_none()) {
        return Err(ApiError::method_not_allowed());
    }
    let options = Options::of(request)?;
    let object = request.object()?;
    let mut store = cluster.store.lock();
    let new = insert(cluster, &mut store, target, object, &options)?;
    let shown = read::shown(&target.resource, &new, request)?;
    Ok(Answer::with(StatusCode::CREATED, &shown))
}

/// Replaces the object at the path by the one of the body.
pub fn update(cluster: &Cluster, request: &Request, target: &Target) -> Result<Answer, ApiError> {
    let options = Options::of(request)?;
    let body = request.object()?;
    let mut store = cluster.store.lock();
    let key = read::key(target)?;
    let Some(old) = store.get(&key) else {
        return Err(ApiError::not_found(about(&target.resource, &key.name)));
    };
    let new = replace(cluster, &mut store, target, &old, body, &options)?;
    Ok(Answer::ok(&read::shown(&target.resource, &new, request)?))
}

/// Changes the object at the path as the body says.
pub fn patch(cluster: &Cluster, request: &Request, target: &Target) -> Result<Answer, ApiError> {
    let options = Options::of(request)?;
    let patch = Patch::parse(&request.content_type, &request.body)?;
    let mut store = cluster.store.lock();
    let key = read::key(target)?;
    let old = store.get(&key);
    if let Patch::Apply(wanted) = patch {
        return apply(cluster, &mut store, request, target, old, wanted, options);
    }
    let Some(old) = old else {
        return Err(ApiError::not_found(about(&target.resource, &key.name)));
    };
    let shown = present(&target.resource, &old);
    let new = patch.apply(&target.resource, &shown)?;
    let new = replace(cluster, &mut store, target, &old, new, &options)?;
    Ok(Answer::ok(&read::shown(&target.resource, &new, request)?))
}

/// Server-side apply: creates what is not there.
fn apply(
    cluster: &Cluster,
    store: &mut Locked<'_>,
    request: &Request,
    target: &Target,
    old: Option<Object>,
    mut wanted: Value,
    mut options: Options,
) -> Result<Answer, ApiError> {
    let resource = &*target.resource;
    options.applies = true;
    if request.query.get("fieldManager").is_none() {
        let cause = Cause::required("fieldManager", "is required for apply patch");
        let kind = About { group: "meta.k8s.io", resource: "PatchOptions", name: "" };
        return Err(ApiError::invalid(kind, &[cause]));
    }
    admit::identify(resource, target, &mut wanted)?;
    if !wanted["metadata"]["managedFields"].is_null() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    if let Some(old) = old {
        let new = replace(cluster, store, target, &old, wanted, &options)?;
        return Ok(Answer::ok(&read::shown(resource, &new, request)?));
    }
    if target.subresource.is_some() {
        let name = target.name.as_deref().unwrap_or_default();
        return Err(ApiError::not_found(about(resource, name)));
    }
    let new = insert(cluster, store, target, wanted, &options)?;
    Ok(Answer::with(StatusCode::CREATED, &read::shown(resource, &new, request)?))
}

/// Who writes, and in which role.
fn who(target: &Target, options: &Options) -> Who {
    Who {
        name: options.manager.clone(),
        applies: options.applies,
        api_version: target.resource.api_version(),
        subresource: target.subresource.clone().unwrap_or_default(),
    }
}

/// Stores a new object.
pub fn insert(
    cluster: &Cluster,
    store: &mut Locked<'_>,
    target: &Target,
    mut object: Value,
    options: &Options,
) -> Result<Object, ApiError> {
    let resource = &*target.resource;
    admit::identify(resource, target, &mut object)?;
    if !meta::text(&object, "resourceVersion").is_empty() {
        let message = "resourceVersion should not be set on objects to be created";
        return Err(ApiError::bad_request(message));
    }
    admit::name(resource, &mut object)?;
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        meta::remove(&mut object, field);
    }
    object["metadata"]["uid"] = meta::uid().into();
    object["metadata"]["creationTimestamp"] = meta::now().into();
    if resource.generation == Generation::Never {
        meta::remove(&mut object, "generation");
    } else {
        object["metadata"]["generation"] = 1.into();
    }
    // Nodes come with the status that their kubelet found.
    if resource.status
        && !resource.is("", "nodes")
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
    meta::remove(&mut object, "managedFields");
    let wanted = object.clone();
    let mut object = stored(resource, object);
    let name = meta::text(&object, "name").to_owned();
    let key = meta::key(resource, target.namespace.as_deref(), &name);
    admit::namespace(store, resource, target.namespace.as_deref(), &name)?;
    if store.get(&key).is_some() {
        return Err(ApiError::already_exists(about(resource, &name)));
    }
    admit::content(store, resource, &mut object, None, options)?;
    let owned = if options.applies { &wanted } else { &object };
    apply::created(&Types::of(resource), &who(target, options), owned).write(&mut object);
    if options.dry_run {
        return Ok(object.into());
    }
    let object = store.put(key.clone(), object);
    effects::written(cluster, store, &key);
    Ok(store.get(&key).unwrap_or(object))
}

/// Stores another state of an object, as far as a client may change it.
pub fn replace(
    cluster: &Cluster,
    store: &mut Locked<'_>,
    target: &Target,
    old: &Object,
    mut new: Value,
    options: &Options,
) -> Result<Object, ApiError> {
    let resource = &*target.resource;
    admit::identify(resource, target, &mut new)?;
    let key = read::key(target)?;
    check_versions(resource, &key, old, &new)?;
    let mut new = stored(resource, new);
    // No managers at all is a wish to begin anew; otherwise nobody writes them but the server.
    let is_reset = new["metadata"]["managedFields"] == serde_json::json!([{}]);
    let mut applied = None;
    if options.applies {
        restrict(target, &mut new);
        let done =
            apply::apply(&Types::of(resource), &who(target, options), old, &new, options.force)?;
        new = done.object;
        applied = Some(done.managed);
    }
    for field in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "selfLink",
    ] {
        meta::keep(&mut new, old, field);
    }
    match target.subresource.as_deref() {
        Some("status") => new = with_status_of(old, &new),
        Some("finalize") => {}
        _ if resource.status => meta::keep_top(&mut new, old, "status"),
        _ => {}
    }
    admit::content(store, resource, &mut new, Some(old), options)?;
    meta::keep(&mut new, old, "managedFields");
    let managed = applied
        .unwrap_or_else(|| apply::written(&Types::of(resource), &who(target, options), old, &new));
    if is_reset { Managed::default() } else { managed }.write(&mut new);
    if has_grown(resource, old, &new) {
        let generation = old["metadata"]["generation"].as_u64().unwrap_or(0) + 1;
        new["metadata"]["generation"] = generation.into();
    }
    if new == **old || options.dry_run {
        return Ok(new.into());
    }
    let object = store.put(key.clone(), new);
    if remove::is_finished(&object) {
        return Ok(remove::now(cluster, store, &key).unwrap_or(object));
    }
    effects::written(cluster, store, &key);
    Ok(store.get(&key).unwrap_or(object))
}

/// Optimistic concurrency: the writer has to have seen the present state, if it says what it saw.
fn check_versions(
    resource: &Resource,
    key: &Key,
    old: &Value,
    new: &Value,
) -> Result<(), ApiError> {
    let (old_uid, uid) = (meta::text(old, "uid"), meta::text(new, "uid"));
    if !uid.is_empty() && uid != old_uid {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}"
        );
        return Err(ApiError::conflict(about(resource, &key.name), &why));
    }
    let version = meta::text(new, "resourceVersion");
    if !version.is_empty() && version != meta::text(old, "resourceVersion") {
        return Err(ApiError::modified(about(resource, &key.name)));
    }
    Ok(())
}

/// Leaves of an applied object what can be written at its path: status, or everything else.
fn restrict(target: &Target, wanted: &mut Value) {
    if !target.resource.status {
        return;
    }
    let of_status = target.subresource.as_deref() == Some("status");
    if let Some(fields) = wanted.as_object_mut() {
        fields.retain(|name, _| match name.as_str() {
            "apiVersion" | "kind" | "metadata" => true,
            "status" => of_status,
            _ => !of_status,
        });
    }
    if of_status && let Some(metadata) = wanted["metadata"].as_object_mut() {
        metadata.retain(|name, _| matches!(name.as_str(), "name" | "namespace"));
    }
}

/// The old object with a new status: nothing else can be changed there.
fn with_status_of(old: &Value, new: &Value) -> Value {
    let mut object = old.clone();
    meta::keep_top(&mut object, new, "status");
    object
}

/// Whether the change is one of what was asked for, rather than of what is.
fn has_grown(resource: &Resource, old: &Value, new: &Value) -> bool {
    match resource.generation {
        Generation::Never => false,
        Generation::Spec => old["spec"] != new["spec"],
        Generation::Everything => {
            let wanted = |object: &Value| {
                let mut object = object.clone();
                if let Some(fields) = object.as_object_mut() {
                    fields.remove("metadata");
                    if resource.status {
                        fields.remove("status");
                    }
                }
                object
            };
            wanted(old) != wanted(new)
        }
    }
}
