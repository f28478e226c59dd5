//! The server over real TLS on loopback, asked by a tonic client.

use std::{net::SocketAddr, path::Path};

use mesh_common::{api::v1::controller_client::ControllerClient, model::ResourceKind};
use rcgen::{CertificateParams, KeyPair, SanType};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code,
    metadata::MetadataValue,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::*;
use crate::{ca::SVID_LIFETIME, source::file::Folder, token::JoinSecret};

const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {nodemesh.dev/mesh: enabled}}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
---
apiVersion: v1
kind: Node
metadata: {name: node-2}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop}
spec: {nodeName: node-1, serviceAccountName: a, containers: []}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: shop, uid: u-b}
spec: {nodeName: node-2, serviceAccountName: b, containers: []}
status: {podIP: 10.0.0.2}
";

/// A controller that runs until it is stopped.
struct Running {
    controller: Controller,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), ServeError>>,
}

fn write(dir: &TempDir, name: &str, text: &str) {
    let objects = dir.path().join("objects");
    std::fs::create_dir_all(&objects).expect("made");
    std::fs::write(objects.join(name), text).expect("written");
}

fn start(dir: &Path) -> Running {
    let trust_domain: mesh_common::identity::TrustDomain =
        "cluster.local".parse().expect("a literal");
    let mesh = Mesh::open(dir, trust_domain.clone()).expect("opened");
    mesh.set_objects(Folder::load(&dir.join("objects")).1);
    let authority = Authority::open(&dir.join("ca"), trust_domain, SVID_LIFETIME).expect("opened");
    let secret = JoinSecret::open(dir).expect("opened");
    let controller = Controller::new(mesh.into(), authority.into(), Verifier::Join(secret), None);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = controller.clone();
    let task = tokio::spawn(async move {
        serving
            .serve(listener, async {
                let _ = stopped.await;
            })
            .await
    });
    Running { controller, address, stop, task }
}

impl Running {
    async fn stop(self) {
        self.stop.send(()).expect("runs");
        self.task.await.expect("no panic").expect("a clean end");
    }
}

async fn connect(dir: &Path, address: SocketAddr) -> ControllerClient<Channel> {
    let root = std::fs::read(dir.join("ca/root.crt")).expect("there");
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(root))
        .domain_name(crate::ca::SERVER_NAME);
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("an address");
    let channel = endpoint.tls_config(tls).expect("TLS").connect().await.expect("connected");
    ControllerClient::new(channel)
}

fn token(dir: &Path, node: &str) -> String {
    JoinSecret::open(dir).expect("opened").token(node).expect("a name")
}

fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value: MetadataValue<_> = format!("Bearer {token}").parse().expect("ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

/// An agent's side of a stream.
struct Agent {
    requests: mpsc::Sender<v1::SubscribeRequest>,
    responses: Streaming<v1::SubscribeResponse>,
    held: Vec<v1::VersionedKey>,
    answered: u64,
}

impl Agent {
    /// An agent that gets the whole mesh.
    async fn join(
        dir: &Path,
        address: SocketAddr,
        node: &str,
        held: Vec<v1::VersionedKey>,
    ) -> Self {
        Self::join_with(dir, address, node, held, None).await
    }

    async fn join_with(
        dir: &Path,
        address: SocketAddr,
        node: &str,
        held: Vec<v1::VersionedKey>,
        interest: Option<v1::Interest>,
    ) -> Self {
        let mut client = connect(dir, address).await;
        let (requests, receiver) = mpsc::channel(8);
        let (agent_version, resources) = ("test".into(), held.clone());
        let hello = v1::Hello { agent_version, resources, interest };
        requests.send(message(v1::subscribe_request::Message::Hello(hello))).await.expect("open");
        let request = with_token(&token(dir, node), ReceiverStream::new(receiver));
        let responses = client.subscribe(request).await.expect("accepted").into_inner();
        Self { requests, responses, held, answered: 0 }
    }

    /// The next response: the names updated, the names removed, whether the picture is whole.
    async fn next(&mut self) -> (Vec<String>, Vec<String>, bool) {
        let response = self.responses.message().await.expect("no error").expect("a response");
        self.answered = response.answered;
        let name = |key: &v1::ResourceKey| key.name.clone().map(|name| name.name).expect("set");
        let mut updated = Vec::new();
        for resource in response.updated {
            let model: mesh_common::model::Resource =
                resource.resource.expect("set").try_into().expect("valid");
            let key = v1::ResourceKey::from(&model.key());
            updated.push(name(&key));
            self.held.retain(|known| known.key.as_ref() != Some(&key));
            self.held.push(v1::VersionedKey { key: Some(key), version: resource.version });
        }
        self.held
            .retain(|known| !known.key.as_ref().is_some_and(|key| response.removed.contains(key)));
        (updated, response.removed.iter().map(name).collect(), response.synced)
    }

    async fn say(&self, what: v1::subscribe_request::Message) {
        self.requests.send(message(what)).await.expect("open");
    }
}

fn message(message: v1::subscribe_request::Message) -> v1::SubscribeRequest {
    v1::SubscribeRequest { message: Some(message) }
}

fn captures(uid: &str) -> v1::subscribe_request::Message {
    let workload_uids = vec![uid.to_owned()];
    let report = v1::CaptureReport { workload_uids, ..Default::default() };
    v1::subscribe_request::Message::Captures(report)
}

fn interest(number: u64, added: &[&str], removed: &[&str]) -> v1::Interest {
    let octets = |list: &[&str]| {
        let address = |text: &&str| text.parse().map(mesh_common::api::octets).expect("a literal");
        list.iter().map(address).collect()
    };
    v1::Interest { number, added: octets(added), removed: octets(removed) }
}

fn folder() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    write(&dir, "objects.yaml", OBJECTS);
    dir
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn signing_request(identity: &str) -> v1::SignCertificateRequest {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(identity.try_into().expect("ASCII"))];
    let csr = params.serialize_request(&KeyPair::generate().expect("a key")).expect("made");
    v1::SignCertificateRequest { csr: csr.der().to_vec().into() }
}

