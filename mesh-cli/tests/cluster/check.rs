//! `check`: what an installation needs, whether it works, and what it breaks.

use mesh_apiserver::{Failure, Settings};
use serde_json::{Value, json};

use crate::Cluster;

#[test]
fn check_before_an_installation_names_missing_rights_and_old_kernels() {
    let settings = Settings { rbac: true, ..Settings::default() };
    let Some(cluster) = Cluster::that_fails(settings) else { return };
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": "old" },
        "status": { "nodeInfo": { "kernelVersion": "5.15.0", "operatingSystem": "linux" } },
    });
    let reader = [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": { "name": "reader" },
            "rules": [
                { "apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"] },
                { "nonResourceURLs": ["*"], "verbs": ["get"] },
                {
                    "apiGroups": ["authorization.k8s.io"],
                    "resources": ["selfsubjectaccessreviews"],
                    "verbs": ["create"],
                },
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": { "name": "reader" },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader",
            },
            "subjects": [
                { "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader" },
            ],
        }),
    ];
    for object in reader.into_iter().chain([node]) {
        cluster.server.add(object);
    }
    let admin = cluster.run(&["check", "--pre"]);
    assert!(admin.out.contains("✓ is new enough: v1."), "{admin:?}");
    for right in ["to install: to create and change all", "to grant", "to uninstall"] {
        assert!(admin.out.contains(&format!("✓ {right}")), "{right}: {admin:?}");
    }
    assert!(admin.out.contains("✗ old: Linux 5.15.0, too old"), "{admin:?}");

    let kubeconfig = cluster.server.own().kubeconfig_of("reader", &[]).expect("a kubeconfig");
    let reader = cluster.run(&["check", "--pre", "--kubeconfig", &kubeconfig.to_string_lossy()]);
    assert_eq!(reader.code, Some(1), "{reader:?}");
    let missing = "✗ you may not patch daemonsets.apps in nodemesh-system";
    assert!(reader.out.contains(missing), "{reader:?}");
    assert!(!reader.out.contains("you may not get customresourcedefinitions"), "{reader:?}");
    let grant = "! you may not bind clusterroles.rbac.authorization.k8s.io, bind roles";
    assert!(reader.out.contains(grant), "{reader:?}");
    assert!(
        reader.out.contains("! you may not create jobs.batch in nodemesh-system"),
        "{reader:?}"
    );
}

#[test]
fn check_names_what_is_not_there() {
    let ended = Cluster::start().run(&["check"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.out.contains("✗ agents: not installed\n    nodemesh install"), "{ended:?}");
}

/// A pod in the mesh that the API server calls as a webhook, and whatever that takes.
pub fn webhook() -> Vec<Value> {
    let label = json!({ "nodemesh.dev/mesh": "enabled" });
    let metadata =
        |name: &str| json!({ "name": name, "namespace": "hooks", "labels": { "app": "hook" } });
    vec![
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": "hooks", "labels": label },
        }),
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node-1" },
            "status": { "nodeInfo": { "operatingSystem": "linux", "kernelVersion": "6.12.0", "architecture": "amd64" } },
        }),
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata("hook"),
            "spec": {
                "nodeName": "node-1",
                "serviceAccountName": "default",
                "containers": [{ "name": "main", "image": "image" }],
            },
            "status": { "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{ "ip": "10.0.0.1" }] },
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata("hook"),
            "spec": {
                "clusterIP": "10.96.0.9", "selector": { "app": "hook" },
                "ports": [{ "port": 443, "targetPort": 9443 }],
            },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "hook-1", "namespace": "hooks",
                "labels": { "kubernetes.io/service-name": "hook" },
            },
            "addressType": "IPv4",
            "ports": [{ "name": "", "port": 9443, "protocol": "TCP" }],
            "endpoints": [{
                "addresses": ["10.0.0.1"],
                "targetRef": { "kind": "Pod", "name": "hook", "namespace": "hooks" },
            }],
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": { "name": "policy" },
            "webhooks": [{
                "name": "validate.example.com",
                "clientConfig": { "service": { "namespace": "hooks", "name": "hook" } },
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
            }],
        }),
    ]
}

