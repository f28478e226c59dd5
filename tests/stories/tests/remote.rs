//! `nodemesh` far from the nodes: with a kubeconfig alone it asks the agents through the API server.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use mesh_apiserver::{ApiServer, Settings};
use mesh_harness::{
    Mesh, binaries,
    mesh::READY,
    process::{self, Seen},
};
use mesh_stories::shop;
use serde_json::json;

/// An API server with the namespace of nodemesh.
fn api_server(mesh: &Mesh, folder: &str, settings: Settings) -> Result<ApiServer> {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = ApiServer::start(listen, &mesh.layout().run_dir().join(folder), settings)?;
    server.add(json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "nodemesh-system" },
    }))?;
    Ok(server)
}

/// A mesh, and an API server that knows its agents as pods.
struct Cluster {
    mesh: Mesh,
    server: ApiServer,
}

impl Cluster {
    fn start(story: &str) -> Result<Self> {
        let mesh = shop(story).start()?;
        let program = ("/nodemesh".to_owned(), binaries::find("nodemesh")?);
        let settings = Settings { rbac: true, programs: [program].into(), ..Settings::default() };
        let server = api_server(&mesh, "api", settings)?;
        let cluster = Self { mesh, server };
        for node in cluster.mesh.nodes() {
            cluster.agent(&node.name, &cluster.mesh.layout().socket(&node.name))?;
        }
        Ok(cluster)
    }

    /// A pod of an agent that has its socket there.
    fn agent(&self, node: &str, socket: &Path) -> Result<()> {
        self.server.add(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": format!("mesh-agent-{node}"),
                "namespace": "nodemesh-system",
                "labels": { "app.kubernetes.io/name": "mesh-agent" },
            },
            "spec": {
                "nodeName": node,
                "containers": [{
                    "name": "agent",
                    "args": [format!("--admin-socket={}", socket.display())],
                }],
            },
            "status": { "phase": "Running" },
        }))
    }

    fn nodemesh(&self, kubeconfig: &Path, arguments: &[&str]) -> Result<Seen> {
        let mut command = Command::new(binaries::find("nodemesh")?);
        command.args(arguments).arg("--kubeconfig").arg(kubeconfig);
        process::run(&mut command, READY)
    }

    /// As an administrator.
    fn admin(&self, arguments: &[&str]) -> Result<Seen> {
        self.nodemesh(&self.server.kubeconfig(), arguments)
    }
}

#[test]
fn agents_are_asked_through_the_api_server() -> Result<()> {
    let cluster = Cluster::start("remote")?;
    let mesh = &cluster.mesh;
    mesh.pod("shop/web").serve_http(8080, "hello")?;
    let url = format!("http://{}:8080/", mesh.pod("shop/web").ipv4());
    mesh.pod("shop/frontend").curl(&url)?;
    mesh.flow(&[("destination/pod", "shop/web"), ("reporter", "destination")])?;

    // Often, and what is long in pieces.
    for _ in 0..10 {
        let status = cluster.admin(&["status", "-o", "json"])?.success()?;
        let nodes: Vec<_> = status.lines().filter_map(|it| it.get(9..15)).collect();
        assert_eq!(nodes, ["node-1", "node-2"], "{status}");
    }
    let one = cluster.admin(&["status", "--wait", "--node", "node-2"])?.success()?;
    assert!(one.starts_with("node-2 (mesh-agent "), "{one}");
    let flows = cluster.admin(&["flows", "--last", "0", "-o", "json"])?.success()?;
    for reporter in ["source", "destination"] {
        let reported = format!("\"reporter\":\"{reporter}\"");
        assert!(flows.contains(&reported), "both agents tell: {flows}");
    }
    let enrolled = cluster.admin(&["enroll", "shop/web", "shop/frontend"])?.success()?;
    assert_eq!(enrolled.lines().count(), 2, "{enrolled}");
    let judged = ["authz", "shop/web", "--from", "shop/frontend", "--port", "8080"];
    assert!(cluster.admin(&judged)?.success()?.contains("allowed"));
    Ok(())
}

#[test]
fn a_node_is_bypassed_from_afar_only_where_it_is_named() -> Result<()> {
    let cluster = Cluster::start("remote-bypass")?;
    let every = cluster.admin(&["bypass", "--node", "--for", "5m"])?;
    assert_eq!(every.code, 1, "{every:?}");
    assert!(every.stderr.contains("write --node NODE"), "{every:?}");
    let one = cluster.admin(&["bypass", "--node", "node-2", "--for", "5m"])?.success()?;
    assert!(one.starts_with("node-2: bypasses the mesh until"), "{one}");
    let status = cluster.admin(&["status", "-o", "json"])?;
    let states: Vec<_> = status.stdout.lines().map(|it| it.contains("\"bypassed\"")).collect();
    assert_eq!(states, [false, true], "{status:?}");
    let ended = cluster.admin(&["bypass", "--node", "node-2", "--end"])?.success()?;
    assert!(ended.contains("the bypass has ended"), "{ended}");
    Ok(())
}

#[test]
fn who_cannot_be_asked_is_said_with_the_reason() -> Result<()> {
    let cluster = Cluster::start("remote-refused")?;
    let said = |seen: &Seen, words: &str| {
        assert_eq!(seen.code, 1, "{seen:?}");
        assert!(seen.stderr.contains(words), "{words}: {seen:?}");
    };
    let seen = cluster.admin(&["status", "--node", "node-9"])?;
    said(&seen, "no agent runs on a node node-9");

    // Of three agents one does not listen; the others are heard.
    let nowhere = PathBuf::from("/run/nodemesh/nowhere.sock");
    cluster.agent("node-3", &nowhere)?;
    let seen = cluster.admin(&["status", "-o", "json"])?;
    said(&seen, "cannot reach the agent of node-3: /run/nodemesh/nowhere.sock: no such socket");
    assert_eq!(seen.stdout.lines().count(), 2, "{seen:?}");

    // Whoever may look at pods is not for that reason let into them.
    let reader = cluster.server.kubeconfig_of("reader", &[])?;
    for (kind, role) in [
        (
            "ClusterRole",
            json!({
                "rules": [
                    { "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"] },
                    { "apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"] },
                ],
            }),
        ),
        (
            "ClusterRoleBinding",
            json!({
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader",
                },
                "subjects": [
                    { "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader" },
                ],
            }),
        ),
    ] {
        let mut object = role;
        object["apiVersion"] = "rbac.authorization.k8s.io/v1".into();
        object["kind"] = kind.into();
        object["metadata"] = json!({ "name": "reader" });
        cluster.server.add(object)?;
    }
    let seen = cluster.nodemesh(&reader, &["status", "--node", "node-1"])?;
    said(&seen, "you may not");
    said(&seen, "create resource \"pods/exec\"");
    Ok(())
}

#[test]
fn an_image_without_the_command_is_said_to_be_old() -> Result<()> {
    let mut cluster = Cluster::start("remote-old")?;
    cluster.server = api_server(&cluster.mesh, "old", Settings::default())?;
    cluster.agent("node-1", &cluster.mesh.layout().socket("node-1"))?;
    let seen = cluster.admin(&["status"]).context("status")?;
    assert_eq!(seen.code, 1, "{seen:?}");
    assert!(seen.stderr.contains("stat /nodemesh: no such file"), "{seen:?}");
    Ok(())
}
