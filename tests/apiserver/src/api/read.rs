//! Reading one object.

use serde_json::{Value, json};

use super::{Answer, about};
use crate::{
    accept::Form,
    cluster::Cluster,
    convert::present,
    error::ApiError,
    meta,
    registry::Resource,
    request::Request,
    route::Target,
    store::{Key, Object},
    table::{self, Include},
};

/// Answers with an object.
pub fn get(cluster: &Cluster, request: &Request, target: &Target) -> Result<Answer, ApiError> {
    let object = find(cluster, target)?;
    Ok(Answer::ok(&shown(&target.resource, &object, request)?))
}

/// The object that a target names.
pub fn find(cluster: &Cluster, target: &Target) -> Result<Object, ApiError> {
    let store = cluster.store.lock();
    let key = key(target)?;
    store.get(&key).ok_or_else(|| ApiError::not_found(about(&target.resource, &key.name)))
}

/// Where the object of a target is.
pub fn key(target: &Target) -> Result<Key, ApiError> {
    let name = target.name.as_deref().ok_or_else(ApiError::method_not_allowed)?;
    Ok(meta::key(&target.resource, target.namespace.as_deref(), name))
}

/// An object in the form that was asked for.
pub fn shown(resource: &Resource, object: &Value, request: &Request) -> Result<Value, ApiError> {
    let object = present(resource, object);
    Ok(match request.form()? {
        Form::Plain | Form::Aggregated => object.into_owned(),
        Form::Metadata => meta::partial(&object),
        Form::Table => {
            let version = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
            table::table(&resource.columns, &[&*object], version, include(request)?)
        }
    })
}

/// How much of each object a table should carry.
pub fn include(request: &Request) -> Result<Include, ApiError> {
    match request.query.get("includeObject") {
        None | Some("Metadata") => Ok(Include::Metadata),
        Some("None") => Ok(Include::None),
        Some("Object") => Ok(Include::Object),
        Some(other) => Err(ApiError::bad_request(format!("unknown includeObject \"{other}\""))),
    }
}
