//! The stream from the controller: says what is held, applies what differs, answers each message,
//! and comes back after every outage.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use mesh_common::api::v1::{self, controller_client::ControllerClient};
use rustls::pki_types::CertificateDer;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Streaming,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::{
    enrolment::Captures,
    outage::{Outage, OutageLog},
};
use crate::{
    backoff::Backoff,
    identity::{
        IdentityError,
        renewal::{Authority, Signed},
    },
    snapshot::Snapshot,
    status::Status,
};

/// The DNS name in the controller's certificate.
const CONTROLLER_NAME: &str = "mesh-controller";
/// How long connecting, and how long the answer to a call, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one TCP connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent connection is asked for a sign of life this often, and given up after
/// [`KEEPALIVE_TIMEOUT`].
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How long that sign may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The first wait before the next attempt.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// The longest wait: a controller that is back is found within this.
const RETRY_CAP: Duration = Duration::from_secs(5);
/// The largest message that is accepted: more than a cluster of 100,000 pods needs at once.
const RESPONSE_BYTES: usize = 64 << 20;
/// How often addresses are looked for that nobody calls any more.
const EXPIRY: Duration = Duration::from_secs(60);
/// Why pods are not captured is for people: what changes in it is told this often at most.
const REASONS: Duration = Duration::from_secs(5);
/// Messages to the controller that may wait to be sent.
const OUTGOING: usize = 16;

/// A client that carries the join token.
type Client = ControllerClient<InterceptedService<Channel, Token>>;

/// Where the controller is and how the two know each other. The files are read at each attempt.
#[derive(Clone, Debug)]
pub struct Address {
    /// Such as `https://10.0.0.1:15012`.
    pub url: String,
    /// The root certificate, PEM.
    pub ca: PathBuf,
    /// The join token.
    pub token: PathBuf,
}

/// The stream, and what it feeds.
pub struct Connection {
    /// Where it leads to.
    pub address: Address,
    /// What the controller's deltas go into.
    pub snapshot: Arc<Snapshot>,
    /// Where the state of the connection is shown.
    pub status: Arc<Status>,
    /// The pods that are captured, and why others are not, once that is known.
    pub captured: watch::Receiver<Option<Captures>>,
}

/// Has certificates signed by the controller, over the connection that is up.
#[derive(Clone, Debug)]
pub struct ControllerAuthority {
    client: watch::Receiver<Option<Client>>,
}

/// The two ends that others hold of a [`Connection`].
pub struct Handles {
    /// Signs certificates.
    pub authority: ControllerAuthority,
    /// Grows whenever the controller is back.
    pub reconnected: watch::Receiver<u64>,
}

struct Senders {
    client: watch::Sender<Option<Client>>,
    reconnected: watch::Sender<u64>,
}

impl Connection {
    /// Keeps the stream up, for ever.
    pub fn start(self) -> Handles {
        self.status.controller(|controller| controller.address.clone_from(&self.address.url));
        let (client, client_rx) = watch::channel(None);
        let (reconnected, reconnected_rx) = watch::channel(0);
        tokio::spawn(self.run(Senders { client, reconnected }));
        Handles {
            authority: ControllerAuthority { client: client_rx },
            reconnected: reconnected_rx,
        }
    }

