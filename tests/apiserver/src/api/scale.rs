//! `/scale`: the replicas of an object as an object of their own.

use serde_json::{Value, json};

use super::{Answer, read, write};
use crate::{
    cluster::Cluster, convert::present, error::ApiError, meta, patch::Patch, registry::Scale,
    request::Request, route::Target,
};

/// Reads or changes the number of replicas.
pub fn scale(
    cluster: &Cluster,
    request: &Request,
    target: &Target,
    verb: &str,
) -> Result<Answer, ApiError> {
    let Some(paths) = &target.resource.scale else { return Err(ApiError::no_such_resource()) };
    let object = read::find(cluster, target)?;
    let before = view(paths, &object);
    let wanted = match verb {
        "get" => return Ok(Answer::ok(&before)),
        "update" => request.object()?,
        "patch" => match Patch::parse(&request.content_type, &request.body)? {
            Patch::Strategic(patch) => Patch::Merge(patch).apply(&target.resource, &before)?,
            other => other.apply(&target.resource, &before)?,
        },
        _ => return Err(ApiError::method_not_allowed()),
    };
    let mut new = present(&target.resource, &object).into_owned();
    *place(&mut new, &paths.replicas) = wanted["spec"]["replicas"].clone();
    meta::keep(&mut new, &wanted, "resourceVersion");
    let options = write::Options::of(request)?;
    let whole = Target { subresource: None, ..target.clone() };
    let mut store = cluster.store.lock();
    let new = write::replace(cluster, &mut store, &whole, &object, new, &options)?;
    Ok(Answer::ok(&view(paths, &new)))
}

fn view(paths: &Scale, object: &Value) -> Value {
    let at = |path: &str| path.split('.').fold(object, |value, step| &value[step]);
    let number = |path: &str| at(path).as_u64().unwrap_or(0);
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {},
        "spec": { "replicas": number(&paths.replicas) },
        "status": { "replicas": number(&paths.status_replicas) },
    });
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        meta::keep(&mut scale, object, field);
    }
    let selector = paths.selector.as_deref().map_or(&Value::Null, at);
    let labels = selector["matchLabels"].as_object();
    let pairs: Vec<_> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    match selector {
        Value::String(text) => scale["status"]["selector"] = text.as_str().into(),
        _ if !pairs.is_empty() => scale["status"]["selector"] = pairs.join(",").into(),
        _ => {}
    }
    scale
}

fn place<'v>(object: &'v mut Value, path: &str) -> &'v mut Value {
    path.split('.').fold(object, |value, step| &mut value[step])
}