#[tokio::test]
async fn without_a_good_token_nothing_is_answered() {
    let dir = folder();
    let running = start(dir.path());
    let mut client = connect(dir.path(), running.address).await;
    let forged = token(dir.path(), "node-1").replace("node-1", "node-2");
    for (bad, expected) in [
        (None, "missing"),
        (Some(forged), "not made with this controller's secret"),
        (Some("nonsense".to_owned()), "no join token"),
    ] {
        let message = signing_request("spiffe://cluster.local/ns/shop/sa/b");
        let request = match &bad {
            Some(token) => with_token(token, message),
            None => Request::new(message),
        };
        let status = client.sign_certificate(request).await.expect_err("refused");
        assert_eq!(status.code(), Code::Unauthenticated, "{bad:?}");
        assert!(status.message().contains(expected), "{bad:?}: {}", status.message());
    }
    running.stop().await;
}

#[tokio::test]
async fn a_node_gets_certificates_for_its_own_pods_only() {
    let dir = folder();
    let running = start(dir.path());
    let mut client = connect(dir.path(), running.address).await;
    let token = token(dir.path(), "node-1");
    let own = signing_request("spiffe://cluster.local/ns/shop/sa/a");
    let signed = client.sign_certificate(with_token(&token, own)).await.expect("signed");
    assert_eq!(signed.get_ref().chain.len(), 2);
    assert_eq!(signed.get_ref().trust_bundle.len(), 1);

    let other = signing_request("spiffe://cluster.local/ns/shop/sa/b");
    let status = client.sign_certificate(with_token(&token, other)).await.expect_err("refused");
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(
        status.message(),
        "no enrolled pod of spiffe://cluster.local/ns/shop/sa/b runs on node node-1"
    );
    let nonsense = v1::SignCertificateRequest { csr: b"nonsense".as_slice().into() };
    let status = client.sign_certificate(with_token(&token, nonsense)).await.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    running.stop().await;
}

#[tokio::test]
async fn deltas_follow_the_folder_and_captures() {
    let dir = folder();
    let running = start(dir.path());
    let mut one = Agent::join(dir.path(), running.address, "node-1", Vec::new()).await;
    let two = Agent::join(dir.path(), running.address, "node-2", Vec::new()).await;
    assert_eq!(one.next().await, (names(&["a", "b"]), names(&[]), true));

    two.say(captures("u-b")).await;
    assert_eq!(one.next().await, (names(&["b"]), names(&[]), false));

    // Another node's word on that pod, either way, changes nothing for anybody.
    one.say(captures("u-b")).await;
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
                   spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n";
    write(&dir, "more.yaml", service);
    let objects = || Folder::load(&dir.path().join("objects")).1;
    running.controller.shared.mesh.set_objects(objects());
    assert_eq!(one.next().await, (names(&["web"]), names(&[]), false));

    write(&dir, "more.yaml", "");
    running.controller.shared.mesh.set_objects(objects());
    assert_eq!(one.next().await, (names(&[]), names(&["web"]), false));
    running.stop().await;
}

#[tokio::test]
async fn a_restart_sends_nothing_to_who_holds_everything() {
    let dir = folder();
    let running = start(dir.path());
    let mut agent = Agent::join(dir.path(), running.address, "node-1", Vec::new()).await;
    agent.next().await;
    let two = Agent::join(dir.path(), running.address, "node-2", Vec::new()).await;
    two.say(captures("u-b")).await;
    assert_eq!(agent.next().await.0, ["b"]);
    let held = agent.held.clone();
    running.stop().await;
    let status = agent.responses.message().await.expect_err("the stream ends");
    assert_eq!(status.code(), Code::Unavailable);

    let running = start(dir.path());
    let mut agent = Agent::join(dir.path(), running.address, "node-1", held).await;
    assert_eq!(agent.next().await, (names(&[]), names(&[]), true), "captures, too, were kept");
    running.stop().await;
}