/// What `check` says of a webhook, whatever refuses it.
const HOOK: &str = "ValidatingWebhookConfiguration policy, validate.example.com calls hooks/hook";

#[test]
fn check_says_what_strict_would_break_before_it_is_strict() {
    let cluster = Cluster::installed();
    for object in webhook() {
        cluster.server.add(object);
    }
    let before = cluster.run(&["check"]);
    let would = format!("! {HOOK}, which hooks/hook would refuse once strict");
    assert!(before.out.contains(&would), "{before:?}");
    assert!(before.out.contains("✗ node-1 has no agent"), "{before:?}");

    let strict = json!({
        "apiVersion": "nodemesh.dev/v1alpha1", "kind": "PeerPolicy",
        "metadata": { "name": "strict", "namespace": "hooks" },
        "spec": { "mode": "STRICT" },
    });
    cluster.server.add(strict);
    let after = cluster.run(&["check"]);
    assert_eq!(after.code, Some(1), "{after:?}");
    assert!(after.out.contains(&format!("✗ {HOOK}, but hooks/hook: denied")), "{after:?}");
}

#[test]
fn check_goes_on_where_one_kind_may_not_be_listed() {
    let Some(cluster) = Cluster::that_fails(Settings::default()) else { return };
    let cluster = cluster.with_manifests();
    for object in webhook() {
        cluster.server.add(object);
    }
    let refuse = |resource: &str| {
        cluster.server.own().fail(Failure {
            requests: 1,
            code: 403,
            retry_after: None,
            verb: Some("list".to_owned()),
            resource: Some(resource.to_owned()),
        });
    };
    refuse("apiservices");
    let ended = cluster.run(&["check"]);
    assert!(ended.out.contains("! not looked at: get /apis/apiregistration"), "{ended:?}");
    assert!(ended.out.contains(HOOK), "the others are: {ended:?}");
    refuse("services");
    let ended = cluster.run(&["check"]);
    assert!(ended.out.contains("! what the mesh breaks was not looked at"), "{ended:?}");
    assert!(ended.out.contains("✓ node-1: Linux"), "{ended:?}");
}

#[test]
fn check_names_pods_that_cannot_be_in_the_mesh_and_policies_of_others() {
    let cluster = Cluster::installed();
    for object in webhook() {
        cluster.server.add(object);
    }
    let host = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "host", "namespace": "hooks", "labels": { "nodemesh.dev/mesh": "enabled" },
        },
        "spec": {
            "nodeName": "node-1",
            "hostNetwork": true,
            "containers": [{ "name": "main", "image": "image" }],
        },
        "status": { "phase": "Running", "podIP": "10.1.0.1", "podIPs": [{ "ip": "10.1.0.1" }] },
    });
    let schema = json!({ "openAPIV3Schema": { "type": "object" } });
    let names = json!({
        "plural": "ciliumnetworkpolicies", "singular": "ciliumnetworkpolicy",
        "kind": "CiliumNetworkPolicy", "listKind": "CiliumNetworkPolicyList",
    });
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "ciliumnetworkpolicies.cilium.io" },
        "spec": {
            "group": "cilium.io", "scope": "Namespaced", "names": names,
            "versions": [{ "name": "v2", "served": true, "storage": true, "schema": schema }],
        },
    });
    let policy = json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": { "name": "l7", "namespace": "hooks" },
    });
    for object in [host, definition, policy] {
        cluster.server.add(object);
    }
    let ended = cluster.run(&["check"]);
    assert!(
        ended.out.contains("! Pod hooks/host: is not in the mesh: it uses its node"),
        "{ended:?}"
    );
    assert!(ended.out.contains("! 1 CiliumNetworkPolicies are here"), "{ended:?}");
}
