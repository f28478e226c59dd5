//! The calling side of HBONE.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    task::{Poll, ready},
};

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use http::{Method, Request, StatusCode, Uri, Version, uri::Authority};
use mesh_common::{model::Workload, ports};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    time,
};
use tokio_rustls::TlsConnector;

use super::{
    FRAME, HEADER_LIST, REMEMBERED_RESETS, RESET_MEMORY, SEND_BUFFER, STREAM_WINDOW, Stream,
    TUNNEL_WINDOW,
    coalesce::{Coalesce, Flusher, coalesce},
    pool::{Acquired, Dialled, Key},
    settle, status,
};
use crate::{
    identity::trusted_until,
    proxy::{
        CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT, buffer, dial, failure::Failure, pod::ServedPod,
        worker::Context,
    },
};

/// How long the far proxy may take to answer a CONNECT: its own attempt to reach the
/// application, and the way there and back.
const ANSWER_TIMEOUT: std::time::Duration = CONNECT_TIMEOUT.saturating_mul(2);

/// Why a CONNECT got no stream.
enum Refusal {
    /// The tunnel takes no more streams; another one may.
    TunnelClosed(h2::Error),
    /// The tunnel does not answer; perhaps its node is gone.
    TunnelSilent,
    Failed(Failure),
}

/// A stream from `source` to the application of `workload` at `address`.
pub(in crate::proxy) async fn connect(
    context: &Context,
    pod: &ServedPod,
    workload: &Workload,
    address: SocketAddr,
) -> Result<Stream, Failure> {
    let expected = workload.identity.clone().ok_or(Failure::NoIdentity(address))?;
    let key = Key {
        source: pod.pod.uid.clone(),
        identity: pod.pod.identity.clone(),
        destination: SocketAddr::new(address.ip(), ports::HBONE),
        expected,
        generation: context.shared.certificates.generation(),
    };
    // Each turn takes a dead tunnel out of the pool, so the last one dials.
    loop {
        let dial = || dial_tunnel(context, pod, &key);
        let Acquired { request, lease, is_fresh, told: () } =
            context.tunnels.acquire(&key, dial).await?;
        match open(request, address).await {
            Ok((send, receive)) => return Ok(Stream { send, receive, lease: Some(lease) }),
            Err(Refusal::Failed(failure)) => return Err(failure),
            Err(Refusal::TunnelSilent) => {
                context.tunnels.retire(&key, &lease).await;
                return Err(Failure::tunnel(key.destination, &"no answer to CONNECT"));
            }
            Err(Refusal::TunnelClosed(error)) => {
                context.tunnels.retire(&key, &lease).await;
                if is_fresh {
                    return Err(Failure::tunnel(key.destination, &error));
                }
                tracing::debug!(destination = %key.destination, %error, "a tunnel was closed");
            }
        }
    }
}

/// Asks for a stream on a tunnel.
async fn open(
    request: SendRequest<Bytes>,
    address: SocketAddr,
) -> Result<(h2::SendStream<Bytes>, h2::RecvStream), Refusal> {
    let mut request = request.ready().await.map_err(Refusal::TunnelClosed)?;
    let (response, send) =
        request.send_request(connect_request(address), false).map_err(Refusal::TunnelClosed)?;
    let response = time::timeout(ANSWER_TIMEOUT, response)
        .await
        .map_err(|_| Refusal::TunnelSilent)?
        .map_err(|error| match error.reason() {
            // Neither was looked at by the peer (RFC 9113, sections 6.8 and 8.7).
            Some(h2::Reason::REFUSED_STREAM) => Refusal::TunnelClosed(error),
            _ if error.is_go_away() || error.is_io() => Refusal::TunnelClosed(error),
            _ => Refusal::Failed(Failure::tunnel(address, &error)),
        })?;
    if response.status() == StatusCode::OK {
        Ok((send, response.into_body()))
    } else {
        Err(Refusal::Failed(status::to_failure(&response, address)))
    }
}

fn connect_request(address: SocketAddr) -> Request<()> {
    let authority = Authority::try_from(address.to_string()).expect("an address is an authority");
    let mut uri = http::uri::Parts::default();
    uri.authority = Some(authority);
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_parts(uri).expect("an authority alone is a URI");
    request
}

/// A new tunnel: TCP from the pod's namespace, TLS as the pod's account, HTTP/2.
async fn dial_tunnel(context: &Context, pod: &ServedPod, key: &Key) -> Result<Dialled, Failure> {
    let shared = &context.shared;
    let config = shared
        .certificates
        .client_config(&key.identity, &key.expected)
        .ok_or_else(|| Failure::NoCertificate(key.identity.clone()))?;
    let tcp = dial::connect(&shared.sockets, &pod.pod, key.destination, 0)
        .await
        .map_err(|error| Failure::hbone_connect(key.destination, &error))?;
    let failed = |error: &dyn std::fmt::Display| Failure::tunnel(key.destination, error);
    dial::keep_tunnel_alive(&tcp).map_err(|error| failed(&error))?;

    let handshake = async {
        let name = ServerName::IpAddress(key.destination.ip().into());
        let tcp = BufReader::with_capacity(buffer::BLOCK, tcp);
        let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(|e| failed(&e))?;
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let trusted_until = trusted_until(chain).map_err(|error| failed(&error))?;
        let (io, flusher) = coalesce(tls);
        let mut http2 = h2::client::Builder::new();
        http2
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(TUNNEL_WINDOW)
            .max_frame_size(FRAME)
            .max_header_list_size(HEADER_LIST)
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_reset_streams(REMEMBERED_RESETS)
            .reset_stream_duration(RESET_MEMORY)
            .enable_push(false);
        let begun = settle::handshake(http2, io, &flusher).await;
        let (request, connection) = begun.map_err(|error| failed(&error))?;
        let (destination, gone) = (key.destination, pod.gone());
        tokio::spawn(async move {
            tokio::select! {
                () = drive(connection, flusher, destination) => {}
                () = gone => {}
            }
        });
        Ok(Dialled { request, trusted_until: Some(trusted_until), told: () })
    };
    time::timeout(HANDSHAKE_TIMEOUT, handshake)
        .await
        .map_err(|_| failed(&"no TLS and HTTP/2 handshake within 10 s"))?
}

/// Runs a tunnel until its last stream and its last [`SendRequest`] are gone.
async fn drive<T>(
    mut connection: Connection<Coalesce<T>, Bytes>,
    flusher: Flusher<T>,
    destination: SocketAddr,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(ended.map_err(|error| error.to_string()));
        }
        ready!(flusher.poll_flush(cx)).map_err(|error| error.to_string())?;
        Poll::Pending
    });
    if let Err(error) = ended.await {
        tracing::debug!(%destination, %error, "tunnel ended");
    }
}
