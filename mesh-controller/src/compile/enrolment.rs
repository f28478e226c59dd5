//! Which pods labels put in the mesh.

use std::collections::BTreeSet;

use mesh_common::{MESH_LABEL, SYSTEM_NAMESPACE, model::NamespacedName};

use super::Problems;
use crate::{
    index::Index,
    object::{Kind, Labels, Obstacle, Pod},
};

/// Why a pod cannot be in the mesh, if it cannot.
fn obstacle(index: &Index<'_>, pod: &Pod) -> Option<Obstacle> {
    let class = pod.runtime_class.as_deref();
    let of_class =
        || class.and_then(|it| Obstacle::of_class(it, index.runtime_classes.get(it).copied()));
    pod.obstacle.or_else(of_class)
}

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
        let own = said(&pod.labels);
        let is_enabled = match own {
            Ok(said) => said.unwrap_or(is_enabled_by_namespace),
            Err(value) => {
                let reason = misunderstood(value, "the namespace's label decides");
                problems.add(Kind::Pod, name, reason);
                is_enabled_by_namespace
            }
        };
        if !is_enabled || !is_there(pod) {
            continue;
        }
        if pod.host_network {
            // Every agent of a DaemonSet is such a pod; only one that asks for it is told.
            if own == Ok(Some(true)) {
                problems.not_enrolled(name, HOST_NETWORK.into());
            }
        } else if let Some(obstacle) = obstacle(index, pod) {
            problems.not_enrolled(name, format!("is not in the mesh: {obstacle}"));
        } else {
            enrolled.insert(name);
        }
    }
    enrolled
}

/// Why a pod in its node's network namespace is never in the mesh.
const HOST_NETWORK: &str = "is not in the mesh: it uses its node's network (hostNetwork), which \
    cannot be captured without capturing the node; remove the label";

/// Whether there is something to capture that may be.
fn is_there(pod: &Pod) -> bool {
    let is_system = matches!(&*pod.name.namespace, KUBERNETES_NAMESPACE | SYSTEM_NAMESPACE);
    !is_system && !pod.finished && !pod.addresses.is_empty()
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
