//! What `nodemesh` and probes get, over real sockets.

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use mesh_common::{
    api::v1::agent_client::AgentClient,
    model::{
        Action, Admission, AuthorizationPolicy, NamespacedName, POLICY_REVISION, PeerMode,
        Resource, Rule, Source,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tonic::transport::{Channel, Endpoint};

use super::{socket::AdminSocket, *};
use crate::{
    identity::testing::{Ca, Hours},
    liveness::{Liveness, Pulse},
    observe::{flow::Verdict, metrics::Metrics, tests::flow},
    status::{Hook, Phase},
};

const DEADLINE: Duration = Duration::from_secs(10);

fn admin() -> Admin {
    Admin {
        node: "node-1".into(),
        status: Arc::default(),
        snapshot: Arc::default(),
        certificates: Arc::new(Certificates::new(None)),
        observer: Arc::new(Observer::new(8, Arc::new(Metrics::new()))),
        bypasses: Arc::default(),
        unmeshed: Arc::default(),
        plaintext: Arc::default(),
    }
}

async fn client(path: &Path) -> AgentClient<Channel> {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://agent");
    AgentClient::new(endpoint.connect_with_connector(connector).await.expect("a connection"))
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("write");
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("in time").expect("read");
    answer
}

fn free_port() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

#[tokio::test]
async fn flows_are_given_out_and_followed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("run/node-1.sock");
    let admin = admin();
    let observer = Arc::clone(&admin.observer);
    let _socket = AdminSocket::serve(&path, admin).expect("a socket");
    observer.record(flow(1));
    observer.record(Flow { verdict: Verdict::Denied, ..flow(2) });
    let mut client = client(&path).await;

    let denied =
        v1::FlowFilter { verdicts: vec![v1::Verdict::Denied.into()], ..Default::default() };
    let request = |last, follow, filter| v1::ObserveRequest { last, follow, filter };
    let stream = client.observe(request(0, false, Some(denied))).await.expect("a stream");
    let mut stream = stream.into_inner();
    let first = stream.message().await.expect("a flow").expect("one flow");
    assert_eq!((first.time_unix_nano, first.verdict()), (2_000_000_000, v1::Verdict::Denied));
    assert!(stream.message().await.expect("the end").is_none());

    let mut stream = client.observe(request(1, true, None)).await.expect("a stream").into_inner();
    assert_eq!(stream.message().await.expect("a flow").expect("one").time_unix_nano, 2_000_000_000);
    observer.record(flow(3));
    let next = timeout(DEADLINE, stream.message()).await.expect("in time").expect("a flow");
    assert_eq!(next.expect("one").time_unix_nano, 3_000_000_000);
}

#[tokio::test]
async fn status_puts_every_room_together() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("node-1.sock");
    let admin = admin();
    let ca = Ca::new();
    let svid = ca.svid("spiffe://cluster.local/ns/shop/sa/web", Hours::CURRENT);
    let serial = svid.serial().to_owned();
    admin.certificates.install(svid, vec![ca.der()]).expect("installed");
    let hook = Hook { name: "connect4".into(), attached: true, repairs: 1, error: None };
    admin.status.set_kernel(vec![hook], vec![("captured", 3)]);
    let _socket = AdminSocket::serve(&path, admin).expect("a socket");
    let status = client(&path).await.get_status(v1::GetStatusRequest {}).await;
    let status = status.expect("a status").into_inner();
    assert_eq!(status.node, "node-1");
    assert_eq!(status.certificates[0].serial, serial);
    assert_eq!((status.hooks[0].repairs, status.counters["captured"]), (1, 3));
    assert_eq!(status.problems, ["not connected to the controller: no answer yet"]);
}

#[tokio::test]
async fn a_successor_replaces_the_socket_and_keeps_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("run/node-1.sock");
    let first = AdminSocket::serve(&path, admin()).expect("a socket");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().expect("a directory")), 0o700);
    let second = AdminSocket::serve(&path, admin()).expect("a socket over the first");
    drop(first);
    client(&path).await.get_status(v1::GetStatusRequest {}).await.expect("the second answers");
    drop(second);
    assert!(!path.exists());
}

#[tokio::test]
async fn probes_and_prometheus_are_answered_by_two_agents_at_once() {
    let (metrics, readiness) = (free_port(), free_port());
    let status = Arc::new(Status::default());
    for _ in 0..2 {
        let page = http::Page::metrics(Arc::new(Metrics::new()));
        http::serve(metrics, vec![page]).expect("served");
    }
    let liveness = Arc::new(Liveness::default());
    let pages = vec![
        http::Page::readiness(Arc::clone(&status)),
        http::Page::liveness(Arc::clone(&liveness)),
    ];
    http::serve(readiness, pages).expect("served");
    let answer = get(metrics, "/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("openmetrics-text") && answer.ends_with("# EOF\n"), "{answer}");
    let answer = get(metrics, "/other").await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("/metrics\n"), "{answer}");

    let answer = get(readiness, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("no picture"), "{answer}");
    status.controller(|controller| controller.synced = true);
    let hook = Hook { name: "connect4".into(), attached: true, repairs: 0, error: None };
    status.set_kernel(vec![hook], Vec::new());
    status.set_pods(Vec::new(), true);
    let answer = get(readiness, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("ready\n"), "{answer}");

    let pulse = Arc::<Pulse>::default();
    liveness.watch("capturing pods", Arc::clone(&pulse));
    let answer = get(readiness, "/livez").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("alive\n"), "{answer}");
    pulse.stop();
    let answer = get(readiness, "/livez").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("capturing pods is stuck for 31 s\n"), "{answer}");
}

