//! Ports that nothing has. Declaring a port is optional in Kubernetes, so that no pod declares the
//! port of a policy is worth a note, usually of a misspelt number; a name has to be declared, so
//! that no pod has the one that a Service leads to is a problem.

use std::collections::{BTreeMap, BTreeSet};

use mesh_common::model::{NamespacedName, Workload};

use super::{Problem, ProblemCode, Problems, authorization::selects};
use crate::{
    index::Index,
    object::{Kind, ObjectKey, Pod, Service},
};

/// The ports that a policy names and that none of its pods is known to have, as far as they say.
struct Unknown {
    ports: BTreeSet<u16>,
    /// Whether the policy is for a pod, and each of them says something of its ports.
    is_sure: bool,
}

/// What is odd with the ports of policies, next to the pods that they are for.
pub(super) fn notes(index: &Index<'_>, workloads: &[Workload]) -> Vec<Problem> {
    let mut unknown: BTreeMap<ObjectKey, Unknown> = BTreeMap::new();
    let mut named = |kind, name: &NamespacedName, ports: BTreeSet<u16>| {
        if !ports.is_empty() {
            let key = ObjectKey { kind, name: name.clone() };
            unknown.insert(key, Unknown { ports, is_sure: false });
        }
    };
    for (name, policy) in &index.policies {
        let operations = policy.compiled.rules.iter().flat_map(|rule| &rule.to);
        let ports = operations.flat_map(|it| it.ports.iter().copied()).collect();
        named(Kind::AuthorizationPolicy, name, ports);
    }
    for (name, policy) in &index.peer_policies {
        named(Kind::PeerPolicy, name, policy.ports.iter().map(|it| it.port).collect());
    }
    let mut undeclared: BTreeSet<ObjectKey> = BTreeSet::new();
    for workload in workloads.iter().filter(|workload| workload.enrolled) {
        let Some(pod) = index.pods.get(&workload.name) else { continue };
        let of_policies = workload.authorization_policies.iter();
        let keys = of_policies
            .map(|name| (Kind::AuthorizationPolicy, name))
            .chain(workload.admission.peer_policy.iter().map(|name| (Kind::PeerPolicy, name)));
        for (kind, name) in keys {
            let key = ObjectKey { kind, name: name.clone() };
            let Some(unknown) = unknown.get_mut(&key) else { continue };
            unknown.is_sure = true;
            if pod.ports.is_empty() {
                undeclared.insert(key);
                continue;
            }
            let behind = workload.memberships.iter().flat_map(|it| &it.ports);
            let behind: Vec<u16> = behind.map(|it| it.target_port).collect();
            unknown.ports.retain(|port| !has(pod, *port) && !behind.contains(port));
        }
    }
    let note = |(object, Unknown { ports, is_sure }): (ObjectKey, Unknown)| {
        if !is_sure || ports.is_empty() || undeclared.contains(&object) {
            return None;
        }
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        let reason = format!(
            "no pod that it is for declares port {}; if that is meant, there is nothing to do",
            ports.join(" or ")
        );
        Some(Problem { object, code: ProblemCode::Problem, reason })
    };
    unknown.into_iter().filter_map(note).collect()
}

fn has(pod: &Pod, port: u16) -> bool {
    pod.ports.iter().any(|it| it.number == port) || pod.probe_ports.contains(&port)
}

/// Finds the Services that lead to a name which none of their pods has.
pub(super) fn target_names(index: &Index<'_>, problems: &mut Problems) {
    let mut by_namespace: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in index.pods.values().filter(|pod| !pod.finished) {
        by_namespace.entry(&pod.name.namespace).or_default().push(pod);
    }
    for service in index.services.values().filter(|it| !it.target_names.is_empty()) {
        let pods = by_namespace.get(&*service.name.namespace).into_iter().flatten();
        let pods: Vec<&Pod> = pods.copied().filter(|pod| is_behind(service, pod)).collect();
        for (port, target) in &service.target_names {
            let is_it = |pod: &&Pod| pod.ports.iter().any(|it| it.name.as_deref() == Some(target));
            if !pods.is_empty() && !pods.iter().any(is_it) {
                let reason = format!(
                    "port {port} leads to the targetPort `{target}`, a name that no container port \
                     of its {} pods has: nothing is behind it",
                    pods.len()
                );
                problems.add(Kind::Service, &service.name, reason);
            }
        }
    }
}

fn is_behind(service: &Service, pod: &Pod) -> bool {
    !service.selector.is_empty() && selects(&service.selector, &pod.labels)
}
