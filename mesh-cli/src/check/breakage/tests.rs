use mesh_controller::source::file::Folder;
use serde_json::json;

use super::{
    callers::{of_api_service, of_conversion, of_webhooks},
    *,
};
use crate::checklist::Outcome;

/// A webhook's pod in the mesh, beside `more`.
fn mesh(more: &str) -> Picture {
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
    Picture::of_objects(objects)
}

/// How the calls are judged.
fn complaints(picture: &Picture, calls: &[Call]) -> Vec<(Outcome, String)> {
    let (compiled, strict) = (picture.compiled(), picture.compiled_strictly());
    let mut list = Checklist::default();
    judge(&mut list, calls, &[Pods::of(&compiled), Pods::of(&strict)], "", "");
    list.complaints().into_iter().map(|(outcome, what)| (outcome, what.to_owned())).collect()
}

fn one(picture: &Picture, call: &Call) -> (Outcome, String) {
    let mut found = complaints(picture, std::slice::from_ref(call));
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
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
fn a_webhook_that_is_refused_is_wrong_and_one_that_would_be_is_worth_a_look() {
    let (outcome, what) = one(&mesh(""), &webhook());
    assert_eq!(outcome, Outcome::Warning);
    assert!(what.contains("hooks/hook would refuse once strict: denied by MeshConfig"), "{what}");
    let strict = ours("PeerPolicy", "{name: strict, namespace: hooks}", "{mode: STRICT}");
    let (outcome, what) = one(&mesh(&strict), &webhook());
    assert_eq!(outcome, Outcome::Bad);
    assert!(
        what.starts_with(
            "ValidatingWebhookConfiguration policy, validate.example.com calls hooks/hook, but \
             hooks/hook: denied by PeerPolicy hooks/strict: port 9443 is strict"
        ),
        "{what}"
    );
    // Its port is open, but for a default that allows nothing.
    let open = "{mode: STRICT, ports: [{port: 9443, mode: PERMISSIVE}]}";
    let open = ours("PeerPolicy", "{name: strict, namespace: hooks}", open);
    assert_eq!(one(&mesh(&open), &webhook()).0, Outcome::Warning);
    let allowed = "{rules: [{to: [{ports: [9443]}]}]}";
    let allowed = ours("AuthorizationPolicy", "{name: hook, namespace: hooks}", allowed);
    assert_eq!(complaints(&mesh(&(open + &allowed)), &[webhook()]), []);
}

#[test]
fn a_webhook_that_a_policy_would_break_is_named() {
    let spec = "{rules: [{from: [{namespaces: [hooks]}]}]}";
    let policy = ours("AuthorizationPolicy", "{name: own, namespace: hooks}", spec);
    let (outcome, what) = one(&mesh(&policy), &webhook());
    assert_eq!(outcome, Outcome::Bad, "no identity, no way in");
    assert!(what.contains("AuthorizationPolicy hooks/own"), "{what}");
}

#[test]
fn apis_and_conversions_are_calls_too() {
    let service = json!({ "namespace": "hooks", "name": "hook", "port": 8443 });
    let api = json!({ "metadata": { "name": "v1.x" }, "spec": { "service": service } });
    let called = of_api_service(&api).map(|it| it.to);
    assert_eq!(called, Some(callers::To::Service(NamespacedName::new("hooks", "hook"), 8443)));
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
    let compiled = mesh("").compiled();
    let found = blocked(&[policy("hooks"), policy("other")], &[pod], &[], &compiled);
    let expected =
        ["NetworkPolicy hooks/deny (Ingress) does not allow port 15008 from or to the mesh for \
         hooks/hook"];
    assert_eq!(found, expected);
}

#[test]
fn a_scrape_is_judged_by_who_scrapes() {
    let annotations = json!({ "prometheus.io/scrape": "true", "prometheus.io/port": "9090" });
    let metadata = json!({ "name": "hook", "namespace": "hooks", "annotations": annotations });
    let mut calls = scrapes::of_pod(&json!({ "metadata": metadata }));
    assert_eq!(one(&mesh(""), &calls[0]).0, Outcome::Warning);
    let strict = ours("MeshConfig", "{name: default}", "{peer: {mode: STRICT}}");
    let (outcome, what) = one(&mesh(&strict), &calls[0]);
    assert_eq!(outcome, Outcome::Bad);
    assert!(what.contains("scraped at 9090") && what.contains("MeshConfig default"), "{what}");

    // A Prometheus that is in the mesh proves who it is, so that it is allowed where a policy says.
    let prometheus = json!({ "metadata": {
        "name": "hook", "namespace": "hooks", "labels": { "app.kubernetes.io/name": "prometheus" },
    } });
    let outside = json!({ "metadata": {
        "name": "p", "namespace": "x", "labels": { "app": "prometheus" },
    } });
    let compiled = mesh(&strict).compiled();
    let scraper = |pods: &[Value]| scrapes::scraper(pods, &Pods::of(&compiled));
    assert_eq!(scraper(&[prometheus.clone(), outside]), None);
    calls[0].identity = scraper(&[prometheus]);
    assert!(calls[0].identity.is_some());
    let allowed = "{rules: [{from: [{namespaces: [hooks]}]}]}";
    let allowed = ours("AuthorizationPolicy", "{name: own, namespace: hooks}", allowed);
    assert_eq!(complaints(&mesh(&(strict + &allowed)), &calls), []);
}
