//! `kubectl apply`, from the client and on the server, and who owns what.

use anyhow::Result;
use serde_json::json;

use crate::cluster::Cluster;

fn map(data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {data}\n")
}

#[test]
fn apply_from_the_client_removes_what_it_no_longer_has() -> Result<()> {
    let cluster = Cluster::start()?;
    let kubectl = cluster.kubectl();
    let first = cluster.file("first.yaml", &map("{a: '1', b: '1'}"))?;
    let second = cluster.file("second.yaml", &map("{a: '2'}"))?;
    assert_eq!(kubectl.run(&["apply", "-f", &first])?, "configmap/m created\n");
    assert_eq!(kubectl.run(&["apply", "-f", &first])?, "configmap/m unchanged\n");
    kubectl.run(&["patch", "configmap", "m", "-p", r#"{"data":{"c":"1"}}"#])?;
    assert_eq!(kubectl.run(&["apply", "-f", &second])?, "configmap/m configured\n");
    let map = kubectl.json(&["get", "configmap", "m"])?;
    assert_eq!(map["data"], json!({ "a": "2", "c": "1" }));
    Ok(())
}

#[test]
fn apply_on_the_server_names_conflicts() -> Result<()> {
    let cluster = Cluster::start()?;
    let kubectl = cluster.kubectl();
    let first = cluster.file("first.yaml", &map("{a: '1', b: '1'}"))?;
    let second = cluster.file("second.yaml", &map("{a: '2'}"))?;
    let other = ["--server-side", "--field-manager", "other"];
    kubectl.run(&["apply", "--server-side", "-f", &first])?;
    let error = kubectl.fails(&[&["apply", "-f", &second][..], &other].concat())?;
    assert!(
        error.contains("Apply failed with 1 conflict: conflict with \"kubectl\": .data.a"),
        "{error}"
    );
    kubectl.run(&[&["apply", "--force-conflicts", "-f", &second][..], &other].concat())?;
    let map = kubectl.json(&["get", "configmap", "m"])?;
    assert_eq!(map["data"], json!({ "a": "2", "b": "1" }));
    // The first manager gives up `b`, which nobody else wants, and `a` is no longer its own.
    let nothing = cluster.file("nothing.yaml", &self::map("{}"))?;
    kubectl.run(&["apply", "--server-side", "-f", &nothing])?;
    let map = kubectl.json(&["get", "configmap", "m"])?;
    assert_eq!(map["data"], json!({ "a": "2" }));
    Ok(())
}

#[test]
fn a_dry_run_stores_nothing() -> Result<()> {
    let cluster = Cluster::start()?;
    let kubectl = cluster.kubectl();
    let file = cluster.file("map.yaml", &map("{a: '1'}"))?;
    kubectl.run(&["create", "--dry-run=server", "-f", &file])?;
    assert!(kubectl.fails(&["get", "configmap", "m"])?.contains("not found"));
    Ok(())
}
