//! What happens to objects: concurrency, status, finalizers, owners, versions of events.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Event},
    events::v1::Event as NewEvent,
};
use kube::{
    Api, Client, Error,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{access::client, cluster::Cluster};

async fn start() -> Result<(Cluster, Client)> {
    let cluster = Cluster::start()?;
    let client = client(cluster.server.kubeconfig()).await?;
    Ok((cluster, client))
}

fn map(metadata: Value) -> Result<ConfigMap> {
    Ok(serde_json::from_value(json!({ "metadata": metadata }))?)
}

fn code<T>(result: Result<T, Error>) -> Option<(u16, String)> {
    match result {
        Err(Error::Api(status)) => Some((status.code, status.reason.clone())),
        _ => None,
    }
}

#[tokio::test]
async fn the_second_writer_of_a_version_is_refused() -> Result<()> {
    let (_cluster, client) = start().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let create = PostParams::default();
    let generated = maps.create(&create, &map(json!({ "generateName": "map-" }))?).await?;
    assert!(generated.metadata.name.as_deref().is_some_and(|name| name.len() == 9));
    let mut map = maps.create(&create, &map(json!({ "name": "m" }))?).await?;
    assert_eq!(
        code(maps.create(&create, &self::map(json!({ "name": "m" }))?).await),
        Some((409, "AlreadyExists".into()))
    );
    map.data = Some(BTreeMap::from([("a".to_owned(), "1".to_owned())]));
    let written = maps.replace("m", &create, &map).await?;
    assert_ne!(written.metadata.resource_version, map.metadata.resource_version);
    map.data = None;
    assert_eq!(code(maps.replace("m", &create, &map).await), Some((409, "Conflict".into())));
    // A write that changes nothing makes no version.
    let same = maps.replace("m", &create, &written).await?;
    assert_eq!(same.metadata.resource_version, written.metadata.resource_version);
    Ok(())
}

#[tokio::test]
async fn spec_and_status_are_written_apart() -> Result<()> {
    let (_cluster, client) = start().await?;
    let deployments: Api<Deployment> = Api::default_namespaced(client);
    let deployment = json!({
        "metadata": { "name": "d" },
        "spec": {
            "selector": { "matchLabels": { "a": "b" } },
            "template": {
                "metadata": { "labels": { "a": "b" } },
                "spec": { "containers": [{ "name": "c", "image": "i" }] },
            },
        },
        "status": { "replicas": 9 },
    });
    let create = PostParams::default();
    let made = deployments.create(&create, &serde_json::from_value(deployment)?).await?;
    assert_eq!(
        (made.metadata.generation, made.status.unwrap_or_default().replicas),
        (Some(1), None)
    );
    let both = Patch::Merge(json!({ "spec": { "replicas": 3 }, "status": { "replicas": 2 } }));
    let parameters = PatchParams::default();
    let status = deployments.patch_status("d", &parameters, &both).await?;
    assert_eq!(status.metadata.generation, Some(1));
    assert_eq!(status.spec.replicas, Some(1));
    assert_eq!(status.status.context("a status")?.replicas, Some(2));
    let other = Patch::Merge(json!({ "spec": { "replicas": 3 }, "status": { "replicas": 7 } }));
    let spec = deployments.patch("d", &parameters, &other).await?;
    assert_eq!(spec.metadata.generation, Some(2));
    assert_eq!(spec.status.context("a status")?.replicas, Some(2));
    let scale = Patch::Merge(json!({ "spec": { "replicas": 5 } }));
    let scaled = deployments.patch_scale("d", &parameters, &scale).await?;
    assert_eq!(scaled.spec.context("a scale")?.replicas, Some(5));
    assert_eq!(deployments.get("d").await?.spec.replicas, Some(5));
    Ok(())
}

#[tokio::test]
async fn finalizers_hold_an_object() -> Result<()> {
    let (_cluster, client) = start().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.create(&PostParams::default(), &map(json!({ "name": "m", "finalizers": ["a.b/c"] }))?)
        .await?;
    maps.delete("m", &DeleteParams::default()).await?;
    assert!(maps.get("m").await?.metadata.deletion_timestamp.is_some());
    let free = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    maps.patch("m", &PatchParams::default(), &free).await?;
    assert_eq!(code(maps.get("m").await), Some((404, "NotFound".into())));
    Ok(())
}

#[tokio::test]
async fn what_is_owned_goes_with_its_owner_or_stays_as_an_orphan() -> Result<()> {
    let (_cluster, client) = start().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let create = PostParams::default();
    for (delete, left) in [
        (DeleteParams::background(), 0),
        (DeleteParams::foreground(), 0),
        (DeleteParams::orphan(), 1),
    ] {
        let owner = maps.create(&create, &map(json!({ "name": "owner" }))?).await?;
        let reference = json!([{
            "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid,
        }]);
        let owned =
            json!({ "name": "owned", "labels": { "is": "owned" }, "ownerReferences": reference });
        maps.create(&create, &map(owned)?).await?;
        maps.delete("owner", &delete).await?;
        assert_eq!(code(maps.get("owner").await), Some((404, "NotFound".into())));
        let owned = ListParams::default().labels("is=owned");
        assert_eq!(maps.list(&owned).await?.items.len(), left, "{:?}", delete.propagation_policy);
        maps.delete_collection(&DeleteParams::default(), &owned).await?;
        assert_eq!(maps.list(&owned).await?.items.len(), 0);
    }
    Ok(())
}

#[tokio::test]
async fn an_event_is_in_both_groups() -> Result<()> {
    let (_cluster, client) = start().await?;
    let new: Api<NewEvent> = Api::default_namespaced(client.clone());
    let event = json!({
        "metadata": { "name": "e" }, "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": { "kind": "Pod", "name": "web" }, "note": "hello", "reason": "Why",
        "type": "Normal", "action": "a", "reportingController": "c", "reportingInstance": "i",
    });
    new.create(&PostParams::default(), &serde_json::from_value(event)?).await?;
    let old: Api<Event> = Api::default_namespaced(client);
    let of_web = ListParams::default().fields("involvedObject.name=web");
    let events = old.list(&of_web).await?.items;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].message.as_deref(), Some("hello"));
    Ok(())
}

