//! What goes wrong around a controller: its token ends, its leader goes, slices come twice and in
//! odd orders.

use std::net::IpAddr;

use k8s_openapi::api::{coordination::v1::Lease, discovery::v1::EndpointSlice};
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind};
use mesh_common::api::{self, v1, v1::resource::Resource as Wire};
use mesh_controller::view::Scope;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ended_is_read_again_from_its_file() {
    let Some(cluster) = Cluster::that_fails().await else { return };
    let file = cluster.path("token");
    std::fs::write(&file, cluster.controllers_token().await).expect("written");
    cluster.write_account(json!({"tokenFile": file}));
    let started = cluster.started("controller-1").await;
    cluster.add_node("before").await;
    until_nodes(started.mesh(), &["before"]).await;

    cluster.server().expire_tokens();
    cluster.server().cut_watches();
    cluster.add_node("after").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(nodes(started.mesh()), BTreeSet::from(["before".to_owned()]), "nobody knows it");

    std::fs::write(&file, cluster.controllers_token().await).expect("written");
    until_nodes(started.mesh(), &["before", "after"]).await;
}

/// The addresses behind Service `web`, as an agent gets them: each from one workload.
fn behind(mesh: &Mesh, node: &str, shop: &str) -> Vec<IpAddr> {
    let view = mesh.pictures().borrow().view(node, &Scope::Whole);
    let mut addresses = Vec::new();
    for resource in view.values() {
        let Some(Wire::Workload(workload)) = &resource.wire.resource else { continue };
        let is_web = |it: &v1::Membership| {
            it.service.as_ref().is_some_and(|it| it.name == "web" && it.namespace == shop)
        };
        if workload.memberships.iter().any(is_web) {
            let octets = workload.addresses.iter();
            addresses.extend(octets.map(|it| api::address(it).expect("an address")));
        }
    }
    addresses.sort();
    addresses
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_in_two_slices_and_slices_that_come_before_they_go_lose_nobody() {
    // Which a node with pods in the mesh alone is told of.
    let (cluster, shop) = agents::cluster_with(&["caller"]).await;
    let shop = &*shop;
    let metadata = |name: &str| {
        json!({
            "name": name, "namespace": shop, "labels": {"kubernetes.io/service-name": "web"},
        })
    };
    let slice = |addresses: &[&str]| {
        let endpoints: Vec<_> = addresses.iter().map(|it| json!({"addresses": [it]})).collect();
        let ports = json!([{"name": "", "port": 8080, "protocol": "TCP"}]);
        json!({"addressType": "IPv4", "ports": ports, "endpoints": endpoints})
    };
    let (kind, version) = ("EndpointSlice", "discovery.k8s.io/v1");
    let service = json!({"spec": {"ports": [{"port": 80}]}});
    cluster.add("v1", "Service", json!({"name": "web", "namespace": shop}), service).await;
    cluster.add(version, kind, metadata("web-a"), slice(&["192.0.2.1", "192.0.2.2"])).await;
    let node = cluster.named("node-1");
    let started = cluster.started("controller-1").await;
    let mesh = started.mesh();
    let are_behind = async |expected: &[&str]| {
        let expected: Vec<IpAddr> =
            expected.iter().map(|it| it.parse().expect("a literal")).collect();
        until(&format!("{expected:?}"), async || {
            (behind(mesh, &node, shop) == expected).then_some(())
        })
        .await;
    };
    are_behind(&["192.0.2.1", "192.0.2.2"]).await;

    let slices: Api<EndpointSlice> = Api::namespaced(cluster.client().await, shop);
    let delete = async |name: &str| {
        slices.delete(name, &DeleteParams::default()).await.expect("deleted");
    };
    // An endpoint moves to another slice, which is there before the first one goes.
    cluster.add(version, kind, metadata("web-b"), slice(&["192.0.2.2", "192.0.2.3"])).await;
    are_behind(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]).await;
    delete("web-a").await;
    are_behind(&["192.0.2.2", "192.0.2.3"]).await;
    // Gone and back under its name, in one breath and over a watch that ended meanwhile.
    for round in 4..8 {
        if let Some(server) = cluster.stand_in().filter(|_| round % 2 == 0) {
            server.cut_watches_in_event();
        }
        delete("web-b").await;
        let address = format!("192.0.2.{round}");
        cluster.add(version, kind, metadata("web-b"), slice(&[&address])).await;
        are_behind(&[&address]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_controllers_one_writes_and_the_other_does_when_it_is_gone() {
    let cluster = Cluster::new().await;
    cluster.define_kinds().await;
    let shop = &*cluster.add_namespace("shop", json!({})).await;
    let client = cluster.client().await;
    let leases: Api<Lease> = Api::namespaced(client.clone(), "nodemesh-system");
    let holder = async || {
        let lease = leases.get_opt("mesh-controller").await.expect("asked")?;
        lease.spec?.holder_identity.filter(|holder| !holder.is_empty())
    };
    let mut controllers = std::collections::BTreeMap::from([
        ("one", cluster.started("one").await),
        ("two", cluster.started("two").await),
    ]);
    let first = until("a leader", holder).await;
    // Longer than both take to look twice.
    for _ in 0..16 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(holder().await.as_ref(), Some(&first), "nobody takes what another holds");
    }
    assert!(controllers.remove(&*first).is_some(), "one of the two: {first}");
    let dropped = Instant::now();

    let metadata = json!({"name": "late", "namespace": shop});
    let policy = json!({"spec": {"mode": "STRICT"}});
    cluster.add("nodemesh.dev/v1alpha1", "PeerPolicy", metadata, policy).await;
    let gvk = GroupVersionKind::gvk("nodemesh.dev", "v1alpha1", "PeerPolicy");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "peerpolicies");
    let policies: Api<DynamicObject> = Api::namespaced_with(client, shop, &resource);
    until("a status", async || {
        let object = policies.get("late").await.expect("there");
        object.data.pointer("/status/conditions/0").cloned()
    })
    .await;
    let took = dropped.elapsed();
    assert!(took < Duration::from_secs(20) + SLOW, "{took:?}");
    let second = holder().await.expect("a leader");
    assert!(second != first && controllers.contains_key(&*second), "{second}");
}
