//! The calling side.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{Builder, SendRequest},
};
use http::{Method, Request};
use mesh_harness::netns::Netns;
use rustls::pki_types::ServerName;
use tokio::runtime::Runtime;

use super::{FRAME, STREAM_WINDOW, TUNNEL_WINDOW};
use crate::{certificates::Credentials, stranger};

/// Everything asked for has to come within this time.
const PATIENCE: Duration = Duration::from_secs(20);

/// One tunnel.
pub struct Caller {
    runtime: Runtime,
    requests: SendRequest<Bytes>,
}

/// What came of a CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// What the application said, to the end of the stream.
    pub body: String,
    /// How the stream was reset, where it was.
    pub reset: Option<Reason>,
}

impl Caller {
    /// Opens a tunnel to `hbone` inside `netns`.
    pub fn connect(netns: &Netns, hbone: SocketAddr, credentials: Credentials) -> Result<Self> {
        let stream = netns
            .run(|| TcpStream::connect_timeout(&hbone, PATIENCE))?
            .with_context(|| format!("connecting to {hbone}"))?;
        stream.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let requests = runtime.block_on(async {
            let name = ServerName::from(std::net::Ipv4Addr::UNSPECIFIED);
            let tls = stranger::tls(Some(credentials))?;
            let stream = tls.connect(name, tokio::net::TcpStream::from_std(stream)?).await?;
            let (requests, connection) = Builder::new()
                .initial_window_size(STREAM_WINDOW)
                .initial_connection_window_size(TUNNEL_WINDOW)
                .max_frame_size(FRAME)
                .max_header_list_size(16 * 1024)
                .enable_push(false)
                .handshake(stream)
                .await?;
            // Ends with the runtime; its error reaches every request as well.
            tokio::spawn(connection);
            anyhow::Ok(requests)
        })?;
        Ok(Self { runtime, requests })
    }

    /// Sends `text` to `authority` and ends that direction; what came back.
    pub fn ask(&self, authority: &str, text: &str) -> Result<Answer> {
        Ok(self.ask_all(&[authority], text)?.remove(0))
    }

    /// The same on a stream for each of `authorities`, all open before any of them says anything.
    pub fn ask_all(&self, authorities: &[&str], text: &str) -> Result<Vec<Answer>> {
        self.runtime.block_on(async {
            let asked = async {
                let mut streams = Vec::new();
                for authority in authorities {
                    streams.push(self.open(authority).await?);
                }
                let mut answers = Vec::new();
                for (status, send, receive) in streams {
                    answers.push(exchange(status, send, receive, text).await?);
                }
                Ok(answers)
            };
            match tokio::time::timeout(PATIENCE, asked).await {
                Ok(answers) => answers,
                Err(_) => bail!("no answer from {authorities:?} within {PATIENCE:?}"),
            }
        })
    }

    async fn open(&self, authority: &str) -> Result<(u16, SendStream<Bytes>, RecvStream)> {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(authority)
            .header("baggage", "k8s.namespace.name=amb,k8s.deployment.name=client,service.name=c")
            .header("forwarded", "for=\"10.81.1.11:54860\"")
            .header("traceparent", "00-f77120647ee036905bb22446274a9965-5c9c7b7f9a29ca0d-00")
            .body(())?;
        let mut requests = self.requests.clone().ready().await?;
        let (answer, send) = requests.send_request(request, false)?;
        let answer = answer.await?;
        Ok((answer.status().as_u16(), send, answer.into_body()))
    }
}

async fn exchange(
    status: u16,
    mut send: SendStream<Bytes>,
    mut receive: RecvStream,
    text: &str,
) -> Result<Answer> {
    let mut answer = Answer { status, body: String::new(), reset: None };
    if status != 200 {
        return Ok(answer);
    }
    send.send_data(Bytes::copy_from_slice(text.as_bytes()), true)?;
    while let Some(chunk) = receive.data().await {
        match chunk {
            Ok(chunk) => {
                receive.flow_control().release_capacity(chunk.len())?;
                answer.body.push_str(std::str::from_utf8(&chunk)?);
            }
            Err(error) if error.is_reset() => {
                answer.reset = error.reason();
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(answer)
}
