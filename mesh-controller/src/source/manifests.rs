//! Manifests as people keep them, judged before they are applied to a cluster.
//!
//! Two things are other than in a folder that is served from: kinds that no mesh reads lie beside
//! those that it does, and what an API server fills in, such as a Service's cluster IP, is missing.

use std::{collections::BTreeMap, path::Path};

use super::{Merger, Objects, file};
use crate::object::Kind;

/// Manifests that were read once.
#[derive(Debug, Default)]
pub struct Manifests {
    /// What is understood, and what is wrong.
    pub objects: Objects,
    /// How many there are of each kind that the mesh does not read.
    pub skipped: BTreeMap<String, usize>,
}

impl Manifests {
    /// Reads a file, or a folder of YAML files with its subfolders.
    pub fn load(root: &Path) -> Self {
        let mut skipped = BTreeMap::new();
        let files = file::manifests(root, &mut skipped);
        Self { objects: Merger::default().merge(&files), skipped }
    }
}

/// The API group of the Gateway API.
const GATEWAY: &str = "gateway.networking.k8s.io";
/// What there is in the groups of which some kinds are read, beside those: another name there is
/// misspelt.
const UNREAD: [(&str, &[&str]); 4] = [
    (
        "",
        &[
            "Binding",
            "ComponentStatus",
            "ConfigMap",
            "Endpoints",
            "Event",
            "LimitRange",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "PodTemplate",
            "ReplicationController",
            "ResourceQuota",
            "Secret",
        ],
    ),
    (
        GATEWAY,
        &[
            "BackendTLSPolicy",
            "Gateway",
            "GatewayClass",
            "ListenerSet",
            "ReferenceGrant",
            "UDPRoute",
        ],
    ),
    ("discovery.k8s.io", &[]),
    ("node.k8s.io", &[]),
];

/// What to call an object that is none of the mesh's business; `None` where it is, or where what is
/// written is more likely a mistake.
pub(super) fn unread(kind: &str, api_version: &str) -> Option<String> {
    let group = match api_version.split_once('/') {
        Some(("", _)) => return None,
        Some((group, _)) => group,
        None => "",
    };
    if mesh_common::API_VERSION.split('/').next() == Some(group) {
        return None;
    }
    if let Some((_, unread)) = UNREAD.iter().find(|(known, _)| *known == group) {
        return unread.contains(&kind).then(|| kind.to_owned());
    }
    if !Kind::ALL.into_iter().any(|known| known.name() == kind) {
        return Some(kind.to_owned());
    }
    // Others have kinds of the same name; Kubernetes itself does not.
    let is_vendor = group.contains('.') && !group.ends_with(".k8s.io");
    is_vendor.then(|| format!("{kind}.{group}"))
}

#[cfg(test)]
mod tests;
