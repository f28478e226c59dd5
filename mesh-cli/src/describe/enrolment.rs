//! Whether a pod is in the mesh, and what says so.

use mesh_common::{
    MESH_LABEL, SYSTEM_NAMESPACE,
    model::{NamespacedName, Workload},
};
use mesh_controller::{
    compile::{Compiled, ProblemCode},
    object::{Kind, Labels, Object},
};

use super::Seen;

/// What decided that a pod is in the mesh or not.
pub fn source(seen: &Seen, name: &NamespacedName) -> String {
    let value = |labels: &Labels| labels.get(MESH_LABEL).cloned();
    let own = match seen.picture.object(Kind::Pod, name) {
        Some(Object::Pod(pod)) => value(&pod.labels),
        _ => None,
    };
    if let Some(value) = own.filter(|it| matches!(it.as_str(), "enabled" | "disabled")) {
        return format!("label {MESH_LABEL}={value} of the pod");
    }
    let namespace = NamespacedName::new("", &name.namespace);
    let of_namespace = match seen.picture.object(Kind::Namespace, &namespace) {
        Some(Object::Namespace(namespace)) => value(&namespace.labels),
        _ => None,
    };
    match of_namespace {
        Some(value) => format!("label {MESH_LABEL}={value} of namespace {}", name.namespace),
        None => format!("no label {MESH_LABEL}, neither of the pod nor of its namespace"),
    }
}

/// Why a pod that is not in the mesh is not.
pub fn why_not(seen: &Seen, workload: &Workload) -> String {
    let name = &workload.name;
    if let Some(reason) = refused(&seen.compiled, name) {
        return reason;
    }
    if [SYSTEM_NAMESPACE, "kube-system"].contains(&&*name.namespace) {
        return format!("pods of {} never are", name.namespace);
    }
    match seen.picture.object(Kind::Pod, name) {
        Some(Object::Pod(pod)) if pod.host_network => {
            "it uses its node's network (hostNetwork)".to_owned()
        }
        _ => source(seen, name),
    }
}

/// Why the controller keeps a pod out that is wanted in the mesh.
fn refused(compiled: &Compiled, name: &NamespacedName) -> Option<String> {
    let mut of_pod = compiled.problems.iter().filter(|it| {
        it.code == ProblemCode::NotEnrolled
            && it.object.kind == Kind::Pod
            && it.object.name == *name
    });
    // It begins as it does in the status of the pod.
    let reason = &of_pod.next()?.reason;
    Some(reason.strip_prefix("is not in the mesh: ").unwrap_or(reason).to_owned())
}
