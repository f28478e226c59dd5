//! Deleting: preconditions, finalizers, owners and those they own, whole namespaces.

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::{Answer, about, list, read};
use crate::{
    cluster::Cluster,
    effects,
    error::ApiError,
    meta,
    request::{self, Request},
    route::Target,
    store::{Key, Locked, Object},
};

/// What keeps an owner until everything it owns is gone.
const FOREGROUND: &str = "foregroundDeletion";

/// What happens to the objects that a deleted one owns.
#[derive(Clone, Copy, PartialEq)]
enum Propagation {
    Background,
    Foreground,
    Orphan,
}

struct Options {
    uid: Option<String>,
    version: Option<String>,
    propagation: Propagation,
    grace: Option<i64>,
    dry_run: bool,
}

impl Options {
    /// They come in the body or as parameters.
    fn of(request: &Request) -> Result<Self, ApiError> {
        let body = match request.body.is_empty() {
            true => Value::Null,
            false => request::yaml(&request.body)?,
        };
        let text = |field: &str| {
            let parameter = request.query.get(field).map(str::to_owned);
            parameter.or_else(|| body[field].as_str().map(str::to_owned))
        };
        let propagation = match text("propagationPolicy").as_deref() {
            Some("Foreground") => Propagation::Foreground,
            Some("Orphan") => Propagation::Orphan,
            _ if body["orphanDependents"] == true => Propagation::Orphan,
            _ => Propagation::Background,
        };
        let grace = request.query.number("gracePeriodSeconds")?.map(|seconds| seconds as i64);
        let precondition = |field: &str| body["preconditions"][field].as_str().map(str::to_owned);
        Ok(Self {
            uid: precondition("uid"),
            version: precondition("resourceVersion"),
            propagation,
            grace: grace.or_else(|| body["gracePeriodSeconds"].as_i64()),
            dry_run: text("dryRun").is_some() || body["dryRun"][0] == "All",
        })
    }
}

/// Deletes one object.
pub fn delete(cluster: &Cluster, request: &Request, target: &Target) -> Result<Answer, ApiError> {
    if target.subresource.is_some() {
        return Err(ApiError::method_not_allowed());
    }
    let options = Options::of(request)?;
    let mut store = cluster.store.lock();
    let key = read::key(target)?;
    let resource = &target.resource;
    let Some(object) = store.get(&key) else {
        return Err(ApiError::not_found(about(resource, &key.name)));
    };
    for (wanted, field, what) in
        [(&options.uid, "uid", "UID"), (&options.version, "resourceVersion", "ResourceVersion")]
    {
        let is = meta::text(&object, field);
        if let Some(wanted) = wanted
            && wanted != is
        {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {is}"
            );
            return Err(ApiError::conflict(about(resource, &key.name), &why));
        }
    }
    let left = match options.dry_run {
        true => None,
        false => {
            end(cluster, &mut store, &key, &options);
            store.get(&key)
        }
    };
    // What is still there is shown, and pods always are; else it says that all went well.
    let shown = left.or_else(|| resource.is("", "pods").then(|| object.clone()));
    if let Some(shown) = shown {
        return Ok(Answer::ok(&read::shown(resource, &shown, request)?));
    }
    let mut details = json!({
        "name": key.name, "kind": resource.plural, "uid": meta::text(&object, "uid")
    });
    if !resource.group.is_empty() {
        details["group"] = resource.group.as_str().into();
    }
    Ok(Answer::ok(&json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details,
    })))
}

/// Deletes everything that is selected.
pub fn delete_collection(
    cluster: &Cluster,
    request: &Request,
    target: &Target,
) -> Result<Answer, ApiError> {
    if target.resource.namespaced && target.namespace.is_none() {
        return Err(ApiError::method_not_allowed());
    }
    let options = Options::of(request)?;
    let mut store = cluster.store.lock();
    let page = list::page(&store, request, target)?;
    for object in page.objects.iter().filter(|_| !options.dry_run) {
        let key =
            meta::key(&target.resource, target.namespace.as_deref(), meta::text(object, "name"));
        end(cluster, &mut store, &key, &options);
    }
    Ok(Answer::ok(&json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": { "kind": target.resource.plural },
    })))
}

