//! Debian's kubectl, unmodified, does its daily work against the server.

use anyhow::Result;
use serde_json::{Value, json};

use crate::cluster::Cluster;

#[test]
fn objects_come_and_go() -> Result<()> {
    let cluster = Cluster::start()?;
    let kubectl = cluster.kubectl();
    let file = cluster.file("web.yaml", WEB)?;
    assert_eq!(
        kubectl.run(&["create", "-f", &file])?,
        "pod/web created\nservice/web created\ndeployment.apps/web created\n"
    );
    let pods = kubectl.run(&["get", "pods", "-l", "app=web", "-o", "wide"])?;
    assert_eq!(
        words(pods.lines().next()),
        ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
            .into_iter()
            .chain(["NOMINATED", "NODE", "READINESS", "GATES"])
            .collect::<Vec<_>>()
    );
    assert_eq!(words(pods.lines().nth(1))[..4], ["web", "0/1", "Pending", "0"]);
    assert_eq!(kubectl.run(&["get", "pods", "-l", "app!=web", "-o", "name"])?, "");
    assert_eq!(
        kubectl.run(&["get", "pods", "--field-selector", "metadata.name=web", "-o", "name"])?,
        "pod/web\n"
    );
    let service = kubectl.json(&["get", "service", "web"])?;
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.2");
    assert!(kubectl.run(&["describe", "pod", "web"])?.contains("Image:        nginx"));
    assert_eq!(
        kubectl.run(&["delete", "-f", &file])?,
        "pod \"web\" deleted\nservice \"web\" deleted\ndeployment.apps \"web\" deleted\n"
    );
    let error = kubectl.fails(&["get", "pod", "web"])?;
    assert_eq!(error, "Error from server (NotFound): pods \"web\" not found\n");
    Ok(())
}

#[test]
fn labels_annotations_and_patches() -> Result<()> {
    let cluster = Cluster::start()?;
    let kubectl = cluster.kubectl();
    kubectl.run(&["create", "-f", &cluster.file("web.yaml", WEB)?])?;
    kubectl.run(&["label", "namespace", "default", "nodemesh.dev/mesh=enabled"])?;
    kubectl.run(&["label", "pod", "web", "tier=front"])?;
    kubectl.run(&["label", "pod", "web", "app-"])?;
    kubectl.run(&["annotate", "service", "web", "note=a b"])?;
    let namespace = kubectl.json(&["get", "namespace", "default"])?;
    assert_eq!(namespace["metadata"]["labels"]["nodemesh.dev/mesh"], "enabled");
    let pod = kubectl.json(&["get", "pod", "web"])?;
    assert_eq!(pod["metadata"]["labels"], json!({ "tier": "front" }));

    let strategic = r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"b"}]}}}}"#;
    for (kind, patch, pointer, expected) in [
        (
            "strategic",
            strategic,
            "/spec/template/spec/containers/0/ports/0/containerPort",
            json!(80),
        ),
        ("strategic", strategic, "/spec/template/spec/containers/0/image", json!("b")),
        ("merge", r#"{"spec":{"replicas":3}}"#, "/spec/replicas", json!(3)),
        (
            "json",
            r#"[{"op":"replace","path":"/spec/replicas","value":4}]"#,
            "/spec/replicas",
            json!(4),
        ),
    ] {
        kubectl.run(&["patch", "deployment", "web", "--type", kind, "-p", patch])?;
        let deployment = kubectl.json(&["get", "deployment", "web"])?;
        assert_eq!(deployment.pointer(pointer), Some(&expected), "{kind}");
    }
    // Created, then three patches that changed something: the second one changed nothing.
    assert_eq!(kubectl.json(&["get", "deployment", "web"])?["metadata"]["generation"], 4);
    Ok(())
}

#[test]
fn a_namespace_takes_what_is_in_it_along() -> Result<()> {
    let cluster = Cluster::start()?;
    let kubectl = cluster.kubectl();
    let shop = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}";
    kubectl.run(&["create", "-f", &cluster.file("shop.yaml", shop)?])?;
    let settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}";
    let settings = cluster.file("settings.yaml", settings)?;
    kubectl.run(&["create", "-n", "shop", "-f", &settings])?;
    let missing = kubectl.fails(&["create", "-n", "none", "-f", &settings])?;
    assert!(missing.contains("namespaces \"none\" not found"), "{missing}");
    kubectl.run(&["delete", "namespace", "shop"])?;
    let maps: Value = kubectl.json(&["get", "configmaps", "-A"])?;
    let left = maps["items"].as_array().into_iter().flatten();
    assert_eq!(left.filter(|map| map["metadata"]["namespace"] == "shop").count(), 0);
    Ok(())
}

#[test]
fn get_with_a_watch_prints_each_change() -> Result<()> {
    let cluster = Cluster::start()?;
    let kubectl = cluster.kubectl();
    kubectl.run(&["create", "-f", &cluster.file("web.yaml", WEB)?])?;
    let mut watch = kubectl.start(&["get", "pods", "-w", "--show-labels", "--no-headers"])?;
    assert!(watch.line("the pod that is there")?.contains("app=web"));
    kubectl.run(&["label", "pod", "web", "tier=front"])?;
    assert!(watch.line("its new label")?.contains("app=web,tier=front"));
    Ok(())
}

fn words(line: Option<&str>) -> Vec<&str> {
    line.unwrap_or_default().split_whitespace().collect()
}

const WEB: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: c, image: nginx}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: a, ports: [{containerPort: 80}]}]}
";
