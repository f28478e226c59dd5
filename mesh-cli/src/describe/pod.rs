//! What the mesh makes of a pod.

use mesh_common::{
    api::v1,
    model::{NamespacedName, Workload},
};
use mesh_controller::object::Pod;

use super::{Seen, enrolment, plaintext, yes};
use crate::{cluster::Cluster, status};

/// What the objects say of it.
pub fn shown(seen: &Seen, workload: &Workload) -> Vec<(&'static str, String)> {
    let list = |items: Vec<String>| match items.is_empty() {
        true => "none".to_owned(),
        false => items.join(", "),
    };
    let enrolled = match workload.enrolled {
        true => yes(true),
        false => format!("no: {}", enrolment::why_not(seen, workload)),
    };
    let captured = match (workload.enrolled, workload.captured) {
        (_, true) => yes(true),
        (true, false) => "no: the agent of its node has not said so to the controller".to_owned(),
        (false, false) => yes(false),
    };
    let identity = workload.identity.as_ref().map_or("none".to_owned(), ToString::to_string);
    let services = workload.memberships.iter().map(|it| {
        let ready = if it.ready { "" } else { " (not ready)" };
        format!("{}{ready}", it.service)
    });
    vec![
        ("pod", workload.name.to_string()),
        ("in the mesh", enrolled),
        ("captured", captured),
        ("identity", identity),
        ("node", workload.node.as_deref().unwrap_or("none").to_owned()),
        ("addresses", list(workload.addresses.iter().map(ToString::to_string).collect())),
        ("services", list(services.collect())),
        ("plaintext", plaintext(workload)),
        (
            "policies",
            list(workload.authorization_policies.iter().map(ToString::to_string).collect()),
        ),
    ]
}

/// What can be said of a pod that the mesh has no use for yet, or any more.
pub fn without_address(pod: &Pod) -> Vec<(&'static str, String)> {
    let (state, why) = state(pod);
    vec![
        ("pod", pod.name.to_string()),
        ("in the mesh", format!("no: it {why}")),
        ("state", state.to_owned()),
        ("node", pod.node.as_deref().unwrap_or("none").to_owned()),
    ]
}

/// Why the mesh does not know a pod, in a word and in a sentence.
pub fn state(pod: &Pod) -> (&'static str, &'static str) {
    if pod.finished {
        ("finished", "has run to its end")
    } else if pod.addresses.is_empty() {
        ("no address", "has no address yet")
    } else {
        (
            "left out",
            "has an address or a uid that another pod has too; `nodemesh check` says which",
        )
    }
}

/// What the agent of the pod's node says of it.
pub async fn said(cluster: &Cluster, pod: &Workload) -> Vec<(&'static str, String)> {
    let Some(node) = pod.node.as_deref().filter(|_| pod.enrolled) else { return Vec::new() };
    match status::of_node(cluster, node).await {
        Ok(status) => rows_of_agent(&status, &pod.name),
        Err(error) => vec![("agent", format!("could not be asked: {error:#}"))],
    }
}

fn rows_of_agent(status: &v1::NodeStatus, pod: &NamespacedName) -> Vec<(&'static str, String)> {
    let is_it = |name: &v1::NamespacedName| {
        (&*name.namespace, &*name.name) == (&*pod.namespace, &*pod.name)
    };
    let Some(pod) = status.pods.iter().find(|pod| pod.name.as_ref().is_some_and(is_it)) else {
        return vec![("state", "its agent does not know it yet".to_owned())];
    };
    let state = match pod.reason.is_empty() {
        true => pod.state.clone(),
        false => format!("{}: {}", pod.state, pod.reason),
    };
    let notes = pod.notes.iter().map(|note| ("note", note.clone()));
    [("state", state)].into_iter().chain(notes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::json::tests::status;

    #[test]
    fn what_the_agent_says_is_of_the_pod_alone() {
        let said = |name: &str| rows_of_agent(&status(), &NamespacedName::new("shop", name));
        let note = ("note", "interface net1 is not in the mesh".to_owned());
        assert!(said("web").contains(&note), "{:?}", said("web"));
        assert!(!said("batch").contains(&note), "{:?}", said("batch"));
        assert_eq!(said("new"), [("state", "its agent does not know it yet".to_owned())]);
    }
}
