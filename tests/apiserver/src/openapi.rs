//! The schemas of everything, in the OpenAPI 2 form that kubectl validates with.

mod protobuf;

use serde_json::{Map, Value, json};

use crate::{
    api::Answer,
    error::ApiError,
    registry::{Origin, Registry, Resource},
};

/// What kubectl gets: it asks with `v2@v1.0`, which Go's own parser takes for no media type, so
/// the real server answers with a dot.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// `/openapi/v2`, as protobuf or JSON.
pub fn v2(registry: &Registry, accept: Option<&str>) -> Result<Answer, ApiError> {
    let document = document(registry);
    let accept = accept.unwrap_or("*/*");
    if accept.contains("protobuf") {
        return Ok(Answer::Bytes(PROTOBUF, protobuf::document(&document)));
    }
    Ok(Answer::Bytes("application/json", document.to_string().into_bytes()))
}

fn document(registry: &Registry) -> Value {
    let stored = registry.all();
    let definitions: Map<_, _> = stored
        .iter()
        .filter(|resource| resource.origin != Origin::Review)
        .map(|resource| (definition_name(resource), definition(resource)))
        .collect();
    let paths: Map<_, _> = stored
        .iter()
        .filter(|resource| resource.origin != Origin::Review)
        .map(|resource| (path(resource), json!({ "patch": patch(resource) })))
        .collect();
    json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": "v1.33.0" },
        "paths": paths,
        "definitions": definitions,
    })
}

/// Where objects of a resource are.
fn path(resource: &Resource) -> String {
    let root = if resource.group.is_empty() { "/api" } else { "/apis" };
    let namespace = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    format!("{root}/{}{namespace}/{}/{{name}}", resource.api_version(), resource.plural)
}

/// kubectl looks here whether a kind can be written without being stored.
fn patch(resource: &Resource) -> Value {
    json!({
        "parameters": [{ "name": "dryRun", "in": "query", "type": "string" }],
        "responses": {},
        "x-kubernetes-group-version-kind": {
            "group": resource.group,
            "version": resource.version,
            "kind": resource.kind,
        },
    })
}

/// Only the name of the kind: kubectl lets any content through, and the server checks it as far as
/// it does.
fn definition(resource: &Resource) -> Value {
    json!({
        "type": "object",
        "x-kubernetes-group-version-kind": [{
            "group": resource.group,
            "version": resource.version,
            "kind": resource.kind,
        }],
    })
}

fn definition_name(resource: &Resource) -> String {
    let group = match resource.group.as_str() {
        "" => "core",
        group => group,
    };
    format!("{group}.{}.{}", resource.version, resource.kind)
}
