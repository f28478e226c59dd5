//! Who is scraped by Prometheus: pods that ask for it, and what monitors select. Pure.

use mesh_common::identity::SpiffeId;
use serde_json::Value;

use super::{
    callers::{Call, Pods, To},
    network_policy::{labels, selects},
};
use crate::value::{list, named};

/// What a scrape is looked for in.
pub struct Cluster<'c> {
    /// Every pod.
    pub pods: &'c [Value],
    /// Every Service.
    pub services: &'c [Value],
}

/// Who the Prometheus of the cluster proves to be, where each that is known is in the mesh.
pub fn scraper(pods: &[Value], mesh: &Pods<'_>) -> Option<SpiffeId> {
    let is_prometheus = |pod: &&Value| {
        let labels = &pod["metadata"]["labels"];
        ["app.kubernetes.io/name", "app"].iter().any(|key| labels[*key] == "prometheus")
    };
    let mut found = pods
        .iter()
        .filter(is_prometheus)
        .map(|pod| mesh.find(&named(pod)).and_then(|workload| workload.identity.clone()));
    let first = found.next()??;
    found.all(|other| other.is_some()).then_some(first)
}

/// The scrapes that a pod's annotations ask for: of the port they name, or of each it declares.
pub fn of_pod(pod: &Value) -> Vec<Call> {
    let annotations = &pod["metadata"]["annotations"];
    if annotations["prometheus.io/scrape"] != "true" {
        return Vec::new();
    }
    let port = annotations["prometheus.io/port"].as_str().and_then(|it| it.parse().ok());
    let ports = match port {
        Some(port) => vec![port],
        None => declared(pod).filter_map(|port| number(&port["containerPort"])).collect(),
    };
    let pod = named(pod);
    let call = |port| {
        let what = format!("{pod} asks to be scraped at {port} (prometheus.io/scrape)");
        Call { what, to: To::Pod(pod.clone(), port), identity: None }
    };
    ports.into_iter().map(call).collect()
}

/// The scrapes of a PodMonitor.
pub fn of_pod_monitor(monitor: &Value, cluster: &Cluster<'_>) -> Vec<Call> {
    let mut calls = Vec::new();
    for pod in cluster.pods.iter().filter(|pod| is_selected(monitor, pod)) {
        for endpoint in list(&monitor["spec"]["podMetricsEndpoints"]) {
            let port = number(&endpoint["portNumber"])
                .or_else(|| of_container(pod, &endpoint["port"]))
                .or_else(|| of_container(pod, &endpoint["targetPort"]));
            let Some(port) = port else { continue };
            let what = format!("PodMonitor {} scrapes {} at {port}", named(monitor), named(pod));
            calls.push(Call { what, to: To::Pod(named(pod), port), identity: None });
        }
    }
    calls
}

/// The scrapes of a ServiceMonitor.
pub fn of_service_monitor(monitor: &Value, cluster: &Cluster<'_>) -> Vec<Call> {
    let mut calls = Vec::new();
    for service in cluster.services.iter().filter(|service| is_selected(monitor, service)) {
        for endpoint in list(&monitor["spec"]["endpoints"]) {
            let name = named(service);
            let to = match endpoint["port"].as_str() {
                Some(port) => list(&service["spec"]["ports"])
                    .find(|it| it["name"] == port)
                    .and_then(|it| number(&it["port"]))
                    .map(|port| To::Service(name.clone(), port)),
                // A name is one of the pods' own, which may differ from pod to pod.
                None => number(&endpoint["targetPort"]).map(|port| To::PodsOf(name.clone(), port)),
            };
            let Some(to) = to else { continue };
            let what = format!("ServiceMonitor {} scrapes {name}", named(monitor));
            calls.push(Call { what, to, identity: None });
        }
    }
    calls
}

