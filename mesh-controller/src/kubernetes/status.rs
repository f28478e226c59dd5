//! The status of nodemesh's own objects, as they carry it in a cluster: pure.

use serde_json::{Value, json};

use super::Resource;
use crate::{
    compile::ObjectStatus,
    crd::{Condition, Status},
    object::{Kind, ObjectKey},
};

/// So many nodes are named where agents refuse an object; the rest are counted.
const NODES: usize = 3;
/// A message has this many bytes at most: the API conventions' limit.
const MESSAGE_BYTES: usize = 32_768;

/// How much one status differs from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Not at all, but for times.
    None,
    /// In numbers, which may change with every pod.
    Numbers,
    /// In what it says.
    Conditions,
}

/// What an object carries now.
pub fn of(object: &Value) -> Status {
    let status = object.get("status").cloned().unwrap_or_default();
    serde_json::from_value(status).unwrap_or_default()
}

/// What an object with this status should carry, where agents refused it for these reasons.
pub fn wanted(status: &ObjectStatus, refusals: &[(String, String)]) -> Status {
    let condition = |type_: &str, is_so: bool, reason: &str, message: String| Condition {
        type_: type_.to_owned(),
        status: if is_so { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: bounded(message),
        last_transition_time: String::new(),
        observed_generation: status.observed_generation,
    };
    let accepted = condition("Accepted", status.accepted, status.reason, status.message.clone());
    let programmed = match (status.accepted, refusals, status.workloads) {
        (false, ..) => {
            let message = "the version that is written is not in use: see Accepted";
            condition("Programmed", false, "Invalid", message.to_owned())
        }
        (true, [], 0) => {
            let message = "in effect for no pod: none that is in the mesh is selected";
            condition("Programmed", true, "NoWorkloads", message.to_owned())
        }
        (true, [], _) => condition("Programmed", true, "Programmed", String::new()),
        (true, refusals, _) => condition("Programmed", false, "RefusedByAgents", refused(refusals)),
    };
    let workloads = i64::try_from(status.workloads).ok();
    Status { conditions: vec![accepted, programmed], workloads }
}

/// How `new` differs from `known`.
pub fn difference(new: &Status, known: &Status) -> Difference {
    let is_same = new.conditions.iter().all(|new| {
        let known = known.conditions.iter().find(|known| known.type_ == new.type_);
        known.is_some_and(|known| {
            let last_transition_time = known.last_transition_time.clone();
            *known == Condition { last_transition_time, ..new.clone() }
        })
    });
    match (is_same, new.workloads == known.workloads) {
        (false, _) => Difference::Conditions,
        (true, false) => Difference::Numbers,
        (true, true) => Difference::None,
    }
}

/// `new` with the times of `known` where a condition is as it was, and `now` where it changed.
pub fn since(mut new: Status, known: &Status, now: &str) -> Status {
    for condition in &mut new.conditions {
        let before = known.conditions.iter().find(|known| known.type_ == condition.type_);
        let time = before.filter(|before| before.status == condition.status);
        let time = time.map(|before| before.last_transition_time.as_str());
        condition.last_transition_time =
            time.filter(|time| !time.is_empty()).unwrap_or(now).to_owned();
    }
    new
}

/// The patch that writes `status`, for server-side apply.
pub fn patch(key: &ObjectKey, status: &Status) -> Value {
    let mut metadata = json!({"name": &*key.name.name});
    if key.kind.is_namespaced() {
        metadata["namespace"] = json!(&*key.name.namespace);
    }
    json!({
        "apiVersion": key.kind.api_version(),
        "kind": key.kind.name(),
        "metadata": metadata,
        "status": status,
    })
}

/// The collection that the object is in.
pub fn collection(key: &ObjectKey) -> Resource {
    let namespace = key.kind.is_namespaced().then_some(&*key.name.namespace);
    Resource::of_namespace(key.kind, namespace)
}

/// The kinds that carry a status of ours.
pub fn kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(|kind| kind.is_ours())
}

pub(super) fn refused(refusals: &[(String, String)]) -> String {
    let named = refusals.iter().take(NODES).map(|(node, reason)| format!("node {node}: {reason}"));
    let mut message = named.collect::<Vec<_>>().join("; ");
    if refusals.len() > NODES {
        message += &format!("; and {} more nodes", refusals.len() - NODES);
    }
    message
}

/// Cut where it is too long for the field.
pub(super) fn bounded(mut message: String) -> String {
    let end = message.floor_char_boundary(MESSAGE_BYTES);
    message.truncate(end);
    message
}

#[cfg(test)]
mod tests;
