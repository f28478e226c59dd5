//! `bug-report`: what is in it, and what is not.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::{Cluster, check::webhook};

fn report(cluster: &Cluster) -> Value {
    let file = cluster.folder.path().join("report.json");
    // Somebody else might read what is there already.
    std::fs::write(&file, "").expect("a file");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("a mode");
    let ended = cluster.run(&["bug-report", "--output", &file.to_string_lossy()]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let mode = std::fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else may read it");
    let report = std::fs::read_to_string(file).expect("a report");
    serde_json::from_str(&report).expect("JSON")
}

#[test]
fn a_bug_report_has_the_objects_and_no_values_of_variables() {
    let report = report(&Cluster::installed());
    let sets = &report["/apis/apps/v1/namespaces/nodemesh-system/daemonsets"];
    let env = &sets[0]["spec"]["template"]["spec"]["containers"][0]["env"];
    assert_eq!(env[1], json!({ "name": "NODEMESH_LOG", "value": "(removed)" }));
}

#[test]
fn a_bug_report_has_captures_names_of_webhooks_and_what_agents_did_not_say() {
    let cluster = Cluster::installed();
    let map = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": name, "namespace": "nodemesh-system" },
            "data": { "node": "node-1", "stamp": "1.1", "uids": "u-1" },
        })
    };
    let restarted = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "mesh-agent-x", "namespace": "nodemesh-system",
            "labels": { "app.kubernetes.io/name": "mesh-agent" },
        },
        "spec": {
            "nodeName": "node-1",
            "containers": [{
                "name": "agent", "image": "nodemesh:0.1.0",
                "args": ["--join-token=hunter2", "--node=node-1"],
            }],
        },
        "status": { "phase": "Running", "containerStatuses": [{ "restartCount": 2 }] },
    });
    let mine = [map("captures.node-1"), map("somebody-elses"), restarted];
    for object in webhook().into_iter().chain(mine) {
        cluster.server.add(object);
    }
    let report = report(&cluster);
    let maps = &report["/api/v1/namespaces/nodemesh-system/configmaps"];
    assert_eq!(maps.as_array().map(Vec::len), Some(1), "{maps}");
    assert_eq!(maps[0]["data"]["uids"], "u-1");
    let hooks = &report["/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"];
    assert_eq!(*hooks, json!(["policy"]), "names alone");
    assert!(report["/apis/gateway.networking.k8s.io/v1/httproutes"].is_array());
    // The tests' API server runs nothing in pods and has no logs, which is noted.
    for title in
        ["status of the agent of node-1", "log of mesh-agent-x", "previous log of mesh-agent-x"]
    {
        assert!(report[title]["not collected"].is_string(), "{title}: {report}");
    }
    assert!(!report.to_string().contains("hunter2"));
}
