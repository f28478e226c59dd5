//! `describe` and `config`: what the mesh makes of a pod and of a Service.

use serde_json::{Value, json};

use crate::{Cluster, check::webhook};

fn cluster() -> Cluster {
    let cluster = Cluster::installed();
    for object in webhook() {
        cluster.server.add(object);
    }
    cluster
}

fn pod(name: &str, labels: &Value, spec: &Value, status: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "hooks", "uid": format!("u-{name}"), "labels": labels },
        "spec": { "nodeName": "node-1", "containers": [{ "name": "main", "image": "image" }] },
        "status": status,
    });
    let more = spec.as_object().cloned().unwrap_or_default();
    pod["spec"].as_object_mut().expect("a spec").extend(more);
    pod
}

/// The value of a row, without what columns are filled up with.
fn row<'t>(text: &'t str, name: &str) -> &'t str {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("  "));
    found.unwrap_or_else(|| panic!("no row {name}: {text}")).trim()
}

#[test]
fn a_pod_is_described_with_what_its_agent_told_the_controller() {
    let cluster = cluster();
    let before = cluster.run(&["describe", "pod", "hooks/hook"]);
    assert_eq!(before.code, Some(0), "{before:?}");
    assert_eq!(row(&before.out, "in the mesh"), "yes");
    assert!(row(&before.out, "captured").starts_with("no: the agent"), "{before:?}");
    assert_eq!(row(&before.out, "services"), "hooks/hook");
    assert!(row(&before.out, "agent").starts_with("could not be asked"), "{before:?}");

    // As the controller keeps it.
    let captured = pod("captured", &json!({}), &json!({}), &running("10.0.0.2"));
    cluster.server.add(captured);
    let uid = crate::kubernetes::Kubernetes::of(&cluster)
        .get("/api/v1/namespaces/hooks/pods/captured")["metadata"]["uid"]
        .clone();
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": "captures.node-1", "namespace": "nodemesh-system",
            "labels": { "nodemesh.dev/captures": "true" },
        },
        "data": { "node": "node-1", "stamp": "1.1", "uids": uid },
    });
    cluster.server.add(map);
    let after = cluster.run(&["describe", "pod", "captured", "-n", "hooks"]);
    assert_eq!(row(&after.out, "captured"), "yes", "{after:?}");
}

fn running(address: &str) -> Value {
    json!({ "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] })
}

#[test]
fn a_pod_that_is_not_in_the_mesh_says_why() {
    let cluster = cluster();
    let enabled = json!({ "nodemesh.dev/mesh": "enabled" });
    let disabled = json!({ "nodemesh.dev/mesh": "disabled" });
    let host = json!({ "hostNetwork": true });
    for object in [
        pod("host", &enabled, &host, &running("10.1.0.1")),
        pod("out", &disabled, &json!({}), &running("10.0.0.3")),
        pod("new", &json!({}), &json!({}), &json!({ "phase": "Pending" })),
    ] {
        cluster.server.add(object);
    }
    for (name, why) in [
        ("host", "no: it uses its node's network (hostNetwork), which cannot be captured"),
        ("out", "no: label nodemesh.dev/mesh=disabled of the pod"),
        ("new", "no: it has no address yet"),
    ] {
        let ended = cluster.run(&["describe", "pod", name, "-n", "hooks"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(row(&ended.out, "in the mesh").starts_with(why), "{ended:?}");
    }
    let config = cluster.run(&["config", "hooks/new"]);
    assert!(config.err.contains("hooks/new has no address yet"), "{config:?}");
    let nobody = cluster.run(&["describe", "pod", "hooks/nobody"]);
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    assert!(nobody.err.contains("no such pod"), "{nobody:?}");
}

#[test]
fn a_service_is_described_with_its_pods_and_routes() {
    let cluster = cluster();
    let names = json!({
        "plural": "httproutes", "singular": "httproute", "kind": "HTTPRoute", "listKind": "HTTPRouteList",
    });
    let schema = json!({
        "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
    });
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "httproutes.gateway.networking.k8s.io",
            "annotations": { "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api" },
        },
        "spec": {
            "group": "gateway.networking.k8s.io", "scope": "Namespaced", "names": names,
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": schema }],
        },
    });
    let route = |name: &str, port: u16| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": { "name": name, "namespace": "hooks" },
            "spec": {
                "parentRefs": [{ "group": "", "kind": "Service", "name": "hook", "port": port }],
                "rules": [{ "backendRefs": [{ "name": "hook", "port": 443 }] }],
            },
        })
    };
    for object in [definition, route("good", 443), route("wrong", 80)] {
        cluster.server.add(object);
    }
    let ended = cluster.run(&["describe", "service", "hooks/hook"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let line = |start: &str| {
        let line = ended.out.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("{start}: {ended:?}")).split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!(line("hooks/hook")[..3], ["hooks/hook", "yes", "no"]);
    assert_eq!(line("HTTPRoute hooks/good"), ["HTTPRoute", "hooks/good", "443", "yes"]);
    assert_eq!(line("HTTPRoute hooks/wrong")[2..4], ["80", "no:"]);

    let routes = cluster.run(&["routes", "hook", "-n", "hooks"]);
    assert_eq!(routes.code, Some(0), "{routes:?}");
    for part in [
        "as the API server has it\n",
        "\nport 443: HTTP (a route is attached); 1 of 1 endpoints ready\n  HTTPRoute hooks/good, for all",
        "HTTPRoute hooks/wrong  port 80: Accepted=false NoMatchingParent:",
    ] {
        assert!(routes.out.contains(part), "{part:?} in {routes:?}");
    }
    let asked = ["routes", "match", "--service", "hook.hooks", "--path", "/"];
    let decided = cluster.run(&[&asked[..], &["--pod", "hooks/hook"]].concat());
    assert_eq!(decided.code, Some(0), "{decided:?}");
    assert!(
        decided.out.contains("decided by HTTPRoute hooks/good rule 0: any path"),
        "{decided:?}"
    );
    let nobody = cluster.run(&[&asked[..], &["--pod", "hooks/nobody"]].concat());
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    assert!(nobody.err.contains("give its namespace with --from"), "{nobody:?}");
}

#[test]
fn config_says_where_each_value_comes_from() {
    let cluster = cluster();
    let shown = || cluster.run(&["config", "hooks/hook"]).out;
    let built_in = shown();
    assert!(row(&built_in, "peer mode").starts_with("PERMISSIVE"), "{built_in}");
    assert!(row(&built_in, "peer mode").ends_with("built-in default: there is no MeshConfig"));
    assert!(row(&built_in, "in the mesh").ends_with("of namespace hooks"), "{built_in}");
    assert!(row(&built_in, "trust domain").starts_with("cluster.local"), "{built_in}");

    let config = json!({
        "apiVersion": "nodemesh.dev/v1alpha1", "kind": "MeshConfig", "metadata": { "name": "default" },
        "spec": { "peer": { "mode": "STRICT" }, "authorization": { "default": "DENY" } },
    });
    cluster.server.add(config);
    let set = shown();
    for (setting, value) in [("peer mode", "STRICT"), ("what no policy governs", "DENY")] {
        assert!(row(&set, setting).starts_with(value), "{set}");
        assert!(row(&set, setting).ends_with("MeshConfig default"), "{set}");
    }
}
