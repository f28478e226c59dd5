use mesh_common::identity::TrustDomain;
use mesh_controller::{captured::Captures, compile::compile, source::file::Folder};
use serde_json::json;

use super::*;

/// A webhook's pod in the mesh, beside `more`.
fn mesh(more: &str) -> Compiled {
    let dir = tempfile::tempdir().expect("a folder");
    let objects = format!(
        "
kind: Namespace
apiVersion: v1
metadata: {{ name: hooks, labels: {{ nodemesh.dev/mesh: enabled }} }}
---
kind: Node
apiVersion: v1
metadata: {{ name: node-1 }}
---
kind: Pod
apiVersion: v1
metadata: {{ name: hook, namespace: hooks, labels: {{ app: hook }} }}
spec: {{ nodeName: node-1, containers: [] }}
status: {{ phase: Running, podIP: 10.81.1.10 }}
---
kind: Service
apiVersion: v1
metadata: {{ name: hook, namespace: hooks }}
spec: {{ clusterIP: 10.96.0.9, ports: [{{ port: 443, targetPort: 9443 }}] }}
---
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata: {{ name: hook-1, namespace: hooks, labels: {{ kubernetes.io/service-name: hook }} }}
addressType: IPv4
ports: [{{ name: '', port: 9443 }}]
endpoints: [{{ addresses: [10.81.1.10], targetRef: {{ kind: Pod, name: hook }} }}]
---
{more}
"
    );
    std::fs::write(dir.path().join("objects.yaml"), objects).expect("written");
    let (_, objects) = Folder::load(dir.path());
    assert!(objects.refusals.is_empty(), "{:?}", objects.refusals);
    let index = objects.in_use.values().map(|(object, _)| object).collect();
    let domain: TrustDomain = TrustDomain::DEFAULT.parse().expect("a literal");
    compile(&index, &Captures::default(), &domain)
}

fn ours(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: nodemesh.dev/v1alpha1, kind: {kind}, metadata: {name}, spec: {spec}}}\n---\n"
    )
}

fn webhook() -> Call {
    let object = json!({
        "metadata": { "name": "policy" },
        "webhooks": [{
            "name": "validate.example.com",
            "clientConfig": { "service": { "namespace": "hooks", "name": "hook" } },
        }],
    });
    of_webhooks(&object, "ValidatingWebhookConfiguration").remove(0)
}

#[test]
fn a_webhook_that_strict_would_break_is_named() {
    assert_eq!(webhook().refused(&mesh("")), None);
    let strict = ours("PeerPolicy", "{name: strict, namespace: hooks}", "{mode: STRICT}");
    let (what, _) = webhook().refused(&mesh(&strict)).expect("strict");
    assert!(
        what.starts_with(
            "ValidatingWebhookConfiguration policy, validate.example.com calls hooks/hook, but \
             hooks/hook: denied by PeerPolicy hooks/strict: port 9443 is strict"
        ),
        "{what}"
    );
    let open = "{mode: STRICT, ports: [{port: 9443, mode: PERMISSIVE}]}";
    let open = ours("PeerPolicy", "{name: strict, namespace: hooks}", open);
    assert_eq!(webhook().refused(&mesh(&open)), None, "its port is open");
}

#[test]
fn a_webhook_that_a_policy_would_break_is_named() {
    let spec = "{rules: [{from: [{namespaces: [hooks]}]}]}";
    let policy = ours("AuthorizationPolicy", "{name: own, namespace: hooks}", spec);
    let (what, _) = webhook().refused(&mesh(&policy)).expect("no identity, no way in");
    assert!(what.contains("AuthorizationPolicy hooks/own"), "{what}");
}

#[test]
fn apis_and_conversions_are_calls_too() {
    let service = json!({ "namespace": "hooks", "name": "hook", "port": 8443 });
    let api = json!({ "metadata": { "name": "v1.x" }, "spec": { "service": service } });
    assert_eq!(of_api_service(&api).map(|it| it.port), Some(8443));
    let local = json!({ "metadata": { "name": "v1.apps" }, "spec": {} });
    assert_eq!(of_api_service(&local), None, "the API server's own");
    let conversion = json!({ "webhook": { "clientConfig": { "service": service } } });
    let definition = json!({ "metadata": { "name": "x" }, "spec": { "conversion": conversion } });
    assert!(of_conversion(&definition).is_some());
}

#[test]
fn network_policies_that_shut_15008_are_named_with_their_pods() {
    let pod = json!({ "metadata": { "name": "hook", "namespace": "hooks", "labels": { "app": "hook" } } });
    let policy = |namespace: &str| json!({ "metadata": { "name": "deny", "namespace": namespace }, "spec": { "podSelector": {} } });
    let found = blocked(&[policy("hooks"), policy("other")], &[pod], &mesh(""));
    let expected = ["NetworkPolicy hooks/deny (Ingress) does not allow port 15008 for hooks/hook"];
    assert_eq!(found, expected);
}

#[test]
fn a_scrape_that_strict_would_break_is_named() {
    let annotations = json!({ "prometheus.io/scrape": "true", "prometheus.io/port": "9090" });
    let pod =
        json!({ "metadata": { "name": "hook", "namespace": "hooks", "annotations": annotations } });
    assert_eq!(scrape(&pod, &mesh("")), None);
    let strict = ours("MeshConfig", "{name: default}", "{peer: {mode: STRICT}}");
    let what = scrape(&pod, &mesh(&strict)).expect("strict");
    assert!(what.contains("scraped at 9090") && what.contains("MeshConfig default"), "{what}");
}