#[test]
fn a_watch_ends_with_a_bookmark() -> Result<()> {
    let cluster = Cluster::start()?;
    let watch =
        "/api/v1/namespaces/default/configmaps?watch=1&allowWatchBookmarks=true&timeoutSeconds=1";
    let lines = cluster.kubectl().run(&["get", "--raw", watch])?;
    let events: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str()).collect();
    assert_eq!(kinds, [Some("ADDED"), Some("BOOKMARK")]);
    Ok(())
}

#[test]
fn a_cut_in_an_event_leaves_half_a_line() -> Result<()> {
    let cluster = Cluster::start()?;
    let kubectl = cluster.kubectl();
    let mut watch =
        kubectl.start(&["get", "--raw", "/api/v1/namespaces/default/configmaps?watch=1"])?;
    serde_json::from_str::<Value>(&watch.line("what is there")?)?;
    cluster.server.cut_watches_in_event();
    cluster.server.add(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m" },
    }))?;
    let half = watch.line("half an event")?;
    assert!(half.starts_with('{') && serde_json::from_str::<Value>(&half).is_err(), "{half}");
    Ok(())
}

#[test]
fn what_is_no_object_is_refused_and_harms_nobody() -> Result<()> {
    let cluster = Cluster::start()?;
    let kubectl = cluster.kubectl();
    for (kind, rest) in [
        ("Pod", "spec: text"),
        ("Pod", "spec: {containers: text}"),
        ("Pod", "spec: {containers: [text]}"),
        ("Secret", "data: text\nstringData: {a: b}"),
        ("Service", "spec: []"),
    ] {
        let text = format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: x}}\n{rest}\n");
        let file = cluster.file("object.yaml", &text)?;
        let error = kubectl.fails(&["create", "--validate=false", "-f", &file]).unwrap_or_default();
        assert!(!error.contains("EOF"), "{kind} {rest}: {error}");
    }
    kubectl.run(&["get", "namespaces"])?;
    Ok(())
}

#[test]
fn faults_can_be_asked_for_over_http() -> Result<()> {
    let cluster = Cluster::start()?;
    let kubectl = cluster.kubectl();
    let fail = "/admin/fail?requests=1&code=500&verb=list&resource=nodes";
    kubectl.run(&["create", "--raw", fail, "-f", &cluster.file("empty.json", "{}")?])?;
    assert!(kubectl.fails(&["get", "nodes"])?.contains("InternalError"));
    kubectl.run(&["get", "nodes"])?;
    let counts: Value = serde_json::from_str(&kubectl.run(&["get", "--raw", "/admin/counts"])?)?;
    assert_eq!(counts["list nodes"], 2);
    Ok(())
}
