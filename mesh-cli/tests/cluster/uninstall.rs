//! `uninstall`: what goes, in which order, and which nodes are not known to be clean.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    Cluster,
    kubernetes::{Kubernetes, Played},
    nodemesh,
};

const NAMESPACE: &str = "/api/v1/namespaces/nodemesh-system";
const CONTROLLER: &str = "/apis/apps/v1/namespaces/nodemesh-system/deployments/mesh-controller";
const JOBS: &str = "/apis/batch/v1/namespaces/nodemesh-system/jobs";

#[test]
fn uninstall_begins_with_the_agents_and_leaves_nothing() {
    let cluster = Cluster::installed();
    let ended = cluster.run(&["uninstall", "--delete-policies", "--timeout", "20"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.starts_with("deleted DaemonSet nodemesh-system/mesh-agent\n"), "{ended:?}");
    assert!(!ended.out.contains("absent"), "{ended:?}");

    nothing_is_left(&cluster);
}

fn nothing_is_left(cluster: &Cluster) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let again = cluster.run(&["uninstall", "--delete-policies"]);
        assert_eq!(again.code, Some(0), "{again:?}");
        if !again.out.contains("deleted") {
            return;
        }
        // A definition goes after the objects of its kind, a moment later.
        let is_leaving = |line: &str| line.starts_with("deleted CustomResourceDefinition ");
        let others = again.out.lines().filter(|line| line.starts_with("deleted"));
        assert!(others.clone().all(is_leaving), "something was left: {again:?}");
        assert!(Instant::now() < end, "it stays: {again:?}");
    }
}

#[test]
fn uninstall_goes_on_where_nobody_reads_what_it_says() {
    let cluster = Cluster::installed();
    let mut command = nodemesh(&["uninstall", "--delete-policies"]);
    command.env("KUBECONFIG", cluster.server.kubeconfig()).stdout(Stdio::piped());
    let mut uninstall = command.spawn().expect("nodemesh runs");
    drop(uninstall.stdout.take());
    assert_eq!(uninstall.wait().expect("it ends").code(), Some(0));
    nothing_is_left(&cluster);
}

#[test]
fn uninstall_names_the_node_whose_agent_does_not_end() {
    let cluster = Cluster::installed();
    cluster.agent("mesh-agent-x", "nodemesh:0.1.0");
    let ended = cluster.run(&["uninstall", "--timeout", "1"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("mesh-agent cleanup --node node-1"), "{ended:?}");
}

fn add_nodes(cluster: &Cluster, nodes: &[(&str, &str)]) {
    for (name, system) in nodes {
        let labels = json!({ "kubernetes.io/os": system, "kubernetes.io/arch": "amd64" });
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": name, "labels": labels },
            "status": { "nodeInfo": { "operatingSystem": system } },
        });
        cluster.server.add(node);
    }
}

/// Ends every Job: that of the node `fails` without success, that of `hangs` never.
fn play_jobs(kubernetes: &Kubernetes, fails: &'static str, hangs: &'static str) -> Played {
    kubernetes.play(move |kubernetes| {
        for job in kubernetes.list(JOBS) {
            let pod = &job["spec"]["template"]["spec"];
            if pod["nodeName"] == hangs {
                continue;
            }
            // As the manifests have it, and after the agents.
            assert_eq!(pod["containers"][0]["args"][0], "cleanup", "{job}");
            let is_failed = pod["nodeName"] == fails;
            let now = "2026-01-01T00:00:00Z";
            let mut status = json!({ "startTime": now });
            let conditions: [(&str, &str); 2] = if is_failed {
                [("FailureTarget", "BackoffLimitExceeded"), ("Failed", "BackoffLimitExceeded")]
            } else {
                status["completionTime"] = now.into();
                [("SuccessCriteriaMet", "CompletionsReached"), ("Complete", "CompletionsReached")]
            };
            status["conditions"] = conditions
                .map(|(kind, reason)| json!({ "type": kind, "status": "True", "reason": reason }))
                .into();
            let name = job["metadata"]["name"].as_str().expect("a name");
            kubernetes.set_status(&format!("{JOBS}/{name}"), &status);
        }
    })
}

#[test]
fn uninstall_cleans_up_every_linux_node() {
    let cluster = Cluster::installed();
    add_nodes(&cluster, &[("node-1", "linux"), ("node-2", "linux"), ("win", "windows")]);
    // One that the DaemonSet chooses no more, and whose agent said something while it did.
    let left_out =
        json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "left-out" } });
    let said = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "captures.left-out",
            "namespace": "nodemesh-system",
            "labels": { "nodemesh.dev/captures": "true" },
        },
        "data": { "node": "left-out", "stamp": "17.2", "uids": "" },
    });
    for object in [left_out, said] {
        cluster.server.add(object);
    }
    let kubernetes = Kubernetes::of(&cluster);
    let played = play_jobs(&kubernetes, "", "");
    let ended = cluster.run(&["uninstall", "--timeout", "30"]);
    drop(played);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let clean = ["nodes: 3 to be cleaned up", "clean   node-1", "clean   left-out"];
    assert!(clean.iter().all(|line| ended.out.contains(line)), "{ended:?}");
    let at = |line: &str| ended.out.find(line).unwrap_or_else(|| panic!("{line}: {ended:?}"));
    assert!(at("deleted DaemonSet") < at("clean   node-1"), "{ended:?}");
    assert!(at("clean   node-1") < at("deleted Deployment"), "{ended:?}");
    assert_eq!(kubernetes.get(NAMESPACE), Value::Null);
}

#[test]
fn uninstall_names_nodes_that_are_not_clean_and_can_be_run_again() {
    let cluster = Cluster::installed();
    add_nodes(&cluster, &[("good", "linux"), ("broken", "linux"), ("away", "linux")]);
    let kubernetes = Kubernetes::of(&cluster);
    let played = play_jobs(&kubernetes, "broken", "away");
    let ended = cluster.run(&["uninstall", "--timeout", "3"]);
    drop(played);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for said in [
        "broken is not known to be clean",
        "BackoffLimitExceeded",
        "away is not known to be clean",
        "mesh-agent cleanup --node away",
        "--skip-nodes",
    ] {
        assert!(ended.err.contains(said), "{said}: {ended:?}");
    }
    assert!(!ended.err.contains("good is not"), "{ended:?}");
    assert!(kubernetes.get(CONTROLLER).is_object(), "what another try needs is there");

    // The agents are gone, and with them what their pods were made from.
    let played = play_jobs(&kubernetes, "", "");
    let again = cluster.run(&["uninstall", "--timeout", "30"]);
    drop(played);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.out.contains("clean   away"), "{again:?}");
    assert_eq!(kubernetes.get(NAMESPACE), Value::Null);
}

#[test]
fn uninstall_skips_nodes_where_it_is_told_to() {
    let cluster = Cluster::installed();
    add_nodes(&cluster, &[("away", "linux")]);
    let ended = cluster.run(&["uninstall", "--skip-nodes", "--timeout", "20"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(Kubernetes::of(&cluster).get(NAMESPACE), Value::Null);
}
