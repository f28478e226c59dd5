//! Which pods labels put in the mesh.

use std::collections::BTreeSet;

use mesh_common::{MESH_LABEL, SYSTEM_NAMESPACE, model::NamespacedName};

use super::Problems;
use crate::{
    index::Index,
    object::{Kind, Labels, Pod},
};

/// Kubernetes' own pods: a mesh that captured them could not be repaired by them.
const KUBERNETES_NAMESPACE: &str = "kube-system";

/// The pods that are in the mesh.
pub(super) fn enrolled<'o>(
    index: &Index<'o>,
    problems: &mut Problems,
) -> BTreeSet<&'o NamespacedName> {
    let mut enabled_namespaces = BTreeSet::new();
    for (&name, namespace) in &index.namespaces {
        match said(&namespace.labels) {
            Ok(Some(true)) => {
                enabled_namespaces.insert(name);
            }
            Ok(_) => {}
            Err(value) => {
                let name = NamespacedName::new("", name);
                problems.add(Kind::Namespace, &name, misunderstood(value, "not in the mesh"));
            }
        }
    }
    let mut enrolled = BTreeSet::new();
    for (&name, pod) in &index.pods {
        let is_enabled_by_namespace = enabled_namespaces.contains(&*name.namespace);
        let is_enabled = match said(&pod.labels) {
            Ok(said) => said.unwrap_or(is_enabled_by_namespace),
            Err(value) => {
                let reason = misunderstood(value, "the namespace's label decides");
                problems.add(Kind::Pod, name, reason);
                is_enabled_by_namespace
            }
        };
        if is_enabled && can_enrol(pod) {
            enrolled.insert(name);
        }
    }
    enrolled
}

fn can_enrol(pod: &Pod) -> bool {
    let is_system = matches!(&*pod.name.namespace, KUBERNETES_NAMESPACE | SYSTEM_NAMESPACE);
    // A pod in its node's network namespace cannot be captured without capturing the node.
    !is_system && !pod.host_network && !pod.finished && !pod.addresses.is_empty()
}

/// What labels say of the mesh, or a value that means nothing.
fn said(labels: &Labels) -> Result<Option<bool>, &str> {
    match labels.get(MESH_LABEL).map(String::as_str) {
        None => Ok(None),
        Some("enabled") => Ok(Some(true)),
        Some("disabled") => Ok(Some(false)),
        Some(other) => Err(other),
    }
}

fn misunderstood(value: &str, meanwhile: &str) -> String {
    format!("label {MESH_LABEL}={value} is neither `enabled` nor `disabled`: {meanwhile}")
}
