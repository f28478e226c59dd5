//! What in the cluster the mesh breaks, or would break once it is strict: callers that cannot be in
//! it, and NetworkPolicies that keep port 15008 shut.

use std::collections::BTreeMap;

use mesh_common::model::NamespacedName;
use mesh_controller::compile::Compiled;
use serde_json::Value;

use super::{
    callers::{self, Call, Pods, enrolled},
    network_policy::{self, Direction, Peer, Policy, labels},
    scrapes,
};
use crate::{
    checklist::Checklist,
    cluster::Cluster,
    picture::Picture,
    value::{name, namespace},
};

/// Where webhooks of the API server are listed, and what they are.
const WEBHOOKS: [(&str, &str); 2] = [
    (
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
    ),
    (
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
    ),
];
const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const SERVICE_MONITORS: &str = "/apis/monitoring.coreos.com/v1/servicemonitors";
const POD_MONITORS: &str = "/apis/monitoring.coreos.com/v1/podmonitors";
const NETWORK_POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";
/// Policies of others that limit pods' traffic, which are not read.
const FOREIGN_POLICIES: [(&str, &str); 6] = [
    ("/apis/cilium.io/v2/ciliumnetworkpolicies", "CiliumNetworkPolicies"),
    ("/apis/cilium.io/v2/ciliumclusterwidenetworkpolicies", "CiliumClusterwideNetworkPolicies"),
    ("/apis/crd.projectcalico.org/v1/globalnetworkpolicies", "Calico GlobalNetworkPolicies"),
    ("/apis/crd.projectcalico.org/v1/networkpolicies", "Calico NetworkPolicies"),
    ("/apis/policy.networking.k8s.io/v1alpha1/adminnetworkpolicies", "AdminNetworkPolicies"),
    (
        "/apis/policy.networking.k8s.io/v1alpha1/baselineadminnetworkpolicies",
        "BaselineAdminNetworkPolicies",
    ),
];

const API_SERVER_HINT: &str = "the API server is in no mesh: make the port PERMISSIVE in a \
    PeerPolicy and allow it in policies, or keep these pods out of the mesh";
const SCRAPE_HINT: &str =
    "enrol Prometheus, or make the port PERMISSIVE in a PeerPolicy and allow it in policies";

/// `compiled` is what the controller makes of `picture`.
pub(super) async fn check(
    cluster: &Cluster,
    picture: &Picture,
    compiled: &Compiled,
    list: &mut Checklist,
) {
    let pods = callers(cluster, compiled, &picture.compiled_strictly(), list).await;
    list.section("NetworkPolicies");
    let policies = listed(cluster, NETWORK_POLICIES, list).await;
    let namespaces = listed(cluster, "/api/v1/namespaces", list).await;
    let blocked = blocked(&policies, &pods, &namespaces, compiled);
    if blocked.is_empty() {
        list.good("none keeps port 15008 shut for a pod of the mesh");
    }
    for what in blocked {
        list.bad(what, "allow TCP port 15008 there: deploy/examples/networkpolicy.yaml");
    }
    for (path, kind) in FOREIGN_POLICIES {
        let count = listed(cluster, path, list).await.len();
        if count > 0 {
            list.warning(
                format!("{count} {kind} are here, which are not read"),
                "they have to admit TCP port 15008 between pods of the mesh: see docs/cni.md",
            );
        }
    }
}

/// Who calls pods of the mesh and is refused, or would be once the mesh is strict and its default
/// is DENY, by what the controller makes of either; the pods of the cluster.
pub async fn callers(
    cluster: &Cluster,
    now: &Compiled,
    strict: &Compiled,
    list: &mut Checklist,
) -> Vec<Value> {
    let mesh = [Pods::of(now), Pods::of(strict)];
    list.section("callers outside the mesh");
    let calls = api_server_calls(cluster, list).await;
    let good = format!("the API server reaches what it calls: {} webhooks and APIs", calls.len());
    judge(list, &calls, &mesh, API_SERVER_HINT, &good);
    let pods = listed(cluster, "/api/v1/pods", list).await;
    let calls = scrape_calls(cluster, &pods, &mesh[0], list).await;
    let count = calls.len();
    let good = format!("nothing refuses the {count} scrapes that pods and monitors ask for");
    judge(list, &calls, &mesh, SCRAPE_HINT, &good);
    pods
}

/// What is at `path`; where that cannot be said, the others are looked at all the same.
async fn listed(cluster: &Cluster, path: &str, list: &mut Checklist) -> Vec<Value> {
    match cluster.list(path).await {
        Ok(objects) => objects,
        Err(error) => {
            list.looked(Err(error));
            Vec::new()
        }
    }
}

