//! The stream against a controller on loopback, over TLS.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Mutex, atomic::AtomicBool},
};

use mesh_common::{
    api::v1::controller_server,
    model::{NamespacedName, Resource, Service},
};
use tokio::{net::TcpListener, sync::mpsc::UnboundedReceiver, task::JoinHandle};
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tonic::{
    Response, Status as RpcStatus,
    transport::{Identity, Server, ServerTlsConfig},
};

use super::*;
use crate::{
    control::enrolment::Missed,
    identity::testing::{Ca, Hours},
};

const DEADLINE: Duration = Duration::from_secs(20);
const TOKEN: &str = "node-1.0123abcd";

type Answer = Result<v1::SubscribeResponse, RpcStatus>;

/// A controller that a test plays: what it is told, and the ends of its streams.
#[derive(Clone)]
struct Fake {
    ca: Arc<Ca>,
    told: mpsc::UnboundedSender<v1::subscribe_request::Message>,
    stream: Arc<Mutex<Option<mpsc::Sender<Answer>>>>,
    refusing: Arc<AtomicBool>,
}

impl Fake {
    fn admit<T>(&self, request: &Request<T>) -> Result<(), RpcStatus> {
        let token = request.metadata().get("authorization").and_then(|it| it.to_str().ok());
        if token == Some(&format!("Bearer {TOKEN}")) {
            Ok(())
        } else {
            Err(RpcStatus::unauthenticated("not a token of this mesh"))
        }
    }

