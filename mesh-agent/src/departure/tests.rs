use std::{
    convert::Infallible,
    sync::{Mutex, MutexGuard},
};

use http_body_util::Full;
use hyper::{Response, body::Incoming, server::conn::http1 as server, service::service_fn};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const NAMESPACE: &str = "/api/v1/namespaces/nodemesh-system";
const SET: &str = "/apis/apps/v1/namespaces/nodemesh-system/daemonsets/mesh-agent";

/// What the server answers, by path.
type Answers = Arc<Mutex<Vec<(&'static str, u16, Value)>>>;

/// An API server over TLS with a service account of its own.
struct Cluster {
    answers: Answers,
    server: ApiServer,
    _account: TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let account = tempfile::tempdir().expect("a folder");
        fs::write(account.path().join("ca.crt"), cert.pem()).expect("written");
        fs::write(account.path().join("token"), "secret\n").expect("written");
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .expect("a pair");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let answers = Answers::default();
        let told = Arc::clone(&answers);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let told = Arc::clone(&told);
                let service = service_fn(move |request: Request<Incoming>| {
                    assert_eq!(request.headers()[header::AUTHORIZATION], "Bearer secret");
                    let told = told.lock().expect("no panic");
                    let path = request.uri().path();
                    let (code, body) = told
                        .iter()
                        .find(|(known, ..)| *known == path)
                        .map_or((404, Value::Null), |(_, code, body)| (*code, body.clone()));
                    let response = Response::builder().status(code);
                    let response = response.body(Full::new(Bytes::from(body.to_string())));
                    async move { Ok::<_, Infallible>(response.expect("a response")) }
                });
                let connection =
                    server::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        let server = ApiServer::new("127.0.0.1", port, account.path().to_owned());
        let cluster = Self { answers, server, _account: account };
        cluster.says(NAMESPACE, 200, json!({ "metadata": {} }));
        cluster.says(SET, 200, json!({ "metadata": {} }));
        cluster
    }

    fn answers(&self) -> MutexGuard<'_, Vec<(&'static str, u16, Value)>> {
        self.answers.lock().expect("no panic")
    }

    fn says(&self, path: &'static str, code: u16, body: Value) {
        let mut answers = self.answers();
        answers.retain(|(known, ..)| *known != path);
        answers.push((path, code, body));
    }

    /// Of an agent that has just begun.
    fn begin(&self) -> Departure {
        let set = "nodemesh-system/mesh-agent".parse().expect("a name");
        Departure::begin(self.server.clone(), set)
    }

    /// Of an agent that was answered.
    async fn departure(&self) -> Departure {
        let departure = self.begin();
        is_answered(&departure).await;
        departure
    }
}

/// Waits until the API server has said something.
async fn is_answered(departure: &Departure) {
    let answered = async {
        while !departure.was_answered.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(10 * FIRST_WAIT, answered).await.expect("an answer");
}

#[tokio::test]
async fn an_agent_that_is_replaced_leaves_nothing_undone_for_the_next() {
    let cluster = Cluster::start().await;
    assert!(!cluster.departure().await.is_for_good().await);
}

#[tokio::test]
async fn an_agent_whose_daemon_set_or_namespace_goes_goes_for_good() {
    let going = json!({ "metadata": { "deletionTimestamp": "2026-11-20T12:00:00Z" } });
    for (path, code, body) in [
        (SET, 200, going.clone()),
        (SET, 404, Value::Null),
        (NAMESPACE, 200, going),
        (NAMESPACE, 404, Value::Null),
    ] {
        let cluster = Cluster::start().await;
        let departure = cluster.departure().await;
        cluster.says(path, code, body);
        assert!(departure.is_for_good().await, "{path} {code}");
    }
}

#[tokio::test]
async fn rights_that_went_say_so_only_to_whom_they_were_given() {
    for code in [401, 403] {
        let cluster = Cluster::start().await;
        let departure = cluster.departure().await;
        cluster.says(NAMESPACE, code, Value::Null);
        assert!(departure.is_for_good().await, "its account went: {code}");
        let never = cluster.begin();
        assert!(!never.is_for_good().await, "it could never ask: {code}");
    }
}

#[tokio::test]
async fn a_server_that_was_away_at_the_start_is_asked_again() {
    let cluster = Cluster::start().await;
    for code in [500, 401] {
        cluster.says(SET, code, Value::Null);
        let departure = cluster.begin();
        assert!(!departure.is_for_good().await, "nobody has said so: {code}");
        cluster.says(SET, 200, json!({ "metadata": {} }));
        is_answered(&departure).await;
        // The binding of its Role goes before its DaemonSet.
        cluster.says(SET, 403, Value::Null);
        assert!(departure.is_for_good().await, "{code}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_or_ill_takes_nobody_out_of_the_mesh() {
    let cluster = Cluster::start().await;
    let departure = cluster.departure().await;
    cluster.says(SET, 500, Value::Null);
    assert!(!departure.is_for_good().await);
    let nowhere = ApiServer { port: 1, ..cluster.server.clone() };
    let departure = Departure { server: nowhere, ..departure };
    assert!(!departure.is_for_good().await);
}

#[test]
fn what_becomes_part_of_a_path_is_checked() {
    for text in ["mesh-agent", "a/b/c", "a/", "/b", "a/../b", "a/b?c"] {
        text.parse::<DaemonSet>().expect_err(text);
    }
}
