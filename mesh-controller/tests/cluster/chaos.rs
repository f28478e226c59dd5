//! What goes wrong around a controller: its token ends, its leader goes.

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};

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