    /// Waits for the stream and sends `response` on it.
    async fn send(&self, response: v1::SubscribeResponse) {
        let stream = loop {
            if let Some(stream) = self.stream.lock().expect("lock").clone() {
                break stream;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        stream.send(Ok(response)).await.expect("an open stream");
    }

    fn hang_up(&self) {
        self.stream.lock().expect("lock").take();
    }
}

#[tonic::async_trait]
impl controller_server::Controller for Fake {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<v1::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, RpcStatus> {
        self.admit(&request)?;
        let (answers, stream) = mpsc::channel(8);
        *self.stream.lock().expect("lock") = Some(answers);
        let told = self.told.clone();
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let _ = told.send(request.message.expect("a message"));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn sign_certificate(
        &self,
        request: Request<v1::SignCertificateRequest>,
    ) -> Result<Response<v1::SignCertificateResponse>, RpcStatus> {
        self.admit(&request)?;
        if self.refusing.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(RpcStatus::permission_denied("no such pod on the node"));
        }
        let signed = self.ca.sign(request.into_inner().csr.to_vec(), Hours::CURRENT);
        let bytes = |list: &[CertificateDer<'_>]| {
            list.iter().map(|der| Bytes::copy_from_slice(der)).collect()
        };
        let (chain, trust_bundle) = (bytes(&signed.chain), bytes(&signed.trust_bundle));
        Ok(Response::new(v1::SignCertificateResponse { chain, trust_bundle }))
    }
}

/// A controller, an agent's connection to it, and what passes between them.
struct World {
    directory: tempfile::TempDir,
    ca: Arc<Ca>,
    controller: Fake,
    told: UnboundedReceiver<v1::subscribe_request::Message>,
    server: JoinHandle<()>,
    at: SocketAddr,
    snapshot: Arc<Snapshot>,
    status: Arc<Status>,
    captured: watch::Sender<Option<Captures>>,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let ca = Arc::new(Ca::new());
        std::fs::write(directory.path().join("root.crt"), ca.pem()).expect("write");
        std::fs::write(directory.path().join("token"), format!("{TOKEN}\n")).expect("write");
        let (told, told_rx) = mpsc::unbounded_channel();
        let (stream, refusing) = Default::default();
        let controller = Fake { ca: Arc::clone(&ca), told, stream, refusing };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let server = serve(&ca, controller.clone(), listener);
        let snapshot = Arc::new(Snapshot::new());
        let (status, captured) = (Arc::default(), watch::Sender::new(None));
        Self { directory, ca, controller, told: told_rx, server, at, snapshot, status, captured }
    }

    fn connect(&self) -> Handles {
        let file = |name: &str| self.directory.path().join(name);
        let url = format!("https://{}", self.at);
        let connection = Connection {
            address: Address { url, ca: file("root.crt"), token: file("token") },
            snapshot: Arc::clone(&self.snapshot),
            status: Arc::clone(&self.status),
            captured: self.captured.subscribe(),
        };
        connection.start()
    }

    async fn told(&mut self) -> v1::subscribe_request::Message {
        timeout(DEADLINE, self.told.recv()).await.expect("in time").expect("a message")
    }

    async fn hello(&mut self) -> v1::Hello {
        match self.told().await {
            v1::subscribe_request::Message::Hello(hello) => hello,
            other => panic!("not a hello: {other:?}"),
        }
    }

    async fn ack(&mut self) -> v1::Ack {
        match self.told().await {
            v1::subscribe_request::Message::Ack(ack) => ack,
            other => panic!("not an ack: {other:?}"),
        }
    }

    async fn captures(&mut self) -> Vec<String> {
        self.report().await.workload_uids
    }

    async fn report(&mut self) -> v1::CaptureReport {
        match self.told().await {
            v1::subscribe_request::Message::Captures(report) => report,
            other => panic!("not a report: {other:?}"),
        }
    }

    /// Waits until the status names a problem of the connection that contains `text`.
    async fn is_told_of(&self, text: &str) {
        let seen = || self.status.to_wire("node-1", 0).problems.join("\n");
        for _ in 0..1000 {
            if seen().contains(text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("`{text}` is not in {}", seen());
    }
}

fn serve(ca: &Ca, controller: Fake, listener: TcpListener) -> JoinHandle<()> {
    let (certificate, key) = ca.server(CONTROLLER_NAME).pem();
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
    let server = Server::builder().tls_config(tls).expect("a certificate");
    let service = controller_server::ControllerServer::new(controller);
    tokio::spawn(async move {
        let served = server.serve_with_incoming(service, TcpListenerStream::new(listener));
        served.await.expect("to serve");
    })
}

fn service(name: &str, version: u64) -> v1::Resource {
    let service = Service {
        name: NamespacedName::new("shop", name),
        addresses: vec!["10.96.0.1".parse().expect("an address")],
        ports: Vec::new(),
    };
    v1::Resource { version, resource: Some((&Resource::Service(service)).into()) }
}

fn response(nonce: u64, updated: Vec<v1::Resource>, synced: bool) -> v1::SubscribeResponse {
    v1::SubscribeResponse { nonce, updated, synced, ..Default::default() }
}

#[tokio::test]
async fn applies_deltas_refuses_bad_ones_and_comes_back_with_what_it_holds() {
    let mut world = World::new().await;
    let handles = world.connect();
    assert!(world.hello().await.resources.is_empty());

    let mut bad = service("bad", 7);
    if let Some(v1::resource::Resource::Service(bad)) = &mut bad.resource {
        bad.addresses.push(Bytes::from_static(b"123"));
    }
    let controller = world.controller.clone();
    controller.send(response(1, vec![service("web", 5), bad], true)).await;
    let ack = world.ack().await;
    assert_eq!((ack.nonce, ack.nacks.len()), (1, 1));
    assert!(ack.nacks[0].reason.contains("3 bytes"), "{ack:?}");
    assert_eq!(world.snapshot.len(), 1);
    assert!(world.status.is_synced());

    let key = world.snapshot.versions().remove(0).key;
    let removed = v1::SubscribeResponse {
        nonce: 2,
        removed: key.into_iter().collect(),
        updated: vec![service("db", 9)],
        synced: false,
        answered: 0,
    };
    controller.send(removed).await;
    assert_eq!(world.ack().await, v1::Ack { nonce: 2, nacks: Vec::new() });

    let mut reconnected = handles.reconnected.clone();
    reconnected.mark_unchanged();
    controller.hang_up();
    let held = world.hello().await.resources;
    let named: Vec<_> = held
        .iter()
        .map(|held| {
            let key = held.key.clone().expect("a key");
            (key.name.expect("a name").name, held.version)
        })
        .collect();
    assert_eq!(named, [("db".to_owned(), 9)]);
    controller.send(response(1, Vec::new(), true)).await;
    timeout(DEADLINE, reconnected.changed()).await.expect("in time").expect("it lives");
}

fn captures(uids: &[&str]) -> Captures {
    Captures { captured: uids.iter().map(|&uid| uid.into()).collect(), ..Captures::default() }
}

#[tokio::test]
async fn reports_captures_once_they_are_known_and_whenever_they_change() {
    let mut world = World::new().await;
    let _handles = world.connect();
    world.hello().await;
    world.controller.send(response(1, Vec::new(), true)).await;
    world.ack().await;
    world.captured.send_replace(Some(captures(&["u1"])));
    assert_eq!(world.captures().await, ["u1"]);
    world.captured.send_replace(Some(captures(&["u1", "u2"])));
    assert_eq!(world.captures().await, ["u1", "u2"]);
    world.controller.hang_up();
    world.hello().await;
    assert_eq!(world.captures().await, ["u1", "u2"], "right after the hello");
}

#[tokio::test]
async fn why_pods_are_not_captured_is_told_now_and_then() {
    let mut world = World::new().await;
    world.captured.send_replace(Some(captures(&["u1"])));
    let _handles = world.connect();
    world.hello().await;
    assert_eq!(world.captures().await, ["u1"]);
    let since = std::time::Instant::now();
    for attempt in 0..100 {
        let mut new = captures(&["u1"]);
        new.uncaptured.insert("u2".into(), Missed::Failed(format!("attempt {attempt}")));
        world.captured.send_replace(Some(new));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let report = world.report().await;
    assert!(since.elapsed() >= Duration::from_secs(4), "one report of a hundred changes");
    assert_eq!(report.uncaptured[0].reason, "attempt 99");
    assert_eq!(report.uncaptured[0].state(), v1::uncaptured_pod::State::Failed);

    let mut new = captures(&["u1", "u3"]);
    new.uncaptured.insert("u2".into(), Missed::Bypassed(1_800_000_000));
    world.captured.send_replace(Some(new));
    let since = std::time::Instant::now();
    let report = world.report().await;
    assert!(since.elapsed() < Duration::from_secs(3), "callers wait for what is captured");
    let uncaptured = &report.uncaptured[0];
    assert_eq!(uncaptured.state(), v1::uncaptured_pod::State::Bypassed);
    assert_eq!((&*uncaptured.workload_uid, uncaptured.until), ("u2", 1_800_000_000));
}

#[tokio::test]
async fn has_certificates_signed_while_it_is_connected() {
    let mut world = World::new().await;
    let Handles { authority, .. } = world.connect();
    let id = "spiffe://cluster.local/ns/shop/sa/web".parse().expect("an identity");
    let certificates = Arc::new(crate::identity::Certificates::new(None));
    let error = certificates.ensure(&authority, &id).await.expect_err("too early");
    assert!(error.to_string().contains("not connected"), "{error}");
    world.hello().await;
    world.controller.send(response(1, Vec::new(), true)).await;
    world.ack().await;

    world.controller.refusing.store(true, std::sync::atomic::Ordering::Relaxed);
    let error = certificates.ensure(&authority, &id).await.expect_err("refused");
    assert!(error.to_string().contains("no such pod on the node"), "{error}");
    world.controller.refusing.store(false, std::sync::atomic::Ordering::Relaxed);
    certificates.ensure(&authority, &id).await.expect("signed");
    assert!(certificates.has(&id));
}

#[tokio::test]
async fn says_what_stands_in_the_way() {
    let world = World::new().await;
    let token = world.directory.path().join("token");
    std::fs::write(&token, "node-1.ffff").expect("write");
    let _handles = world.connect();
    world.is_told_of("refuses the join token").await;

    std::fs::write(&token, "").expect("write");
    world.is_told_of("--join-token-file has to hold").await;

    std::fs::remove_file(&token).expect("remove");
    world.is_told_of("cannot read").await;

    std::fs::write(&token, TOKEN).expect("write");
    let root = world.directory.path().join("root.crt");
    std::fs::write(&root, Ca::new().pem()).expect("write");
    world.is_told_of("--controller-ca has to be").await;

    world.server.abort();
    world.is_told_of("cannot be reached").await;

    std::fs::write(&root, world.ca.pem()).expect("write");
    let listener = TcpListener::bind(world.at).await.expect("the same port");
    let _server = serve(&world.ca, world.controller.clone(), listener);
    world.controller.send(response(1, Vec::new(), true)).await;
    for _ in 0..1000 {
        if world.status.to_wire("node-1", 0).problems.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no way back: {:?}", world.status.to_wire("node-1", 0));
}

#[tokio::test]
async fn asks_for_what_pods_call_and_repeats_it_to_a_controller_that_is_back() {
    let mut world = World::new().await;
    let _handles = world.connect();
    let hello = world.hello().await.interest.expect("some, if empty");
    assert!(hello.added.is_empty());
    let answered = |nonce, updated, answered| v1::SubscribeResponse {
        answered,
        ..response(nonce, updated, nonce == 1)
    };
    world.controller.send(answered(1, Vec::new(), hello.number)).await;
    world.ack().await;

    let (snapshot, web) = (Arc::clone(&world.snapshot), "10.96.0.1".parse().expect("an address"));
    let asking = tokio::spawn(async move {
        let is_answered = snapshot.interest().ask(web).await;
        (is_answered, snapshot.service_at(web).is_some())
    });
    let v1::subscribe_request::Message::Interest(interest) = world.told().await else {
        panic!("not an interest");
    };
    assert_eq!(interest.added, [mesh_common::api::octets(web)]);
    world.controller.send(answered(2, vec![service("web", 1)], interest.number)).await;
    assert_eq!(
        asking.await.expect("no panic"),
        (true, true),
        "the answer is in the snapshot first"
    );
    world.ack().await;

    world.controller.hang_up();
    let hello = world.hello().await;
    let repeated = hello.interest.expect("some");
    assert_eq!(repeated.added, [mesh_common::api::octets(web)]);
    assert!(repeated.number > interest.number);
    assert_eq!(hello.resources.len(), 1);
}