    async fn run(mut self, senders: Senders) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        let mut log = OutageLog::default();
        loop {
            let started = Instant::now();
            let Err(outage) = self.session(&senders, &mut log).await;
            if started.elapsed() > RETRY_CAP {
                backoff.reset();
            }
            senders.client.send_replace(None);
            self.snapshot.interest().away();
            log.down(&outage);
            self.status.controller(|controller| {
                controller.connected = false;
                controller.last_error = outage.to_string();
            });
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    /// One stream, from connecting to its end.
    async fn session(
        &mut self,
        senders: &Senders,
        log: &mut OutageLog,
    ) -> Result<Infallible, Outage> {
        let mut client = self.connect().await?;
        let (outgoing, requests) = mpsc::channel(OUTGOING);
        let mut told = self.captured.borrow_and_update().clone();
        self.greet(&outgoing, told.as_ref()).await?;
        let mut reasons_at = Instant::now() + REASONS;
        let answer = timeout(PATIENCE, client.subscribe(ReceiverStream::new(requests)));
        let answer = answer.await.map_err(|_| no_answer())?;
        let mut incoming = answer.map_err(|status| Outage::of_call(&status))?.into_inner();
        // The token was accepted: certificates can be asked for.
        senders.client.send_replace(Some(client));
        let mut is_up = false;
        let mut expiry = tokio::time::interval(EXPIRY);
        loop {
            tokio::select! {
                message = next(&mut incoming) => {
                    self.take(message?, &outgoing).await?;
                    if !is_up {
                        is_up = true;
                        log.up();
                        senders.reconnected.send_modify(|times| *times += 1);
                        self.status.controller(|controller| {
                            controller.connected = true;
                            controller.last_error.clear();
                        });
                    }
                }
                Ok(()) = self.captured.changed() => {
                    let is_urgent = {
                        let captures = self.captured.borrow_and_update();
                        let uids = |it: &Option<Captures>| it.as_ref().map(|it| it.captured.clone());
                        uids(&captures) != uids(&told)
                    };
                    if is_urgent {
                        told = self.report(&outgoing).await?;
                        reasons_at = Instant::now() + REASONS;
                    }
                }
                () = sleep_until(reasons_at), if *self.captured.borrow() != told => {
                    told = self.report(&outgoing).await?;
                    reasons_at = Instant::now() + REASONS;
                }
                () = self.snapshot.interest().changed() => self.ask(&outgoing).await?,
                _ = expiry.tick() => self.snapshot.interest().expire(std::time::Instant::now()),
            }
        }
    }

    async fn connect(&self) -> Result<Client, Outage> {
        let ca = read(&self.address.ca)?;
        let token = Token::parse(&read(&self.address.token)?)?;
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca))
            .domain_name(CONTROLLER_NAME);
        let endpoint = Endpoint::from_shared(self.address.url.clone())
            .and_then(|endpoint| endpoint.tls_config(tls))
            .map_err(|error| {
                let url = &self.address.url;
                Outage::Setting(format!("--controller {url} or --controller-ca is wrong: {error}"))
            })?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        let channel = timeout(PATIENCE, endpoint.connect()).await.map_err(|_| no_answer())?;
        let channel = channel.map_err(|error| Outage::of_connecting(&error))?;
        let client = ControllerClient::with_interceptor(channel, token);
        Ok(client.max_decoding_message_size(RESPONSE_BYTES))
    }

    /// Says what is held and of interest, and which pods are captured if that is known.
    async fn greet(
        &self,
        outgoing: &mpsc::Sender<v1::SubscribeRequest>,
        captures: Option<&Captures>,
    ) -> Result<(), Outage> {
        let hello = v1::Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            resources: self.snapshot.versions(),
            interest: Some(self.snapshot.interest().hello()),
        };
        send(outgoing, v1::subscribe_request::Message::Hello(hello)).await?;
        report(outgoing, captures).await
    }

    /// Reports what is known now, and returns that.
    async fn report(
        &self,
        outgoing: &mpsc::Sender<v1::SubscribeRequest>,
    ) -> Result<Option<Captures>, Outage> {
        let captures = self.captured.borrow().clone();
        report(outgoing, captures.as_ref()).await?;
        Ok(captures)
    }

    async fn ask(&self, outgoing: &mpsc::Sender<v1::SubscribeRequest>) -> Result<(), Outage> {
        let Some(interest) = self.snapshot.interest().changes() else { return Ok(()) };
        send(outgoing, v1::subscribe_request::Message::Interest(interest)).await
    }

    /// Applies one message and answers it.
    async fn take(
        &self,
        message: v1::SubscribeResponse,
        outgoing: &mpsc::Sender<v1::SubscribeRequest>,
    ) -> Result<(), Outage> {
        let v1::SubscribeResponse { nonce, updated, removed, synced, answered } = message;
        tracing::debug!(nonce, updated = updated.len(), removed = removed.len(), synced, "delta");
        let nacks = self.snapshot.apply(updated, removed);
        for nack in &nacks {
            let key = nack.key.as_ref().map(describe).unwrap_or_default();
            tracing::warn!(key, reason = nack.reason, "refused a resource; the others are in use");
        }
        self.snapshot.interest().answer(answered, synced);
        if synced {
            self.status.controller(|controller| controller.synced = true);
            self.snapshot.touch();
        }
        send(outgoing, v1::subscribe_request::Message::Ack(v1::Ack { nonce, nacks })).await
    }
}

