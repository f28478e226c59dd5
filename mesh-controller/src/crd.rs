//! The CustomResourceDefinitions of our own kinds, made from the types that read them.
//!
//! Schemars knows JSON Schema; an API server wants less of it, called structural: no references,
//! no `additionalProperties: false` beside properties (it prunes unknown fields itself, and
//! kubectl reports them), no `null` where a field can be left out.

use std::collections::BTreeMap;

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionNames,
        CustomResourceDefinitionSpec, CustomResourceDefinitionVersion,
        CustomResourceSubresourceStatus, CustomResourceSubresources, CustomResourceValidation,
        JSONSchemaProps,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use schemars::{JsonSchema, Schema, generate::SchemaSettings, transform};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::object::{Kind, MeshConfigSpec, PeerPolicySpec, PolicySpec};

/// What became of an object of ours, as its `status` says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Whether the object is in use, and why not.
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The enrolled pods that the object is in effect for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workloads: Option<i64>,
}

/// One thing that is so, is not so, or is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about: Accepted, or Programmed.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub type_: String,
    /// True, False or Unknown.
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
    pub status: String,
    /// Why, in one word.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// Why, for people.
    #[schemars(length(max = 32768))]
    pub message: String,
    /// When `status` last changed.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// The `metadata.generation` that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Every definition, in the order of names.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    [authorization_policy(), mesh_config(), peer_policy()].map(definition).into()
}

/// The definitions as files of YAML: names and content.
///
/// # Errors
/// Where a definition cannot be written as YAML.
pub fn files() -> Result<Vec<(String, String)>, serde_saphyr::ser::Error> {
    let file = |definition: CustomResourceDefinition| {
        let yaml = serde_saphyr::to_string(&definition)?;
        let name = definition.metadata.name.unwrap_or_default();
        Ok((format!("{name}.yaml"), format!("{HEAD}{yaml}")))
    };
    definitions().into_iter().map(file).collect()
}

const HEAD: &str = "# Written by `cargo xtask crds` from mesh-controller/src/object.\n";

/// What one kind has that the others have not.
struct Parts {
    kind: Kind,
    plural: &'static str,
    short_names: &'static [&'static str],
    description: &'static str,
    spec: Value,
    is_spec_required: bool,
    /// CEL rules of the whole object.
    rules: Value,
    columns: Vec<CustomResourceColumnDefinition>,
}

fn authorization_policy() -> Parts {
    Parts {
        kind: Kind::AuthorizationPolicy,
        plural: "authorizationpolicies",
        short_names: &["nmauth"],
        description: "Who may, or may not, connect to pods.",
        spec: schema::<PolicySpec>(),
        is_spec_required: true,
        rules: Value::Null,
        columns: vec![
            column("Action", ".spec.action", "What a matching rule does"),
            column(
                "Enforcement",
                ".spec.enforcement",
                "Whether the policy decides or only reports",
            ),
        ],
    }
}

fn peer_policy() -> Parts {
    Parts {
        kind: Kind::PeerPolicy,
        plural: "peerpolicies",
        short_names: &["nmpeer"],
        description: "Whether callers of pods have to prove who they are.",
        spec: schema::<PeerPolicySpec>(),
        is_spec_required: true,
        rules: Value::Null,
        columns: vec![column("Mode", ".spec.mode", "Whether plaintext is refused")],
    }
}

fn mesh_config() -> Parts {
    Parts {
        kind: Kind::MeshConfig,
        plural: "meshconfigs",
        short_names: &["nmconf"],
        description: "What holds for the whole mesh. There is one, called default.",
        spec: schema::<MeshConfigSpec>(),
        is_spec_required: false,
        rules: json!([{
            "rule": "self.metadata.name == 'default'",
            "message": "there is one MeshConfig, and it is called default",
        }]),
        columns: vec![
            column("Authorization", ".spec.authorization.default", "Where no ALLOW policy governs"),
            column("Peers", ".spec.peer.mode", "Where no PeerPolicy holds"),
        ],
    }
}