async fn api_server_calls(cluster: &Cluster, list: &mut Checklist) -> Vec<Call> {
    let mut calls = Vec::new();
    for (path, kind) in WEBHOOKS {
        for object in listed(cluster, path, list).await {
            calls.extend(callers::of_webhooks(&object, kind));
        }
    }
    let services = listed(cluster, API_SERVICES, list).await;
    calls.extend(services.iter().filter_map(callers::of_api_service));
    let definitions = listed(cluster, DEFINITIONS, list).await;
    calls.extend(definitions.iter().filter_map(callers::of_conversion));
    calls
}

async fn scrape_calls(
    cluster: &Cluster,
    pods: &[Value],
    mesh: &Pods<'_>,
    list: &mut Checklist,
) -> Vec<Call> {
    let mut calls: Vec<Call> = pods.iter().flat_map(scrapes::of_pod).collect();
    let of_pods = listed(cluster, POD_MONITORS, list).await;
    let of_services = listed(cluster, SERVICE_MONITORS, list).await;
    let services = match of_services.is_empty() {
        true => Vec::new(),
        false => listed(cluster, "/api/v1/services", list).await,
    };
    let seen = scrapes::Cluster { pods, services: &services };
    calls.extend(of_pods.iter().flat_map(|it| scrapes::of_pod_monitor(it, &seen)));
    calls.extend(of_services.iter().flat_map(|it| scrapes::of_service_monitor(it, &seen)));
    let scraper = scrapes::scraper(pods, mesh);
    calls.iter_mut().for_each(|call| call.identity.clone_from(&scraper));
    calls
}

/// Judges calls as the mesh is now and as it would be, were it strict.
fn judge(list: &mut Checklist, calls: &[Call], mesh: &[Pods<'_>; 2], hint: &str, good: &str) {
    let [now, strict] = mesh;
    let mut is_good = true;
    for call in calls {
        if let Some((pod, reason)) = now.refusal(call) {
            list.bad(format!("{}, but {}: {reason}", call.what, pod.name), hint);
        } else if let Some((pod, reason)) = strict.refusal(call) {
            let what =
                format!("{}, which {} would refuse once strict: {reason}", call.what, pod.name);
            list.warning(what, hint);
        } else {
            continue;
        }
        is_good = false;
    }
    if is_good {
        list.good(good);
    }
}

/// A line a NetworkPolicy and direction that keeps port 15008 shut for pods of the mesh.
fn blocked(
    policies: &[Value],
    pods: &[Value],
    namespaces: &[Value],
    compiled: &Compiled,
) -> Vec<String> {
    let pods: BTreeMap<(&str, &str), &Value> =
        pods.iter().map(|pod| ((namespace(pod), name(pod)), pod)).collect();
    let namespaces: BTreeMap<&str, &Value> = namespaces.iter().map(|it| (name(it), it)).collect();
    let labels_of =
        |name: &NamespacedName| pods.get(&(&*name.namespace, &*name.name)).map(|pod| labels(pod));
    let peers: Vec<Peer> = enrolled(compiled)
        .filter_map(|workload| {
            let name = &workload.name;
            Some(Peer {
                namespace: name.namespace.to_string(),
                labels: labels_of(name)?,
                namespace_labels: namespaces
                    .get(&*name.namespace)
                    .map(|it| labels(it))
                    .unwrap_or_default(),
                addresses: workload.addresses.clone(),
            })
        })
        .collect();
    let mut of_namespace = BTreeMap::<&str, Vec<Policy<'_>>>::new();
    for policy in policies {
        of_namespace.entry(namespace(policy)).or_default().push(Policy::new(policy, &peers));
    }
    let mut blocking: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for workload in enrolled(compiled) {
        let (Some(labels), Some(here)) =
            (labels_of(&workload.name), of_namespace.get(&*workload.name.namespace))
        else {
            continue;
        };
        for direction in Direction::ALL {
            for policy in network_policy::blocking(here, &labels, direction) {
                let policy = format!(
                    "NetworkPolicy {}/{} ({})",
                    workload.name.namespace,
                    name(policy),
                    direction.name()
                );
                blocking.entry(policy).or_default().push(workload.name.to_string());
            }
        }
    }
    let line = |(policy, pods): (String, Vec<String>)| {
        let more = pods.len() - 1;
        let others = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{policy} does not allow port 15008 from or to the mesh for {}{others}", pods[0])
    };
    blocking.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests;
