//! What else in the cluster takes hold of pods' traffic.

use anyhow::Result;
use serde_json::Value;

use crate::{checklist::Checklist, cluster::Cluster};

/// DaemonSets by a part of their names, what they are, and what to know.
const KNOWN: [(&str, &str, &str); 9] = [
    (
        "ztunnel",
        "Istio ambient",
        "a pod must be in one mesh only: label no namespace for both; see docs/migrating.md",
    ),
    (
        "istio-cni-node",
        "Istio",
        "a pod must be in one mesh only: label no namespace for both; see docs/migrating.md",
    ),
    (
        "linkerd-cni",
        "Linkerd",
        "a pod must be in one mesh only: enrol no namespace that injects; see docs/migrating.md",
    ),
    ("kuma-cni", "Kuma", "a pod must be in one mesh only"),
    ("consul-cni", "Consul", "a pod must be in one mesh only"),
    (
        "traefik-mesh-proxy",
        "Traefik Mesh",
        "it takes calls by names of its own, and stays as it is",
    ),
    ("merbridge", "Merbridge", "both attach to connect() of the same pods: remove one"),
    ("kmesh", "Kmesh", "both attach to connect() of the same pods: remove one"),
    (
        "cilium",
        "Cilium",
        "its socket load balancing may rewrite cluster IPs first; see docs/cni.md",
    ),
];

const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
/// Injectors of sidecars, by a part of the name of their webhook.
const INJECTORS: [(&str, &str); 7] = [
    ("istio-sidecar-injector", "Istio"),
    ("linkerd-proxy-injector", "Linkerd"),
    ("consul-connect-injector", "Consul"),
    ("kuma-admission-mutating", "Kuma"),
    ("osm-webhook", "Open Service Mesh"),
    ("appmesh-controller", "AWS App Mesh"),
    ("nsm.nginx", "NGINX Service Mesh"),
];

pub(super) async fn check(cluster: &Cluster, list: &mut Checklist) -> Result<()> {
    list.section("other meshes");
    let sets = cluster.list("/apis/apps/v1/daemonsets").await?;
    let hooks = cluster.list(WEBHOOKS).await?;
    let found = found(&sets, &hooks);
    if found.is_empty() {
        list.good("none is known to be here");
    }
    for (what, hint) in found {
        list.warning(what, hint);
    }
    Ok(())
}

fn found(sets: &[Value], hooks: &[Value]) -> Vec<(String, &'static str)> {
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or("?").to_owned();
    let mut found = Vec::new();
    for set in sets {
        let place =
            format!("{}/{}", set["metadata"]["namespace"].as_str().unwrap_or("?"), name(set));
        if let Some((_, what, hint)) = KNOWN.iter().find(|(known, ..)| name(set).contains(known)) {
            found.push((format!("{what}: DaemonSet {place}"), *hint));
        }
    }
    for hook in hooks {
        if let Some((_, what)) = INJECTORS.iter().find(|(known, _)| name(hook).contains(known)) {
            found.push((
                format!(
                    "{what}: it injects sidecars (MutatingWebhookConfiguration {})",
                    name(hook)
                ),
                "pods with its sidecar must not be enrolled; see docs/migrating.md",
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn other_meshes_are_named_with_their_objects() {
        let named = |name: &str| json!({ "metadata": { "name": name, "namespace": "x" } });
        let sets = [named("ztunnel"), named("kube-proxy"), named("cilium")];
        let hooks =
            [named("istio-sidecar-injector-1-30"), named("cert-manager"), named("osm-webhook-x")];
        let found: Vec<String> = found(&sets, &hooks).into_iter().map(|(what, _)| what).collect();
        let expected = [
            "Istio ambient: DaemonSet x/ztunnel",
            "Cilium: DaemonSet x/cilium",
            "Istio: it injects sidecars (MutatingWebhookConfiguration istio-sidecar-injector-1-30)",
            "Open Service Mesh: it injects sidecars (MutatingWebhookConfiguration osm-webhook-x)",
        ];
        assert_eq!(found, expected);
    }
}