fn definition(parts: Parts) -> CustomResourceDefinition {
    let (group, version) = group_version();
    let mut columns = parts.columns;
    columns.extend([
        column(
            "Accepted",
            ".status.conditions[?(@.type==\"Accepted\")].status",
            "Whether the object is in use",
        ),
        CustomResourceColumnDefinition {
            type_: "integer".into(),
            ..column("Workloads", ".status.workloads", "Enrolled pods that it is in effect for")
        },
        CustomResourceColumnDefinition {
            priority: Some(1),
            ..column(
                "Message",
                ".status.conditions[?(@.type==\"Accepted\")].message",
                "Why it is in use or not",
            )
        },
        CustomResourceColumnDefinition {
            type_: "date".into(),
            ..column("Age", ".metadata.creationTimestamp", "Since when it is there")
        },
    ]);
    let mut root = json!({
        "type": "object",
        "description": parts.description,
        "properties": { "spec": parts.spec, "status": schema::<Status>() },
    });
    if parts.is_spec_required {
        root["required"] = json!(["spec"]);
    }
    if !parts.rules.is_null() {
        root["x-kubernetes-validations"] = parts.rules;
    }
    let root: JSONSchemaProps =
        serde_json::from_value(root).expect("a schema of the types above, which tests read");
    let kind = parts.kind.name();
    CustomResourceDefinition {
        metadata: ObjectMeta {
            name: Some(format!("{}.{group}", parts.plural)),
            labels: Some(BTreeMap::from([("app.kubernetes.io/part-of".into(), "nodemesh".into())])),
            ..ObjectMeta::default()
        },
        spec: CustomResourceDefinitionSpec {
            group: group.into(),
            names: CustomResourceDefinitionNames {
                categories: Some(vec!["nodemesh".into()]),
                kind: kind.into(),
                list_kind: Some(format!("{kind}List")),
                plural: parts.plural.into(),
                short_names: Some(parts.short_names.iter().map(ToString::to_string).collect()),
                singular: Some(kind.to_lowercase()),
            },
            scope: if parts.kind.is_namespaced() { "Namespaced" } else { "Cluster" }.into(),
            versions: vec![CustomResourceDefinitionVersion {
                additional_printer_columns: Some(columns),
                name: version.into(),
                schema: Some(CustomResourceValidation { open_api_v3_schema: Some(root) }),
                served: true,
                storage: true,
                subresources: Some(CustomResourceSubresources {
                    scale: None,
                    status: Some(CustomResourceSubresourceStatus(json!({}))),
                }),
                ..CustomResourceDefinitionVersion::default()
            }],
            ..CustomResourceDefinitionSpec::default()
        },
        status: None,
    }
}

fn group_version() -> (&'static str, &'static str) {
    mesh_common::API_VERSION.split_once('/').expect("a literal: group/version")
}

fn column(name: &str, path: &str, description: &str) -> CustomResourceColumnDefinition {
    CustomResourceColumnDefinition {
        name: name.into(),
        type_: "string".into(),
        json_path: path.into(),
        description: Some(description.into()),
        ..CustomResourceColumnDefinition::default()
    }
}

/// The structural schema of `T`.
fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let settings = settings.with_transform(transform::RecursiveTransform(structural));
    settings.into_generator().into_root_schema_for::<T>().into()
}

/// Takes out what an API server does not want.
fn structural(schema: &mut Schema) {
    schema.remove("title");
    schema.remove("nullable");
    if schema.get("properties").is_some() {
        schema.remove("additionalProperties");
    }
    // Lines end where comments in the source do.
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    // Kubernetes knows these formats of numbers only.
    let is_number = schema.get("type").is_some_and(|it| it == "integer");
    if is_number && schema.get("format").is_some_and(|it| it != "int32" && it != "int64") {
        schema.remove("format");
    }
}

#[cfg(test)]
mod tests;