/// Whether a deleted object has nothing to wait for any more.
pub fn is_finished(object: &Value) -> bool {
    let waits_for_kubelet = object["metadata"]["deletionGracePeriodSeconds"].as_i64() > Some(0);
    meta::is_terminating(object)
        && meta::finalizers(object).is_empty()
        && object["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty)
        && !waits_for_kubelet
}

/// Removes an object at once, and what only it owned; the last state of it.
pub fn now(cluster: &Cluster, store: &mut Locked<'_>, key: &Key) -> Option<Object> {
    let last = take(cluster, store, key);
    settle(cluster, store, &key.namespace);
    last
}

/// Ends an object and whatever ends with it.
fn end(cluster: &Cluster, store: &mut Locked<'_>, key: &Key, options: &Options) {
    mark(cluster, store, key, options);
    settle(cluster, store, &key.namespace);
}

const IN_BACKGROUND: Options = Options {
    uid: None,
    version: None,
    propagation: Propagation::Background,
    grace: None,
    dry_run: false,
};

/// Marks an object as deleted, and removes it unless it waits for something.
fn mark(cluster: &Cluster, store: &mut Locked<'_>, key: &Key, options: &Options) {
    let Some(old) = store.get(key) else { return };
    let dependents = store.dependents(meta::text(&old, "uid"));
    match options.propagation {
        Propagation::Orphan => {
            for dependent in dependents {
                disown(store, &dependent, meta::text(&old, "uid"));
            }
        }
        Propagation::Foreground if !dependents.is_empty() => {
            let mut object = Value::clone(&old);
            let mut finalizers: Vec<Value> =
                meta::finalizers(&old).into_iter().map(Into::into).collect();
            finalizers.push(FOREGROUND.into());
            object["metadata"]["finalizers"] = finalizers.into();
            terminate(&mut object, 0);
            store.put(key.clone(), object);
            for dependent in dependents {
                mark(cluster, store, &dependent, options);
            }
            return;
        }
        _ => {}
    }
    if key.resource == "namespaces" {
        return empty(cluster, store, key);
    }
    let waits = !meta::finalizers(&old).is_empty();
    let grace = grace(&old, key, options);
    let is_pod = key.resource == "pods";
    if (waits || is_pod) && !meta::is_terminating(&old) {
        let mut object = Value::clone(&old);
        terminate(&mut object, grace);
        store.put(key.clone(), object);
    }
    if !waits && (grace == 0 || cluster.settings.kubelets) {
        take(cluster, store, key);
    }
}

/// How long a kubelet would be given: 30 s unless somebody says otherwise.
fn grace(object: &Value, key: &Key, options: &Options) -> i64 {
    let bound = object["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    if key.resource != "pods" || !bound {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_i64();
    options.grace.or(own).unwrap_or(30)
}

fn terminate(object: &mut Value, grace: i64) {
    if meta::is_terminating(object) {
        return;
    }
    let when = OffsetDateTime::now_utc() + Duration::seconds(grace);
    object["metadata"]["deletionTimestamp"] = meta::moment(when).into();
    object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    if let Some(generation) = object["metadata"]["generation"].as_u64() {
        object["metadata"]["generation"] = (generation + 1).into();
    }
}

/// Removes one object and ends what only it owned, in the background.
fn take(cluster: &Cluster, store: &mut Locked<'_>, key: &Key) -> Option<Object> {
    let last = store.remove(key)?;
    effects::removed(cluster, store, key, &last);
    let uid = meta::text(&last, "uid");
    for dependent in store.dependents(uid) {
        disown(store, &dependent, uid);
        let left = store.get(&dependent);
        if left.is_some_and(|object| owners(&object).is_empty()) {
            mark(cluster, store, &dependent, &IN_BACKGROUND);
        }
    }
    for owner in owners(&last) {
        release(cluster, store, &key.namespace, &owner);
    }
    Some(last)
}

/// Removes a reference to an owner.
fn disown(store: &mut Locked<'_>, key: &Key, uid: &str) {
    let Some(object) = store.get(key) else { return };
    let mut object = Value::clone(&object);
    let left: Vec<_> = owners(&object).into_iter().filter(|owner| owner["uid"] != uid).collect();
    if left.is_empty() {
        meta::remove(&mut object, "ownerReferences");
    } else {
        object["metadata"]["ownerReferences"] = left.into();
    }
    store.put(key.clone(), object);
}

fn owners(object: &Value) -> Vec<Value> {
    object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default()
}

/// Lets an owner go that waited for the last of those it owned.
fn release(cluster: &Cluster, store: &mut Locked<'_>, namespace: &str, owner: &Value) {
    let text = |field: &str| owner[field].as_str().unwrap_or_default();
    if !store.dependents(text("uid")).is_empty() {
        return;
    }
    let Some(resource) = cluster.registry.of_kind(text("apiVersion"), text("kind")) else { return };
    let namespace = resource.namespaced.then_some(namespace);
    let key = meta::key(&resource, namespace, text("name"));
    let Some(object) = store.get(&key) else { return };
    let mut finalizers = meta::finalizers(&object);
    if !finalizers.contains(&FOREGROUND) {
        return;
    }
    finalizers.retain(|&finalizer| finalizer != FOREGROUND);
    let mut object = Value::clone(&object);
    let finalizers: Vec<Value> = finalizers.into_iter().map(Into::into).collect();
    object["metadata"]["finalizers"] = finalizers.into();
    let object = store.put(key.clone(), object);
    if is_finished(&object) {
        take(cluster, store, &key);
    }
}

/// Ends everything in a namespace, which then ends itself: see [`settle`].
fn empty(cluster: &Cluster, store: &mut Locked<'_>, key: &Key) {
    let Some(old) = store.get(key) else { return };
    if !meta::is_terminating(&old) {
        let mut object = Value::clone(&old);
        terminate(&mut object, 0);
        object["status"]["phase"] = "Terminating".into();
        store.put(key.clone(), object);
    }
    for content in store.within(&key.name) {
        mark(cluster, store, &content, &IN_BACKGROUND);
    }
    settle(cluster, store, &key.name);
}

/// Removes a namespace that was deleted and is now empty.
fn settle(cluster: &Cluster, store: &mut Locked<'_>, namespace: &str) {
    let key = Key {
        resource: "namespaces".to_owned(),
        namespace: String::new(),
        name: namespace.to_owned(),
    };
    let Some(object) = store.get(&key) else { return };
    if !meta::is_terminating(&object) || !store.within(namespace).is_empty() {
        return;
    }
    let mut object = Value::clone(&object);
    object["spec"]["finalizers"] = json!([]);
    let object = store.put(key.clone(), object);
    if is_finished(&object) {
        take(cluster, store, &key);
    }
}
