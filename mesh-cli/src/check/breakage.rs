//! What in the cluster the mesh would break: callers that cannot be in it, and NetworkPolicies
//! that keep port 15008 shut.

use std::collections::BTreeMap;

use anyhow::Result;
use mesh_common::{
    matching::authorization::{Policies, Request},
    model::{NamespacedName, Resource, ResourceKey, ResourceKind, Workload},
};
use mesh_controller::compile::Compiled;
use serde_json::Value;

use super::network_policy::{self, Direction};
use crate::{checklist::Checklist, cluster::Cluster, picture};

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
const NETWORK_POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";

pub(super) async fn check(cluster: &Cluster, list: &mut Checklist) -> Result<()> {
    let compiled = picture::compiled(cluster).await?;
    let pods = cluster.list("/api/v1/pods").await?;

    list.section("callers outside the mesh");
    let mut calls = Vec::new();
    for (path, kind) in WEBHOOKS {
        for object in cluster.list(path).await? {
            calls.extend(of_webhooks(&object, kind));
        }
    }
    calls.extend(cluster.list(API_SERVICES).await?.iter().filter_map(of_api_service));
    calls.extend(cluster.list(DEFINITIONS).await?.iter().filter_map(of_conversion));
    let refused: Vec<_> = calls.iter().filter_map(|call| call.refused(&compiled)).collect();
    if refused.is_empty() {
        list.good(format!(
            "the API server reaches what it calls: {} webhooks and APIs",
            calls.len()
        ));
    }
    for (what, hint) in refused {
        list.bad(what, hint);
    }
    let scrapes: Vec<_> = pods.iter().filter_map(|pod| scrape(pod, &compiled)).collect();
    if scrapes.is_empty() {
        list.good("nothing refuses the scrapes that pods ask for (prometheus.io/scrape)");
    }
    for what in scrapes {
        list.warning(
            what,
            "enrol Prometheus, or make the port PERMISSIVE in a PeerPolicy and allow it in policies",
        );
    }

    list.section("NetworkPolicies");
    let policies = cluster.list(NETWORK_POLICIES).await?;
    let blocked = blocked(&policies, &pods, &compiled);
    if blocked.is_empty() {
        list.good("none keeps port 15008 shut for a pod of the mesh");
    }
    for what in blocked {
        list.bad(what, "allow TCP port 15008 there: deploy/examples/networkpolicy.yaml");
    }
    Ok(())
}

/// Something that the API server calls, from outside the mesh.
#[derive(Debug, PartialEq)]
struct Call {
    what: String,
    service: NamespacedName,
    port: u16,
}

impl Call {
    /// What refuses it and what to do, where something does.
    fn refused(&self, compiled: &Compiled) -> Option<(String, &'static str)> {
        let pods = enrolled(compiled).filter_map(|workload| {
            let member = workload.memberships.iter().find(|it| it.service == self.service)?;
            let port = member.ports.iter().find(|it| it.service_port == self.port)?.target_port;
            refusal(compiled, workload, port).map(|reason| (workload, reason))
        });
        let (workload, reason) = pods.into_iter().next()?;
        Some((
            format!("{} calls {}, but {}: {reason}", self.what, self.service, workload.name),
            "the API server is in no mesh: make the port PERMISSIVE in a PeerPolicy and allow it \
             in policies, or keep these pods out of the mesh",
        ))
    }
}

/// Why `workload` refuses a caller without an identity at `port`, where it does.
fn refusal(compiled: &Compiled, workload: &Workload, port: u16) -> Option<String> {
    if let Some(reason) = workload.admission.refuses_plaintext(port) {
        return Some(reason);
    }
    let find = |name: &NamespacedName| {
        let key = ResourceKey { kind: ResourceKind::AuthorizationPolicy, name: name.clone() };
        match compiled.resources.get(&key) {
            Some(Resource::AuthorizationPolicy(policy)) => Some(policy),
            _ => None,
        }
    };
    // From which address is not known here: in no block but those of all addresses.
    let address = std::net::IpAddr::from([0; 4]);
    let verdict = Policies::new(workload, find).judge(Request { source: None, address, port });
    (!verdict.is_allowed()).then(|| verdict.to_string())
}

fn enrolled(compiled: &Compiled) -> impl Iterator<Item = &Workload> {
    compiled.resources.values().filter_map(|resource| match resource {
        Resource::Workload(workload) if workload.enrolled => Some(workload),
        _ => None,
    })
}

fn of_webhooks(object: &Value, kind: &str) -> Vec<Call> {
    let name = name(object);
    let hooks = object["webhooks"].as_array().into_iter().flatten();
    hooks
        .filter_map(|hook| {
            let what = format!("{kind} {name}, {}", hook["name"].as_str().unwrap_or("?"));
            call(what, &hook["clientConfig"]["service"])
        })
        .collect()
}

fn of_api_service(object: &Value) -> Option<Call> {
    call(format!("APIService {}", name(object)), &object["spec"]["service"])
}

fn of_conversion(object: &Value) -> Option<Call> {
    let service = &object["spec"]["conversion"]["webhook"]["clientConfig"]["service"];
    call(format!("the conversion of CustomResourceDefinition {}", name(object)), service)
}

fn call(what: String, service: &Value) -> Option<Call> {
    let name = NamespacedName::new(service["namespace"].as_str()?, service["name"].as_str()?);
    // Where none is written it is that of HTTPS.
    let port = u16::try_from(service["port"].as_u64().unwrap_or(443)).ok()?;
    Some(Call { what, service: name, port })
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or("?")
}

/// Why the pod refuses the scrapes that its annotations ask for.
fn scrape(pod: &Value, compiled: &Compiled) -> Option<String> {
    let annotations = &pod["metadata"]["annotations"];
    if annotations["prometheus.io/scrape"] != "true" {
        return None;
    }
    let port: u16 = annotations["prometheus.io/port"].as_str()?.parse().ok()?;
    let namespace = pod["metadata"]["namespace"].as_str()?;
    let workload = enrolled(compiled)
        .find(|it| *it.name.namespace == *namespace && *it.name.name == *name(pod))?;
    let reason = refusal(compiled, workload, port)?;
    Some(format!("{} asks to be scraped at {port} from outside the mesh: {reason}", workload.name))
}

/// A line a NetworkPolicy and direction that keeps port 15008 shut for pods of the mesh.
fn blocked(policies: &[Value], pods: &[Value], compiled: &Compiled) -> Vec<String> {
    let mut blocking: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for workload in enrolled(compiled) {
        let of = |object: &Value| object["metadata"]["namespace"] == *workload.name.namespace;
        let Some(pod) = pods.iter().find(|it| of(it) && *workload.name.name == *name(it)) else {
            continue;
        };
        let labels: BTreeMap<String, String> =
            serde_json::from_value(pod["metadata"]["labels"].clone()).unwrap_or_default();
        let here: Vec<Value> = policies.iter().filter(|it| of(it)).cloned().collect();
        for direction in Direction::ALL {
            for policy in network_policy::blocking(&here, &labels, direction) {
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
        format!("{policy} does not allow port 15008 for {}{others}", pods[0])
    };
    blocking.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests;