impl Authority for ControllerAuthority {
    async fn sign(&self, csr: Vec<u8>) -> Result<Signed, IdentityError> {
        let unreachable = |reason: &str| IdentityError::Unreachable(reason.to_owned());
        let client = self.client.borrow().clone();
        let mut client = client.ok_or_else(|| unreachable("the controller is not connected"))?;
        let request = v1::SignCertificateRequest { csr: csr.into() };
        let answer = timeout(PATIENCE, client.sign_certificate(request)).await;
        let answer = answer
            .map_err(|_| unreachable("the controller does not answer"))?
            .map_err(|status| not_signed(&status))?
            .into_inner();
        let certificates = |list: Vec<Bytes>| {
            list.into_iter().map(|der| CertificateDer::from(der.to_vec())).collect()
        };
        Ok(Signed {
            chain: certificates(answer.chain),
            trust_bundle: certificates(answer.trust_bundle),
        })
    }
}

/// A controller that goes away says so with the call that it breaks, or its connection does.
fn not_signed(status: &tonic::Status) -> IdentityError {
    let reason = format!("the controller says {}: {}", status.code(), status.message());
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown => {
            IdentityError::Unreachable(reason)
        }
        _ => IdentityError::Authority(reason),
    }
}

/// The join token, as gRPC metadata.
#[derive(Clone, Debug)]
struct Token(MetadataValue<Ascii>);

impl Token {
    fn parse(file: &[u8]) -> Result<Self, Outage> {
        let invalid = || {
            Outage::Setting(
                "--join-token-file has to hold the one line that `mesh-controller token <node>` \
                 prints"
                    .to_owned(),
            )
        };
        let token = std::str::from_utf8(file).map_err(|_| invalid())?.trim();
        if token.is_empty() || token.contains(char::is_whitespace) {
            return Err(invalid());
        }
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().map_err(|_| invalid())?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, tonic::Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

async fn next(
    incoming: &mut Streaming<v1::SubscribeResponse>,
) -> Result<v1::SubscribeResponse, Outage> {
    match incoming.message().await {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(Outage::Ended("it is shutting down, or was".to_owned())),
        Err(status) => Err(Outage::of_call(&status)),
    }
}

async fn report(
    outgoing: &mpsc::Sender<v1::SubscribeRequest>,
    captures: Option<&Captures>,
) -> Result<(), Outage> {
    let Some(captures) = captures else { return Ok(()) };
    send(outgoing, v1::subscribe_request::Message::Captures(captures.into())).await
}

async fn send(
    outgoing: &mpsc::Sender<v1::SubscribeRequest>,
    message: v1::subscribe_request::Message,
) -> Result<(), Outage> {
    let request = v1::SubscribeRequest { message: Some(message) };
    let sent = timeout(PATIENCE, outgoing.send(request)).await;
    sent.map_err(|_| no_answer())?.map_err(|_| Outage::Ended("it is closed".to_owned()))
}

fn no_answer() -> Outage {
    Outage::Unreachable(format!("no answer within {} s", PATIENCE.as_secs()))
}

fn describe(key: &v1::ResourceKey) -> String {
    let name = key.name.as_ref().map(|it| format!("{}/{}", it.namespace, it.name));
    format!("{} {}", key.kind().as_str_name(), name.unwrap_or_default())
}

fn read(path: &Path) -> Result<Vec<u8>, Outage> {
    std::fs::read(path).map_err(|error| Outage::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests;
