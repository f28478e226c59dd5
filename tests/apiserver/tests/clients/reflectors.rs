//! kube-rs, unmodified, follows objects through everything that happens to its connections.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    access,
    cluster::{Cluster, DEADLINE},
};

use anyhow::{Context, Result};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
    },
};
use serde_json::json;
use tokio::time::{sleep, timeout};

async fn client(cluster: &Cluster) -> Result<Client> {
    access::client(cluster.server.kubeconfig()).await
}

fn map(name: &str) -> Result<ConfigMap> {
    Ok(serde_json::from_value(json!({ "metadata": { "name": name } }))?)
}

/// Keeps a store up to date until the test ends.
fn follow(api: Api<ConfigMap>, config: watcher::Config) -> Store<ConfigMap> {
    let (store, writer) = reflector::store();
    let stream = watcher(api, config).default_backoff().reflect(writer);
    tokio::spawn(stream.for_each(|_| async {}));
    store
}

fn names(store: &Store<ConfigMap>) -> BTreeSet<String> {
    let named = store.state().into_iter().filter_map(|map| map.metadata.name.clone());
    named.filter(|name| name != "kube-root-ca.crt").collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, wait).await.with_context(|| format!("waited in vain: {what}"))
}

async fn sees(store: &Store<ConfigMap>, expected: &[&str]) -> Result<()> {
    let expected: BTreeSet<_> = expected.iter().map(|&name| name.to_owned()).collect();
    until(&format!("{expected:?} in the store"), || names(store) == expected).await
}

#[tokio::test]
async fn a_reflector_goes_on_after_its_watch_was_cut() -> Result<()> {
    let cluster = Cluster::start()?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&cluster).await?);
    let store = follow(maps.clone(), watcher::Config::default());
    maps.create(&PostParams::default(), &map("one")?).await?;
    sees(&store, &["one"]).await?;

    cluster.server.cut_watches();
    maps.create(&PostParams::default(), &map("two")?).await?;
    sees(&store, &["one", "two"]).await?;

    cluster.server.cut_watches_in_event();
    maps.create(&PostParams::default(), &map("three")?).await?;
    sees(&store, &["one", "three", "two"]).await?;
    maps.delete("one", &DeleteParams::default()).await?;
    sees(&store, &["three", "two"]).await?;
    // A cut costs a watch and no list.
    assert_eq!(cluster.server.count("list", "configmaps"), 1);
    Ok(())
}

#[tokio::test]
async fn a_reflector_lists_again_after_410() -> Result<()> {
    let cluster = Cluster::start()?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&cluster).await?);
    let store = follow(maps.clone(), watcher::Config::default());
    maps.create(&PostParams::default(), &map("one")?).await?;
    sees(&store, &["one"]).await?;

    // As an event in the stream, once there is one.
    until("a watch", || cluster.server.count("watch", "configmaps") == 1).await?;
    cluster.server.expire_watches();
    maps.create(&PostParams::default(), &map("two")?).await?;
    sees(&store, &["one", "two"]).await?;
    until("a second list", || cluster.server.count("list", "configmaps") == 2).await?;

    // As the answer to requests, which changes nothing, until history is really gone.
    until("a second watch", || cluster.server.count("watch", "configmaps") == 2).await?;
    cluster.server.refuse_watches(1_000);
    cluster.server.cut_watches();
    maps.delete("one", &DeleteParams::default()).await?;
    cluster.server.compact();
    cluster.server.heal();
    sees(&store, &["two"]).await?;
    until("a third list", || cluster.server.count("list", "configmaps") == 3).await
}

#[tokio::test]
async fn ten_thousand_objects_come_page_by_page() -> Result<()> {
    let cluster = Cluster::start()?;
    for at in 0..10_000 {
        cluster.server.add(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": format!("map-{at}") },
        }))?;
    }
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&cluster).await?);
    let store = follow(maps.clone(), watcher::Config::default().page_size(500));
    until("all objects", || names(&store).len() == 10_000).await?;
    // 10,001 with the namespace's own.
    assert_eq!(cluster.server.count("list", "configmaps"), 21);

    let page = maps.list(&ListParams::default().limit(10)).await?;
    assert_eq!(page.metadata.remaining_item_count, Some(9_991));
    cluster.server.compact();
    maps.create(&PostParams::default(), &map("more")?).await?;
    let next = ListParams::default()
        .limit(10)
        .continue_token(&page.metadata.continue_.unwrap_or_default());
    cluster.server.compact();
    let error = maps.list(&next).await.err().context("the history of the token is gone")?;
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 410), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_streaming_list_needs_no_list() -> Result<()> {
    let cluster = Cluster::start()?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&cluster).await?);
    maps.create(&PostParams::default(), &map("one")?).await?;
    let store = follow(maps.clone(), watcher::Config::default().streaming_lists());
    sees(&store, &["one"]).await?;
    timeout(DEADLINE, store.wait_until_ready()).await??;
    assert_eq!(cluster.server.count("list", "configmaps"), 0);
    Ok(())
}

#[tokio::test]
async fn a_server_that_was_away_is_found_again() -> Result<()> {
    let cluster = Cluster::start()?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&cluster).await?);
    let store = follow(maps.clone(), watcher::Config::default());
    until("the first list", || store.state().len() == 1).await?;
    cluster.server.stop_listening();
    assert!(maps.get("one").await.is_err());
    cluster.server.add(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "meanwhile" },
    }))?;
    cluster.server.start_listening()?;
    sees(&store, &["meanwhile"]).await
}

#[tokio::test]
async fn what_leaves_the_selection_is_deleted_for_the_watcher() -> Result<()> {
    let cluster = Cluster::start()?;
    let pods: Api<Pod> = Api::default_namespaced(client(&cluster).await?);
    let pod = json!({
        "metadata": { "name": "web" }, "spec": { "containers": [{ "name": "c", "image": "i" }] },
    });
    let (store, writer) = reflector::store();
    let config = watcher::Config::default().fields("spec.nodeName=node-1");
    let stream = watcher(pods.clone(), config).default_backoff().reflect(writer);
    tokio::spawn(stream.for_each(|_| async {}));
    timeout(DEADLINE, store.wait_until_ready()).await??;

    let mut pod = pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    pod.spec.as_mut().context("it has one")?.node_name = Some("node-1".to_owned());
    let pod = pods.replace("web", &PostParams::default(), &pod).await?;
    until("the pod of the node", || store.state().len() == 1).await?;
    assert_eq!(store.state()[0].metadata.resource_version, pod.metadata.resource_version);
    pods.delete("web", &DeleteParams::default()).await?;
    until("no pod", || store.state().is_empty()).await
}
