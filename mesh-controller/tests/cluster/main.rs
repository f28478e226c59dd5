//! The controller against an API server, as it is: its library, real sockets, real TLS, the rights of
//! its account, and a server that misbehaves when it is told to.
//!
//! With `KUBEBUILDER_ASSETS`, or `KUBECONFIG` and `NODEMESH_TEST_CLUSTER=1`, the server is a real one,
//! and those tests are left out that have it misbehave.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::Api;
use mesh_apiserver::{ApiServer, Failure};
use mesh_controller::{
    mesh::Mesh,
    run::{RunError, Started},
};
use serde_json::{Value, json};

use cluster::Cluster;

mod agents;
mod chaos;
mod cluster;
mod real;
mod written;

/// More than the longest wait between two attempts, which is 30 s, and time for a slow machine.
const DEADLINE: Duration = Duration::from_secs(90);
/// What a busy machine may add to what is promised.
const SLOW: Duration = Duration::from_secs(10);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

type Fault = fn(&ApiServer);

/// Looks until `look` finds something.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "waited {DEADLINE:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn nodes(mesh: &Mesh) -> BTreeSet<String> {
    mesh.pictures().borrow().nodes().map(str::to_owned).collect()
}

async fn until_nodes(mesh: &Mesh, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
    until(&format!("nodes {expected:?}"), async || (nodes(mesh) == expected).then_some(())).await;
}

/// Status and body of a page.
async fn page(address: SocketAddr, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read");
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_when_every_kind_was_listed_and_says_what_is_missing_before() {
    let Some(cluster) = Cluster::that_fails().await else { return };
    cluster.add_node("node-1").await;
    cluster.server().fail(Failure {
        requests: u64::MAX,
        code: 403,
        retry_after: None,
        verb: Some("list".into()),
        resource: Some("nodes".into()),
    });
    let starting = cluster.starting("controller-1").await;
    let health = starting.health_address();
    let start = tokio::spawn(starting.start());
    until("the refusal on /readyz", async || {
        let (status, body) = page(health, "/readyz").await;
        (status == 503 && body.contains("forbids to list nodes")).then_some(())
    })
    .await;
    assert_eq!(page(health, "/livez").await.0, 200);
    assert!(!start.is_finished());

    cluster.server().heal();
    let started = start.await.expect("no panic").expect("started");
    assert_eq!(nodes(started.mesh()), BTreeSet::from(["node-1".to_owned()]));
    tokio::spawn(started.serve(std::future::pending()));
    until("ready", async || (page(health, "/readyz").await.0 == 200).then_some(())).await;
    let metrics = page(health, "/metrics").await.1;
    for name in
        ["nodemesh_controller_objects", "nodemesh_controller_followed", "nodemesh_pods_uncaptured"]
    {
        assert!(metrics.contains(name), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_a_watch_nothing_is_missed() {
    let Some(cluster) = Cluster::that_fails().await else { return };
    cluster.add_node("kept").await;
    let started = cluster.started("controller-1").await;
    let mesh = started.mesh();
    until_nodes(mesh, &["kept"]).await;

    let faults: [(&str, Fault); 5] = [
        ("a watch that is cut", ApiServer::cut_watches),
        ("a watch that is cut in the middle of an event", ApiServer::cut_watches_in_event),
        ("a watch that ends with 410", ApiServer::expire_watches),
        ("history that is forgotten", |server| {
            server.compact();
            server.cut_watches();
        }),
        ("watches that begin with 410", |server| {
            server.refuse_watches(20);
            server.cut_watches();
        }),
    ];
    for (what, fault) in faults {
        eprintln!("{what}");
        fault(cluster.server());
        cluster.add_node("new").await;
        until_nodes(mesh, &["kept", "new"]).await;
        fault(cluster.server());
        cluster.delete_node("new").await;
        until_nodes(mesh, &["kept"]).await;
        cluster.server().heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_objects_come_in_pages_and_again() {
    let Some(cluster) = Cluster::that_fails().await else { return };
    for at in 0..10_000 {
        let metadata = json!({
            "name": format!("p{at}"), "namespace": "default", "uid": format!("u-{at}"),
            "managedFields": [{"manager": "kubelet", "operation": "Update"}],
        });
        let spec = json!({
            "spec": {"nodeName": "node-1", "containers": [{"name": "app", "image": "app"}]},
            "status": {"podIP": format!("10.{}.{}.{}", at / 65536, at / 256 % 256, at % 256)},
        });
        cluster.add("v1", "Pod", metadata, spec).await;
    }
    let started = cluster.started("controller-1").await;
    let known = || started.mesh().outcomes().borrow().objects.in_use.len();
    let pods = known();
    assert!(pods >= 10_000, "{pods}");
    assert!(cluster.server().count("list", "pods") >= 20, "in pages");

    cluster.server().reset_counts();
    cluster.server().expire_watches();
    until("a new list", async || (cluster.server().count("list", "pods") >= 20).then_some(()))
        .await;
    cluster.add_node("after").await;
    until_nodes(started.mesh(), &["after"]).await;
    // The picture is there a moment before what is said of it.
    until("one more, and none lost", async || (known() == pods + 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_is_missed_by_nobody_and_met_gently() {
    let Some(cluster) = Cluster::that_fails().await else { return };
    cluster.add_node("kept").await;
    let started = cluster.started("controller-1").await;
    until_nodes(started.mesh(), &["kept"]).await;
    cluster.server().stop_listening();
    cluster.add_node("meanwhile").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(nodes(started.mesh()), BTreeSet::from(["kept".to_owned()]), "serves what it knows");

    cluster.server().reset_counts();
    cluster.server().start_listening().expect("listens again");
    until_nodes(started.mesh(), &["kept", "meanwhile"]).await;
    let counts = cluster.server().counts();
    let of = |verb: &str| {
        counts.iter().filter(|((known, _), _)| known == verb).map(|(_, count)| count).sum::<u64>()
    };
    // Nine resources are watched; a kind that is not installed is listed in vain now and then.
    assert!(of("watch") <= 20, "{counts:?}");
    assert_eq!(cluster.server().count("list", "pods"), 0, "goes on where it was: {counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_that_start_together_share_one_root() {
    let cluster = Cluster::new().await;
    // Both look before either has made one.
    if let Some(server) = cluster.stand_in() {
        server.delay(Duration::from_millis(300));
    }
    let (one, two) = tokio::join!(cluster.started("one"), cluster.started("two"));
    let client = cluster.client().await;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "nodemesh-system");
    let secret = secrets.get("nodemesh-ca").await.expect("made");
    let data = secret.data.expect("data");
    let maps: Api<ConfigMap> = Api::namespaced(client, "nodemesh-system");
    let bundle = maps.get("nodemesh-trust-bundle").await.expect("published").data.expect("data");
    let expected = String::from_utf8(data["ca.crt"].0.clone()).expect("PEM");
    let der = |text: &str| text.split_whitespace().collect::<String>();
    assert_eq!(der(&bundle["root.crt"]), der(&expected));
    drop((one, two));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_no_use_is_named_and_left_alone() {
    let cluster = Cluster::new().await;
    let metadata = json!({"name": "nodemesh-ca", "namespace": "nodemesh-system"});
    cluster
        .add("v1", "Secret", metadata, json!({"data": {"tls.crt": "bm8=", "tls.key": "bm8="}}))
        .await;
    let error = cluster.starting("controller-1").await.start().await.err().expect("refused");
    assert!(matches!(error, RunError::Authority(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("nodemesh-system/nodemesh-ca: tls.crt is no PEM"), "{text}");
}