/// Whether a monitor selects `object`: by its labels, in the namespaces that it names or in its own.
fn is_selected(monitor: &Value, object: &Value) -> bool {
    let spec = &monitor["spec"];
    let namespace = &object["metadata"]["namespace"];
    let within = &spec["namespaceSelector"];
    let names = list(&within["matchNames"]).collect::<Vec<_>>();
    let is_in = match (within["any"] == true, names.is_empty()) {
        (true, _) => true,
        (false, true) => *namespace == monitor["metadata"]["namespace"],
        (false, false) => names.contains(&namespace),
    };
    is_in && selects(&spec["selector"], &labels(object))
}

/// The port that a pod's container calls so, or that number.
fn of_container(pod: &Value, port: &Value) -> Option<u16> {
    let named = || declared(pod).find(|it| port.is_string() && it["name"] == *port);
    number(port).or_else(|| number(&named()?["containerPort"]))
}

fn declared(pod: &Value) -> impl Iterator<Item = &Value> {
    list(&pod["spec"]["containers"]).flat_map(|container| list(&container["ports"]))
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|port| u16::try_from(port).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(annotations: Value) -> Value {
        json!({
            "metadata": {
                "name": "web", "namespace": "shop", "labels": { "app": "web" },
                "annotations": annotations,
            },
            "spec": { "containers": [{ "ports": [
                { "name": "http", "containerPort": 8080 },
                { "name": "metrics", "containerPort": 9090 },
            ] }] },
        })
    }

    fn ports(calls: &[Call]) -> Vec<u16> {
        let port = |call: &Call| match call.to {
            To::Pod(_, port) | To::Service(_, port) | To::PodsOf(_, port) => port,
        };
        calls.iter().map(port).collect()
    }

    #[test]
    fn a_pod_asks_for_a_port_or_for_all_it_declares() {
        let asked = |annotations| ports(&of_pod(&pod(annotations)));
        assert!(asked(json!({})).is_empty());
        assert_eq!(asked(json!({ "prometheus.io/scrape": "true" })), [8080, 9090]);
        let one = json!({ "prometheus.io/scrape": "true", "prometheus.io/port": "1" });
        assert_eq!(asked(one), [1]);
    }

    #[test]
    fn monitors_select_as_the_operator_has_them() {
        let pods = [pod(json!({}))];
        let services = [json!({
            "metadata": { "name": "web", "namespace": "shop", "labels": { "app": "web" } },
            "spec": { "ports": [{ "name": "m", "port": 80, "targetPort": "metrics" }] },
        })];
        let cluster = Cluster { pods: &pods, services: &services };
        let monitor = |namespace: &str, namespaces: Value, endpoints: Value| {
            json!({
                "metadata": { "name": "it", "namespace": namespace },
                "spec": {
                    "selector": { "matchLabels": { "app": "web" } },
                    "namespaceSelector": namespaces,
                    "endpoints": endpoints,
                    "podMetricsEndpoints": endpoints,
                },
            })
        };
        let any = json!({ "any": true });
        for (namespace, namespaces, endpoint, expected) in [
            ("shop", json!({}), json!({ "port": "metrics" }), vec![9090]),
            ("other", json!({}), json!({ "port": "metrics" }), vec![]),
            ("other", json!({ "matchNames": ["shop"] }), json!({ "portNumber": 7 }), vec![7]),
            ("other", any.clone(), json!({ "targetPort": 9 }), vec![9]),
            ("other", any.clone(), json!({ "port": "none" }), vec![]),
        ] {
            let monitor = monitor(namespace, namespaces, json!([endpoint]));
            assert_eq!(ports(&of_pod_monitor(&monitor, &cluster)), expected, "{monitor}");
        }
        let service = |endpoint| {
            of_service_monitor(&monitor("other", any.clone(), json!([endpoint])), &cluster)
        };
        assert_eq!(ports(&service(json!({ "port": "m" }))), [80]);
        assert_eq!(ports(&service(json!({ "targetPort": 9090 }))), [9090]);
        assert!(service(json!({ "port": "no" })).is_empty());
    }
}
