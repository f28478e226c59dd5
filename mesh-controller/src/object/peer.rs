//! PeerPolicies and the MeshConfig, `nodemesh.dev/v1alpha1`: what holds where no
//! AuthorizationPolicy speaks.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_common::model::{Action, NamespacedName, PeerMode, PortMode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FieldError, Labels, fields, limits, selector::SelectorField};

/// The one MeshConfig.
const MESH_CONFIG: &str = "default";

/// Whether callers have to prove who they are.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerPolicy {
    /// Namespace and name.
    pub name: NamespacedName,
    /// Labels that a Pod must have; empty selects every Pod.
    pub match_labels: Labels,
    /// The mode of every port that is not in `ports`.
    pub mode: PeerMode,
    /// Ports of another mode, by port.
    pub ports: Vec<PortMode>,
    /// `metadata.generation`.
    pub generation: Option<i64>,
}

/// What holds for the whole mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshConfig {
    /// What happens to connections that no AuthorizationPolicy governs.
    pub default_action: Action,
    /// The mode of pods that no PeerPolicy is for.
    pub peer_mode: PeerMode,
    /// `metadata.generation`.
    pub generation: Option<i64>,
}

impl MeshConfig {
    /// Its name, in no namespace.
    pub fn name() -> NamespacedName {
        NamespacedName::new("", MESH_CONFIG)
    }
}

/// A PeerPolicy as people write it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PeerPolicyObject {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: ObjectMeta,
    spec: PeerPolicySpec,
    #[serde(default, rename = "status")]
    _status: Option<serde_json::Value>,
}

/// Whether callers of pods have to prove who they are.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct PeerPolicySpec {
    /// The pods that the policy is for: of its namespace, or of all where the policy is in
    /// nodemesh-system. Left out, every pod.
    selector: Option<SelectorField>,
    /// STRICT refuses plaintext, PERMISSIVE lets it in where no AuthorizationPolicy refuses it.
    mode: ModeField,
    /// Ports of the pod where another mode holds.
    #[schemars(length(max = limits::PORTS))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["port"]))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self.all(one, self.filter(other, other.port == one.port).size() == 1)",
        "message": "a port is there twice",
    }]))]
    ports: Option<Vec<PortField>>,
}

/// A port of another mode.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PortField {
    /// A port of the pod, which need not be that of the Service.
    #[schemars(range(min = 1, max = 65535))]
    port: i32,
    /// The mode of this port.
    mode: ModeField,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum ModeField {
    #[default]
    Permissive,
    Strict,
}

/// A MeshConfig as people write it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MeshConfigObject {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: ObjectMeta,
    #[serde(default)]
    spec: MeshConfigSpec,
    #[serde(default, rename = "status")]
    _status: Option<serde_json::Value>,
}

/// What holds for the whole mesh where nothing says otherwise.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct MeshConfigSpec {
    /// Connections that no AuthorizationPolicy governs.
    #[serde(default)]
    authorization: AuthorizationField,
    /// Pods that no PeerPolicy is for.
    #[serde(default)]
    peer: PeerField,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AuthorizationField {
    /// What becomes of connections that no ALLOW policy governs.
    #[serde(default)]
    default: ActionField,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PeerField {
    /// STRICT refuses plaintext, PERMISSIVE lets it in where no AuthorizationPolicy refuses it.
    #[serde(default)]
    mode: ModeField,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum ActionField {
    #[default]
    Allow,
    Deny,
}

impl From<ModeField> for PeerMode {
    fn from(mode: ModeField) -> Self {
        match mode {
            ModeField::Permissive => Self::Permissive,
            ModeField::Strict => Self::Strict,
        }
    }
}

impl TryFrom<PeerPolicyObject> for PeerPolicy {
    type Error = FieldError;

    fn try_from(object: PeerPolicyObject) -> Result<Self, FieldError> {
        let PeerPolicySpec { selector, mode, ports } = object.spec;
        let mut modes: Vec<PortMode> = Vec::new();
        let ports = ports.unwrap_or_default();
        fields::at_most("spec.ports", ports.len(), limits::PORTS)?;
        for (at, it) in ports.into_iter().enumerate() {
            let field = format!("spec.ports[{at}].port");
            let port = fields::port(&field, it.port)?;
            if modes.iter().any(|known| known.port == port) {
                return Err(FieldError::new(field, format!("{port} is there twice")));
            }
            modes.push(PortMode { port, mode: it.mode.into() });
        }
        modes.sort_by_key(|it| it.port);
        Ok(Self {
            name: fields::named(&object.metadata)?,
            match_labels: selector.map_or_else(|| Ok(Labels::new()), SelectorField::labels)?,
            mode: mode.into(),
            ports: modes,
            generation: object.metadata.generation,
        })
    }
}

impl TryFrom<MeshConfigObject> for MeshConfig {
    type Error = FieldError;

    fn try_from(object: MeshConfigObject) -> Result<Self, FieldError> {
        let name = fields::name(&object.metadata)?;
        if name != MESH_CONFIG {
            let reason = format!("`{name}`: there is one MeshConfig, and it is called `default`");
            return Err(FieldError::new("metadata.name", reason));
        }
        let MeshConfigSpec { authorization, peer } = object.spec;
        Ok(Self {
            default_action: match authorization.default {
                ActionField::Allow => Action::Allow,
                ActionField::Deny => Action::Deny,
            },
            peer_mode: peer.mode.into(),
            generation: object.metadata.generation,
        })
    }
}
