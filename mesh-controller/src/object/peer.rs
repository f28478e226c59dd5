//! PeerPolicies and the MeshConfig, `nodemesh.dev/v1alpha1`: what holds where no
//! AuthorizationPolicy speaks.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_common::model::{Action, NamespacedName, PeerMode, PortMode};
use serde::Deserialize;

use super::{FieldError, Labels, fields, selector::SelectorField};

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
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PeerPolicySpec {
    selector: Option<SelectorField>,
    mode: ModeField,
    ports: Option<Vec<PortField>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PortField {
    port: i32,
    mode: ModeField,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
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
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct MeshConfigSpec {
    #[serde(default)]
    authorization: AuthorizationField,
    #[serde(default)]
    peer: PeerField,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AuthorizationField {
    #[serde(default)]
    default: ActionField,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PeerField {
    #[serde(default)]
    mode: ModeField,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
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
        for (at, it) in ports.unwrap_or_default().into_iter().enumerate() {
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
