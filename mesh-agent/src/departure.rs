//! Whether an agent that is told to end goes for good, or an other takes its place.
//!
//! What is captured stays captured between two agents, so that nothing gets around the mesh. Where
//! no agent comes any more that would cut pods off for ever: then the last act is to clean up.
//! Kubernetes tells a container to end and not why, so the agent asks the API server whether its
//! DaemonSet and its namespace stay. No finalizer: one of ours would keep a namespace from going
//! where no agent is left to take it off.

use std::{
    fs,
    path::PathBuf,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, anyhow};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::backoff::Backoff;

/// Where Kubernetes puts the token and the certificate of the API server.
pub const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long one question may take. An end that is asked for may not be put off for long.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often an API server that does not answer is asked at the end.
const TRIES: usize = 3;
/// How long an agent waits between its questions until one is answered, at first and at most.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The DaemonSet that an agent is of, `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonSet {
    namespace: String,
    name: String,
}

impl FromStr for DaemonSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // They become part of a path.
        let is_name = |text: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
            !text.is_empty() && text.bytes().all(plain)
        };
        match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => {
                Ok(Self { namespace: namespace.into(), name: name.into() })
            }
            _ => Err(format!("`{text}` is not namespace/name")),
        }
    }
}

/// The API server as a pod reaches it.
#[derive(Clone, Debug)]
pub struct ApiServer {
    host: String,
    port: u16,
    account: PathBuf,
}

impl ApiServer {
    /// As the environment of a pod says, with a service account's files in `account`.
    ///
    /// # Errors
    /// Where this is no pod.
    pub fn of_pod(account: PathBuf) -> anyhow::Result<Self> {
        let variable = |name| {
            std::env::var(name).with_context(|| format!("{name} is not set: this is no pod"))
        };
        Ok(Self {
            host: variable("KUBERNETES_SERVICE_HOST")?,
            port: variable("KUBERNETES_SERVICE_PORT")?.parse()?,
            account,
        })
    }

    /// The server at `host` and `port`, with a service account's files in `account`.
    pub fn new(host: &str, port: u16, account: PathBuf) -> Self {
        Self { host: host.into(), port, account }
    }

    /// Asks for what is at `path`. The token is read each time: it is renewed.
    async fn get(&self, path: &str) -> anyhow::Result<(StatusCode, Value)> {
        let token = fs::read_to_string(self.account.join("token")).context("the token")?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let name = ServerName::try_from(self.host.clone())?;
        let stream = TlsConnector::from(self.tls()?).connect(name, stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = Request::get(path)
            .header(header::HOST, &self.host)
            .header(header::AUTHORIZATION, format!("Bearer {}", token.trim()))
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        driver.abort();
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    fn tls(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(self.account.join("ca.crt"))? {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

/// Knows at the end whether it is one for good.
#[derive(Clone, Debug)]
pub struct Departure {
    server: ApiServer,
    set: DaemonSet,
    /// Whether this agent was ever answered. Only then does it mean something that it is not at the
    /// end: the account or its rights went, since they were there.
    was_answered: Arc<AtomicBool>,
}

/// What the answer to one question says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It is there and stays.
    Stays,
    /// It is gone or going.
    Goes,
    /// The account is not known any more, or has lost its right to ask.
    Refused,
}

impl Departure {
    /// Begins to watch over the agent of `set`, beside whatever else it does: asks until there is
    /// one answer.
    pub fn begin(server: ApiServer, set: DaemonSet) -> Self {
        let departure = Self { server, set, was_answered: Arc::default() };
        tokio::spawn(departure.clone().ask_until_answered());
        departure
    }

    async fn ask_until_answered(self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut is_told = false;
        while !self.was_answered.load(Ordering::Relaxed) {
            let failure = match self.ask().await {
                Ok(Answer::Refused) => "it refuses to: see deploy/base/rbac-agent.yaml".to_owned(),
                Ok(_) => return,
                Err(error) => format!("{error:#}"),
            };
            if !is_told {
                tracing::warn!(
                    "the API server does not say whether the DaemonSet stays, so nothing may be \
                     cleaned up if that is deleted now; asks again: {failure}"
                );
                is_told = true;
            }
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    /// Whether no agent comes after this one: the DaemonSet or the namespace is going or gone, or
    /// the account and its rights went with them. Whoever gets no answer stays: an API server that
    /// is away takes nobody out of the mesh.
    pub async fn is_for_good(&self) -> bool {
        for _ in 0..TRIES {
            match self.ask().await {
                Ok(Answer::Goes) => return true,
                Ok(Answer::Refused) => return self.was_answered.load(Ordering::Relaxed),
                Ok(Answer::Stays) => return false,
                Err(error) => tracing::warn!("asking whether the DaemonSet stays: {error:#}"),
            }
        }
        false
    }

    /// The namespace is asked for too: when it is deleted its pods may end before its DaemonSets.
    async fn ask(&self) -> anyhow::Result<Answer> {
        let DaemonSet { namespace, name } = &self.set;
        let namespace = format!("/api/v1/namespaces/{namespace}");
        let set = format!("/apis/apps/v1/namespaces/{}/daemonsets/{name}", self.set.namespace);
        for path in [namespace, set] {
            let asked = timeout(PATIENCE, self.server.get(&path)).await;
            let (status, object) =
                asked.map_err(|_| anyhow!("no answer within {PATIENCE:?}"))??;
            match answer(status, &object) {
                Some(Answer::Stays) => {}
                Some(Answer::Refused) => return Ok(Answer::Refused),
                Some(Answer::Goes) => {
                    self.was_answered.store(true, Ordering::Relaxed);
                    return Ok(Answer::Goes);
                }
                None => return Err(anyhow!("the API server answers {status}")),
            }
        }
        self.was_answered.store(true, Ordering::Relaxed);
        Ok(Answer::Stays)
    }
}

fn answer(status: StatusCode, object: &Value) -> Option<Answer> {
    match status {
        StatusCode::OK if object["metadata"]["deletionTimestamp"].is_null() => Some(Answer::Stays),
        StatusCode::OK | StatusCode::NOT_FOUND => Some(Answer::Goes),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Some(Answer::Refused),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