#[tokio::test]
async fn authorization_is_told_with_what_is_refused_and_judged_by_the_proxys_code() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("node-1.sock");
    let admin = admin();
    let identity = |name: &str| format!("spiffe://cluster.local/ns/shop/sa/{name}");
    let pod = |name: &str, node: &str, address: [u8; 4]| Workload {
        name: NamespacedName::new("shop", name),
        uid: name.into(),
        node: Some(node.into()),
        addresses: vec![address.into()],
        identity: Some(identity(name).parse().expect("an identity")),
        enrolled: true,
        captured: true,
        memberships: Vec::new(),
        authorization_policies: Vec::new(),
        admission: Admission { peer_mode: PeerMode::Strict, ..Default::default() },
    };
    let batch =
        Source { ip_blocks: vec!["10.0.0.2".parse().expect("a block")], ..Default::default() };
    let deny = AuthorizationPolicy {
        name: NamespacedName::new("shop", "deny"),
        action: Action::Deny,
        enforcement: Default::default(),
        service: None,
        selector: [("app".into(), "web".into())].into(),
        rules: vec![Rule { name: "batch".into(), from: vec![batch], to: Vec::new() }],
    };
    let web = Workload {
        authorization_policies: vec![deny.name.clone()],
        ..pod("web", "node-1", [10, 0, 0, 1])
    };
    let resources = [
        Resource::Workload(web),
        Resource::Workload(pod("batch", "node-2", [10, 0, 0, 2])),
        Resource::Workload(pod("far", "node-2", [10, 0, 0, 3])),
        Resource::AuthorizationPolicy(deny.clone()),
    ];
    let wire = |it: &Resource| v1::Resource { version: 1, resource: Some(it.into()) };
    assert_eq!(admin.snapshot.apply(resources.iter().map(wire).collect(), Vec::new()), []);
    let state = |phase| PodState {
        name: NamespacedName::new("shop", "web"),
        uid: "web".into(),
        phase,
        reason: String::new(),
        connections: 0,
        uncaptured: None,
        notes: Vec::new(),
    };
    admin.status.set_pods(vec![state(Phase::Captured)], true);
    let (status, snapshot) = (Arc::clone(&admin.status), Arc::clone(&admin.snapshot));
    let _socket = AdminSocket::serve(&path, admin).expect("a socket");
    let client = client(&path).await;
    let ask = |name: &str, caller, address: &str| {
        let mut client = client.clone();
        let connection = v1::SupposedConnection { caller, address: address.into(), port: 80 };
        let request = v1::GetAuthorizationRequest {
            pod: Some((&NamespacedName::new("shop", name)).into()),
            connection: Some(connection),
        };
        async move { client.get_authorization(request).await.map(|it| it.into_inner().pod) }
    };
    let caller = |name| {
        Some(v1::supposed_connection::Caller::Pod((&NamespacedName::new("shop", name)).into()))
    };

    let web = ask("web", caller("batch"), "").await.expect("an answer").expect("web");
    assert_eq!((web.state.as_str(), web.policies.len()), ("captured", 1));
    let attached = web.policies[0].policy.clone().expect("in use");
    assert_eq!((attached.selector[0].key.as_str(), attached.rules.len()), ("app", 1));
    let judged = web.judgement.expect("judged");
    assert_eq!(judged.reason, "denied by AuthorizationPolicy shop/deny rule batch");
    assert_eq!((judged.identity, judged.address.as_str()), (identity("batch"), "10.0.0.2"));
    for (caller, address, reason) in [
        (caller("far"), "", "allowed: no policy applies"),
        (caller("far"), "10.0.0.2", "denied by AuthorizationPolicy shop/deny rule batch"),
        (None, "10.0.0.3", "denied by MeshConfig default: port 80 is strict"),
        (caller("web"), "", "allowed: what a pod says to itself"),
    ] {
        let web = ask("web", caller, address).await.expect("an answer").expect("web");
        let judged = web.judgement.expect("judged");
        assert!(judged.reason.starts_with(reason), "{judged:?}");
        assert_eq!(judged.allowed, reason.starts_with("allowed"), "{judged:?}");
    }

    let far = ask("far", None, "10.0.0.9").await.expect("an answer").expect("far");
    assert_eq!(
        (far.node.as_str(), far.judgement),
        ("node-2", None),
        "it is not this node's to say"
    );
    assert_eq!(ask("none", None, "").await.expect("an answer"), None);
    let nobody = ask("web", caller("none"), "").await.expect_err("nobody");
    assert_eq!(nobody.code(), tonic::Code::NotFound);

    // A policy that this agent is too old for is shown, and denies.
    let mut newer = wire(&Resource::AuthorizationPolicy(deny));
    if let Some(v1::resource::Resource::AuthorizationPolicy(policy)) = &mut newer.resource {
        policy.revision = POLICY_REVISION + 1;
    }
    assert_eq!(snapshot.apply(vec![newer], Vec::new()).len(), 1);
    let web = ask("web", caller("far"), "").await.expect("an answer").expect("web");
    assert!(web.policies[0].policy.is_none(), "{web:?}");
    assert!(web.policies[0].refusal.contains("upgrade the agent"), "{web:?}");
    assert!(web.judgement.expect("judged").reason.contains("too old"));

    status.set_pods(vec![state(Phase::Failed)], false);
    let web = ask("web", None, "").await.expect("an answer").expect("web");
    assert!(web.judgement.expect("judged").allowed, "nothing decides");
}
