//! What an object has to be before it is stored: named, at home, complete, valid.

use serde_json::{Value, json};

use super::{
    about, about_kind,
    write::{FieldValidation, Options},
};
use crate::{
    crd, defaults,
    error::{ApiError, Cause},
    meta,
    registry::{Origin, Resource},
    route::Target,
    schema,
    store::{Key, Locked},
    validate,
};

/// Checks that a body is an object of the kind, namespace and name that the path says.
pub fn identify(resource: &Resource, target: &Target, object: &mut Value) -> Result<(), ApiError> {
    if !object.is_object() {
        return Err(ApiError::bad_request("the body of the request is not an object"));
    }
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let (kind, version) = (text("kind"), text("apiVersion"));
    if kind.is_empty() {
        return Err(ApiError::bad_request("Object 'Kind' is missing in the body of the request"));
    }
    let expected = resource.api_version();
    if (&kind, &version) != (&resource.kind, &expected) {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}, Kind={kind}) does not match the expected \
             API version ({expected}, Kind={})",
            resource.kind
        )));
    }
    check_shape(object)?;
    if object["metadata"].is_null() {
        object["metadata"] = json!({});
    }
    let namespace = meta::text(object, "namespace").to_owned();
    match &target.namespace {
        Some(expected) if namespace.is_empty() => {
            object["metadata"]["namespace"] = expected.as_str().into();
        }
        Some(expected) if *expected != namespace => {
            let message = "the namespace of the provided object does not match the namespace sent \
                           on the request";
            return Err(ApiError::bad_request(message));
        }
        Some(_) => {}
        None => meta::remove(object, "namespace"),
    }
    if let Some(expected) = &target.name {
        let name = meta::text(object, "name").to_owned();
        if name.is_empty() {
            object["metadata"]["name"] = expected.as_str().into();
        } else if name != *expected {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({expected})"
            )));
        }
    }
    Ok(())
}

/// What everything else here takes for an object has to be one.
fn check_shape(object: &Value) -> Result<(), ApiError> {
    for path in [
        "/metadata",
        "/metadata/labels",
        "/metadata/annotations",
        "/spec",
        "/spec/template",
        "/spec/template/spec",
        "/status",
        "/data",
        "/stringData",
    ] {
        if object.pointer(path).is_some_and(|value| !value.is_object() && !value.is_null()) {
            let field = path.trim_start_matches('/').replace('/', ".");
            return Err(ApiError::bad_request(format!("{field} has to be an object")));
        }
    }
    Ok(())
}

/// Gives a name to an object that wants one.
pub fn name(resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
    if !meta::text(object, "name").is_empty() {
        return Ok(());
    }
    let prefix = meta::text(object, "generateName");
    if prefix.is_empty() {
        let cause = Cause::required("metadata.name", "name or generateName is required");
        return Err(ApiError::invalid(about_kind(resource, ""), &[cause]));
    }
    object["metadata"]["name"] = meta::generated(prefix).into();
    Ok(())
}

/// Checks that the namespace is there and stays.
pub fn namespace(
    store: &Locked<'_>,
    resource: &Resource,
    namespace: Option<&str>,
    name: &str,
) -> Result<(), ApiError> {
    let Some(namespace) = namespace.filter(|_| resource.namespaced) else { return Ok(()) };
    let about_namespace =
        crate::error::About { group: "", resource: "namespaces", name: namespace };
    let key = Key {
        resource: "namespaces".to_owned(),
        namespace: String::new(),
        name: namespace.to_owned(),
    };
    let Some(home) = store.get(&key) else { return Err(ApiError::not_found(about_namespace)) };
    if meta::is_terminating(&home) {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        return Err(ApiError::forbidden(about(resource, name), &why));
    }
    Ok(())
}

/// Completes an object and checks what is in it.
pub fn content(
    store: &Locked<'_>,
    resource: &Resource,
    object: &mut Value,
    old: Option<&Value>,
    options: &Options,
) -> Result<(), ApiError> {
    if resource.origin == Origin::Builtin {
        drop_nulls(object);
    }
    defaults::complete(store, resource, object, old);
    let mut causes = validate::metadata(object);
    if let Some(schema) = &resource.schema {
        let unknown = schema::prune(schema, object);
        if options.validation == FieldValidation::Strict && !unknown.is_empty() {
            let fields: Vec<_> =
                unknown.iter().map(|field| format!("unknown field \"{field}\"")).collect();
            let message = format!("strict decoding error: {}", fields.join(", "));
            return Err(ApiError::bad_request(message));
        }
        schema::complete(schema, object);
        causes.extend(schema::check(schema, object, old));
    }
    if resource.kind == "CustomResourceDefinition" {
        crd::complete(object);
        causes.extend(crd::check(object));
    }
    causes.extend(validate::immutable(resource, object, old));
    if causes.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(about_kind(resource, meta::text(object, "name")), &causes))
}

/// Null is the same as absent for built-in kinds.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
