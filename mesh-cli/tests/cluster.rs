//! `nodemesh` against an API server: the program as it is, over TLS.

use std::process::{Command, Output};

#[path = "cluster/bug_report.rs"]
mod bug_report;
#[path = "cluster/check.rs"]
mod check;
#[path = "cluster/describe.rs"]
mod describe;
#[path = "cluster/install.rs"]
mod install;
#[path = "cluster/kubernetes.rs"]
mod kubernetes;
#[path = "cluster/server.rs"]
mod server;
#[path = "cluster/uninstall.rs"]
mod uninstall;

use mesh_apiserver::Settings;
use serde_json::{Value, json};
use server::Server;
use tempfile::TempDir;

/// An API server and a folder of its own.
struct Cluster {
    server: Server,
    folder: TempDir,
}

impl Cluster {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { server: Server::start(folder.path()), folder }
    }

    /// For a test that has the server misbehave.
    fn that_fails(settings: Settings) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        Some(Self { server: Server::that_fails(folder.path(), settings)?, folder })
    }

    /// As if the manifests had been applied.
    fn installed() -> Self {
        Self::start().with_manifests()
    }

    fn with_manifests(self) -> Self {
        for object in manifests() {
            self.server.add(object);
        }
        self
    }

    fn agent(&self, name: &str, image: &str) {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": "nodemesh-system",
                "labels": { "app.kubernetes.io/name": "mesh-agent" },
            },
            "spec": {
                "nodeName": "node-1",
                "containers": [{ "name": "agent", "image": image }],
            },
        });
        self.server.add(pod);
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let output = nodemesh(arguments).env("KUBECONFIG", self.server.kubeconfig()).output();
        Ended::from(output.expect("nodemesh runs"))
    }
}

/// What a run said.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn nodemesh(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodemesh"));
    command.args(arguments);
    command
}

fn manifests() -> Vec<Value> {
    let output = nodemesh(&["install", "--dry-run"]).output().expect("nodemesh runs");
    serde_saphyr::from_multiple(&Ended::from(output).out).expect("YAML")
}

#[test]
fn version_says_where_versions_differ() {
    let cluster = Cluster::installed();
    let own = env!("CARGO_PKG_VERSION");
    cluster.agent("mesh-agent-x", &format!("nodemesh:{own}"));
    // What the name of an image does not say is no difference.
    cluster.agent("mesh-agent-z", "mirror.example/nodemesh@sha256:00");
    let unknown = cluster.run(&["version"]);
    assert_eq!(unknown.code, Some(0), "{unknown:?}");
    let image = "unknown (image mirror.example/nodemesh@sha256:00)  1 pod";
    assert!(unknown.out.contains(image), "{unknown:?}");
    cluster.agent("mesh-agent-y", "registry.example/nodemesh:0.0.9");
    let ended = cluster.run(&["version"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.out.contains("agents  0.0.9"), "{ended:?}");
    assert!(ended.err.contains("nodemesh upgrade"), "{ended:?}");
}

#[test]
fn a_cluster_that_is_not_there_is_said_to_be_so() {
    let Some(cluster) = Cluster::that_fails(Settings::default()) else { return };
    cluster.server.own().stop_listening();
    let ended = cluster.run(&["upgrade"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("the API server is not reached"), "{ended:?}");
}

#[test]
fn authz_reads_the_objects_where_a_cluster_is_named() {
    let cluster = Cluster::installed();
    let pod = |name: &str, address: &str| {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "namespace": "shop", "labels": { "app": name } },
            "spec": {
                "nodeName": "node-1",
                "serviceAccountName": name,
                "containers": [{ "name": "main", "image": "image" }],
            },
            "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] },
        })
    };
    let mesh = json!({ "nodemesh.dev/mesh": "enabled" });
    let policy = json!({
        "apiVersion": "nodemesh.dev/v1alpha1",
        "kind": "AuthorizationPolicy",
        "metadata": { "name": "no-batch", "namespace": "shop" },
        "spec": {
            "selector": { "matchLabels": { "app": "web" } },
            "action": "DENY",
            "rules": [{ "name": "batch", "from": [{ "serviceAccounts": ["shop/batch"] }] }],
        },
    });
    for object in [
        json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": { "name": "shop", "labels": mesh },
        }),
        pod("web", "10.0.0.1"),
        pod("batch", "10.0.0.2"),
        policy,
    ] {
        cluster.server.add(object);
    }
    let kubeconfig = cluster.server.kubeconfig().to_string_lossy().into_owned();
    let ask = |words: &[&str]| {
        let named = ["--objects", "--kubeconfig", kubeconfig.as_str()];
        cluster.run(&[&["authz"], words, &named[..]].concat())
    };
    let listed = ask(&["shop/web"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    assert!(listed.out.contains("its agent was not asked"), "{listed:?}");
    assert!(listed.out.contains("namespace shop, selector app=web"), "{listed:?}");
    for (words, code, said) in [
        (["--from", "shop/batch"], 1, "denied by AuthorizationPolicy shop/no-batch rule batch"),
        (["--from", "shop/web"], 0, "stays in it"),
        (["--from-ip", "10.0.0.2"], 0, "plaintext from 10.0.0.2 to port 80: allowed"),
    ] {
        let judged = ask(&[&["shop/web", "--port", "80"], &words[..]].concat());
        assert_eq!(judged.code, Some(code), "{judged:?}");
        assert!(judged.out.contains(said), "{judged:?}");
    }
    let nobody = ask(&["shop/nobody"]);
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    assert!(nobody.err.contains("no running pod shop/nobody"), "{nobody:?}");
}