#[tokio::test]
async fn an_unknown_node_sees_nothing_and_loses_what_it_holds() {
    let dir = folder();
    let running = start(dir.path());
    let key = v1::ResourceKey {
        kind: v1::ResourceKind::from(ResourceKind::Workload).into(),
        name: Some(v1::NamespacedName { namespace: "shop".into(), name: "a".into() }),
    };
    let held = vec![v1::VersionedKey { key: Some(key), version: 1 }];
    let mut agent = Agent::join(dir.path(), running.address, "node-9", held).await;
    assert_eq!(agent.next().await, (names(&[]), names(&["a"]), true));
    running.stop().await;
}

#[tokio::test]
async fn what_an_agent_refuses_is_kept() {
    let dir = folder();
    let running = start(dir.path());
    let mut agent = Agent::join(dir.path(), running.address, "node-1", Vec::new()).await;
    agent.next().await;
    let key = agent.held[0].key.clone();
    let nack = v1::Nack { key, reason: "too new".into() };
    let ack = v1::Ack { nonce: 1, nacks: vec![nack.clone(), nack] };
    agent.say(v1::subscribe_request::Message::Ack(ack)).await;
    let refused = loop {
        let nacks = running.controller.nacks().all();
        if let Some(refused) = nacks.values().find(|refused| refused.count == 2) {
            break refused.clone();
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(refused.reason, "too new");
    running.stop().await;
}

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.0.0.2]}]
";

#[tokio::test]
async fn what_others_have_is_sent_to_who_asks_and_every_question_is_answered() {
    use v1::subscribe_request::Message::Interest;

    let dir = folder();
    let running = start(dir.path());
    let hello = Some(interest(7, &[], &[]));
    let mut agent =
        Agent::join_with(dir.path(), running.address, "node-1", Vec::new(), hello).await;
    assert_eq!(agent.next().await, (names(&["a"]), names(&[]), true), "its own pod");
    assert_eq!(agent.answered, 7);

    agent.say(Interest(interest(8, &["10.0.0.2", "192.0.2.1"], &[]))).await;
    assert_eq!(agent.next().await, (names(&["b"]), names(&[]), false));
    assert_eq!(agent.answered, 8);
    agent.say(Interest(interest(9, &["10.96.0.1"], &[]))).await;
    assert_eq!(agent.next().await, (names(&[]), names(&[]), false), "that nobody has it");
    assert_eq!(agent.answered, 9);

    let objects = || Folder::load(&dir.path().join("objects")).1;
    write(&dir, "more.yaml", WEB);
    running.controller.shared.mesh.set_objects(objects());
    let (mut updated, removed, _) = agent.next().await;
    updated.sort();
    assert_eq!((updated, removed), (names(&["b", "web"]), names(&[])), "without being asked again");

    agent.say(Interest(interest(10, &[], &["10.0.0.2"]))).await;
    assert_eq!(agent.next().await, (names(&[]), names(&[]), false), "it stands behind web");
    agent.say(Interest(interest(11, &["10.0.0.2"], &["10.96.0.1", "10.0.0.2"]))).await;
    assert_eq!(agent.next().await, (names(&[]), names(&["web"]), false), "added goes last");
    agent.say(Interest(interest(12, &[], &["10.0.0.2"]))).await;
    assert_eq!(agent.next().await, (names(&[]), names(&["b"]), false));
    running.stop().await;
}

#[tokio::test]
async fn interest_is_repeated_to_a_controller_that_is_back() {
    let dir = folder();
    let running = start(dir.path());
    let hello = || Some(interest(3, &["10.0.0.2"], &[]));
    let mut agent =
        Agent::join_with(dir.path(), running.address, "node-1", Vec::new(), hello()).await;
    assert_eq!(agent.next().await, (names(&["a", "b"]), names(&[]), true));
    let held = agent.held.clone();
    running.stop().await;

    let running = start(dir.path());
    let mut agent = Agent::join_with(dir.path(), running.address, "node-1", held, hello()).await;
    assert_eq!(agent.next().await, (names(&[]), names(&[]), true));
    assert_eq!(agent.answered, 3);
    running.stop().await;
}

#[tokio::test]
async fn interest_that_cannot_be_is_refused_rather_than_overlooked() {
    use v1::subscribe_request::Message::Interest;

    let dir = folder();
    let running = start(dir.path());
    let most = mesh_common::api::MOST_INTEREST as u32;
    let added = (0..=most).map(|at| mesh_common::api::octets(at.to_be_bytes().into())).collect();
    let too_many = v1::Interest { number: 2, added, removed: Vec::new() };
    let three = v1::Interest { number: 2, added: vec![vec![1, 2, 3].into()], removed: Vec::new() };
    let (empty, asked) = (|| Some(interest(1, &[], &[])), || interest(2, &["10.0.0.2"], &[]));
    for (hello, said, code, reason) in [
        (empty(), too_many, Code::ResourceExhausted, "more than 32768 addresses"),
        (empty(), three, Code::InvalidArgument, "3 bytes"),
        (None, asked(), Code::InvalidArgument, "none in Hello"),
    ] {
        let mut agent =
            Agent::join_with(dir.path(), running.address, "node-1", Vec::new(), hello).await;
        agent.next().await;
        agent.say(Interest(said)).await;
        let status = agent.responses.message().await.expect_err("refused");
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(reason), "{status}");
    }
    running.stop().await;
}
