//! CustomResourceDefinitions: from a definition to the resources that it makes.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    error::Cause,
    meta,
    registry::{Generation, Origin, Resource, Scale},
    table::{Cell, Column, Columns, builtin::age, jsonpath::Path},
    validate::is_subdomain,
};

/// The resources of a definition, the preferred version first.
pub fn resources(definition: &Value) -> Vec<Resource> {
    let mut versions: Vec<_> = versions(definition).filter(|one| one["served"] == true).collect();
    versions.sort_by_key(|version| version["storage"] != true);
    versions.into_iter().map(|version| resource(definition, version)).collect()
}

fn versions(definition: &Value) -> impl Iterator<Item = &Value> {
    definition["spec"]["versions"].as_array().into_iter().flatten()
}

fn resource(definition: &Value, version: &Value) -> Resource {
    let spec = &definition["spec"];
    let names = &spec["names"];
    let schema = &version["schema"]["openAPIV3Schema"];
    let status = version["subresources"]["status"].is_object();
    let selectable = version["selectableFields"].as_array().into_iter().flatten();
    Resource {
        group: text(&spec["group"]),
        version: text(&version["name"]),
        plural: text(&names["plural"]),
        singular: text(&names["singular"]),
        kind: text(&names["kind"]),
        list_kind: text(&names["listKind"]),
        namespaced: spec["scope"] == "Namespaced",
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        status,
        scale: scale(&version["subresources"]["scale"]),
        // Without the subresource, status is a field like others.
        generation: Generation::Everything,
        fields: selectable
            .map(|field| text(&field["jsonPath"]).trim_start_matches('.').to_owned())
            .collect(),
        columns: columns(version),
        schema: Some(Arc::new(schema.clone())),
        storage: format!("{}.{}", text(&names["plural"]), text(&spec["group"])),
        origin: Origin::Custom,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn scale(scale: &Value) -> Option<Scale> {
    let path = |field: &str| {
        let path = scale[field].as_str()?;
        Some(path.trim_start_matches('.').to_owned())
    };
    Some(Scale {
        replicas: path("specReplicasPath")?,
        status_replicas: path("statusReplicasPath")?,
        selector: path("labelSelectorPath"),
    })
}

/// The printer columns; age where there are none.
fn columns(version: &Value) -> Columns {
    let Some(columns) = version["additionalPrinterColumns"].as_array() else { return vec![age()] };
    columns.iter().filter_map(column).collect()
}

fn column(column: &Value) -> Option<Column> {
    let kind = text(&column["type"]);
    let path = Path::parse(column["jsonPath"].as_str()?)?;
    Some(Column {
        name: text(&column["name"]),
        cell: if kind == "date" { Cell::Since(path) } else { Cell::Path(path) },
        kind,
        priority: column["priority"].as_u64().unwrap_or(0),
        description: text(&column["description"]),
    })
}

/// Fills in the names that follow from others, before a definition is stored.
pub fn complete(definition: &mut Value) {
    let names = &mut definition["spec"]["names"];
    if !names.is_object() {
        return;
    }
    let kind = text(&names["kind"]);
    if names["singular"].is_null() {
        names["singular"] = kind.to_lowercase().into();
    }
    if names["listKind"].is_null() {
        names["listKind"] = format!("{kind}List").into();
    }
    if definition["spec"]["conversion"].is_null() {
        definition["spec"]["conversion"] = json!({ "strategy": "None" });
    }
}

/// What is wrong with a definition.
pub fn check(definition: &Value) -> Vec<Cause> {
    let spec = &definition["spec"];
    let mut causes = Vec::new();
    let (plural, group) = (text(&spec["names"]["plural"]), text(&spec["group"]));
    for (field, value) in [
        ("spec.group", &group),
        ("spec.names.plural", &plural),
        ("spec.names.kind", &text(&spec["names"]["kind"])),
    ] {
        if value.is_empty() {
            causes.push(Cause::required(field, ""));
        } else if field != "spec.names.kind" && !is_subdomain(value) {
            causes.push(Cause::invalid(field, &value.as_str().into(), "must be a DNS subdomain"));
        }
    }
    let name = meta::text(definition, "name");
    let expected = format!("{plural}.{group}");
    if name != expected {
        let why = format!("must be spec.names.plural+\".\"+spec.group: {expected}");
        causes.push(Cause::invalid("metadata.name", &name.into(), why));
    }
    if !matches!(spec["scope"].as_str(), Some("Namespaced" | "Cluster")) {
        let scopes = ["Cluster".into(), "Namespaced".into()];
        causes.push(Cause::unsupported("spec.scope", &spec["scope"], &scopes));
    }
    if versions(definition).filter(|version| version["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &spec["versions"], why));
    }
    for (at, version) in versions(definition).enumerate() {
        let schema = &version["schema"]["openAPIV3Schema"];
        let path = format!("spec.versions[{at}].schema.openAPIV3Schema");
        if schema["type"] != "object" {
            causes.push(Cause::required(path, "schemas are required, of type object"));
        } else {
            structural(schema, &path, &mut causes);
        }
        let columns = version["additionalPrinterColumns"].as_array();
        for (at_column, one) in columns.into_iter().flatten().enumerate() {
            if column(one).is_none() {
                let path =
                    format!("spec.versions[{at}].additionalPrinterColumns[{at_column}].jsonPath");
                causes.push(Cause::invalid(path, &one["jsonPath"], "must be a JSON path"));
            }
        }
    }
    causes
}

/// Structural means: a type everywhere, and no field described twice.
fn structural(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let typeless = schema["x-kubernetes-int-or-string"] == true
        || schema["x-kubernetes-preserve-unknown-fields"] == true;
    if schema["type"].is_null() && !typeless {
        causes.push(Cause::required(
            format!("{path}.type"),
            "must not be empty for specified fields",
        ));
    }
    if !schema["properties"].is_null() && !schema["additionalProperties"].is_null() {
        causes.push(Cause {
            reason: "FieldValueForbidden",
            field: path.to_owned(),
            message: "Forbidden: additionalProperties and properties are mutual exclusive"
                .to_owned(),
        });
    }
    if schema["type"] == "array" && !schema["items"].is_object() {
        causes.push(Cause::required(format!("{path}.items"), "must be specified"));
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        structural(inner, &format!("{path}.properties[{name}]"), causes);
    }
    for name in ["items", "additionalProperties"] {
        if schema[name].is_object() {
            structural(&schema[name], &format!("{path}.{name}"), causes);
        }
    }
}

/// The status that the controllers of the real server give a definition.
pub fn status(definition: &Value) -> Value {
    let now = meta::now();
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": "True", "lastTransitionTime": now,
            "reason": reason, "message": message,
        })
    };
    let stored: Vec<_> = versions(definition)
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .collect();
    json!({
        "acceptedNames": definition["spec"]["names"],
        "storedVersions": stored,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    })
}
