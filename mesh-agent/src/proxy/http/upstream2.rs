//! A stream of an HTTP/2 connection to an endpoint; connections are shared.

use std::{
    future::poll_fn,
    io,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{
    Reason,
    client::{Connection, ResponseFuture, SendRequest},
    ext::Protocol,
};
use http::{Method, Uri, Version, header::CONTENT_LENGTH, uri::Scheme};

use super::{
    message::{Request, Response},
    network::{Dialled, Network},
    pool::Key,
    settings,
    stream2::{Receiving, Sending},
    transport::Transport,
    websocket::WEBSOCKET,
    wire::Broken,
};
use crate::{
    http1::{Frame, Framing},
    proxy::{
        HANDSHAKE_TIMEOUT,
        failure::Failure,
        hbone::{
            Stream,
            coalesce::{Coalesce, Flusher, coalesce},
            pool::{self, Acquired, Lease},
            settle,
        },
        relay::{End, Peer},
        revoke::Leash,
        route::Upstream as Place,
    },
};

/// HTTP/2 connections of one worker.
pub(in crate::proxy) type Pool = pool::Pool<Key, Arc<Life>>;

/// What the streams of a connection know of it.
#[derive(Debug)]
pub(in crate::proxy) struct Life {
    /// What policies that only audit would have refused it for.
    audit: Option<String>,
    /// Why it lost its right, once it did.
    revoked: OnceLock<String>,
}

impl Life {
    /// Why it lost its right, where it did.
    pub(super) fn revoked(&self) -> Option<String> {
        self.revoked.get().cloned()
    }
}

/// The stream.
pub(in crate::proxy) struct Upstream2 {
    request: SendRequest<Bytes>,
    life: Arc<Life>,
    /// Whether another stream was on the connection before.
    pub(super) is_reused: bool,
    /// Whether the stream becomes a tunnel, which goes on behind the request.
    is_tunnel: bool,
    sending: Option<Sending>,
    response: Option<ResponseFuture>,
    receiving: Option<Receiving>,
    pub(super) has_answered: bool,
    pub(super) was_refused: bool,
    lease: Lease,
}

impl Upstream2 {
    /// A place on a connection to `place`.
    pub(super) async fn open(
        network: &dyn Network,
        place: &Place,
        key: &Key,
    ) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Connect {
            address: place.address,
            error: format!("HTTP/2: {error}"),
        };
        // Each turn takes a dead connection out of the pool, so the last one dials.
        loop {
            let dial = || async {
                let Dialled { transport, leash, audit } = network.dial(place).await?;
                let life = Arc::new(Life { audit, revoked: OnceLock::new() });
                let handshake = handshake(transport, leash, life.clone());
                let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
                let request = handshake
                    .map_err(|_| failed(&"no handshake within 10 s"))?
                    .map_err(|error| failed(&error))?;
                Ok(pool::Dialled { request, trusted_until: None, told: life })
            };
            let acquired = network.streams().acquire(key, dial).await?;
            let Acquired { request, lease, is_fresh, told: life } = acquired;
            match request.ready().await {
                Ok(request) => {
                    return Ok(Self {
                        request,
                        life,
                        is_reused: !is_fresh,
                        is_tunnel: false,
                        sending: None,
                        response: None,
                        receiving: None,
                        has_answered: false,
                        was_refused: false,
                        lease,
                    });
                }
                Err(error) => {
                    network.streams().retire(key, &lease).await;
                    if is_fresh {
                        return Err(failed(&error));
                    }
                }
            }
        }
    }

    pub(super) fn audit(&self) -> Option<String> {
        self.life.audit.clone()
    }

    pub(super) fn send_head(&mut self, request: &Request) -> Result<(), Broken> {
        let head = head_of(request).map_err(|error| Broken::Io(io::Error::other(error)))?;
        self.is_tunnel = request.is_connect() || request.is_extended_connect();
        let is_end = request.framing == Framing::None && !self.is_tunnel;
        let sent = self.request.send_request(head, is_end);
        let (response, stream) = sent.map_err(|error| self.broken(error))?;
        self.response = Some(response);
        self.sending = (!is_end).then(|| Sending::new(stream));
        Ok(())
    }

    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Some(sending) = &mut self.sending else { return Poll::Ready(Ok(())) };
        let ready = ready!(sending.poll_room(cx));
        Poll::Ready(ready.map_err(|error| self.broken(error)))
    }

    pub(super) fn send(&mut self, frame: Frame) {
        let is_end_of_request = self.is_tunnel && matches!(frame, Frame::End(_));
        if let Some(sending) = &mut self.sending
            && !is_end_of_request
        {
            sending.send(frame);
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Some(sending) = &mut self.sending else { return Poll::Ready(Ok(())) };
        let ready = ready!(sending.poll_flush(cx));
        Poll::Ready(ready.map_err(|error| self.broken(error)))
    }

    pub(super) fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response, Broken>> {
        let Some(future) = &mut self.response else { return Poll::Pending };
        if let Poll::Ready(Some(informational)) = future.poll_informational(cx) {
            let (parts, ()) = informational.map_err(|error| self.broken(error))?.into_parts();
            return Poll::Ready(Ok(response_of(parts, Framing::None)));
        }
        let response = ready!(std::pin::Pin::new(future).poll(cx));
        let (parts, body) = response.map_err(|error| self.broken(error))?.into_parts();
        self.has_answered = true;
        let receiving = Receiving::new(body);
        let length =
            parts.headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
        let framing = match length {
            _ if receiving.is_empty() => Framing::None,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        self.receiving = Some(receiving);
        Poll::Ready(Ok(response_of(parts, framing)))
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Broken>> {
        let Some(receiving) = &mut self.receiving else { return Poll::Pending };
        let frame = ready!(receiving.poll_frame(cx));
        Poll::Ready(frame.map_err(|error| self.broken(error)))
    }

    pub(super) fn stock(&mut self, cx: &mut Context<'_>) {
        if let Some(receiving) = &mut self.receiving {
            receiving.stock(cx);
        }
    }

    /// Whether the server has said that it takes extended CONNECTs.
    pub(super) fn takes_extended_connect(&self) -> bool {
        self.request.is_extended_connect_protocol_enabled()
    }

    /// What the server said behind its response.
    pub(super) fn take_input(&mut self) -> Bytes {
        self.receiving.as_mut().map(Receiving::take_all).unwrap_or_default()
    }

    pub(super) fn life(&self) -> Arc<Life> {
        self.life.clone()
    }

    /// The side of a relay that a tunnel is whose response has come.
    pub(super) fn into_end(self) -> End {
        let send = self.sending.expect("the request of a tunnel has no end").into_stream();
        let receive = self.receiving.expect("the response has come").into_stream();
        End::Stream(Stream { send, receive, lease: Some(self.lease) }, Peer::Server)
    }

    /// What an error of the stream means.
    fn broken(&mut self, error: h2::Error) -> Broken {
        // RFC 9113, section 8.7: both say that the server has not looked at the request.
        self.was_refused |= error.reason() == Some(Reason::REFUSED_STREAM)
            || error.is_go_away() && error.is_remote() && !self.has_answered;
        if let Some(revoked) = self.life.revoked.get() {
            return Broken::Io(io::Error::new(io::ErrorKind::PermissionDenied, revoked.clone()));
        }
        Broken::Io(io::Error::other(error))
    }
}

/// Makes a connection and has it driven until its last stream ends, or it loses its right.
async fn handshake(
    transport: Transport,
    leash: Leash,
    life: Arc<Life>,
) -> io::Result<SendRequest<Bytes>> {
    let (io, flusher) = coalesce(transport);
    let (request, connection) = settle::handshake(settings::client(), io, &flusher).await?;
    tokio::spawn(drive(connection, flusher, leash, life));
    Ok(request)
}

async fn drive(
    mut connection: Connection<Coalesce<Transport>, Bytes>,
    flusher: Flusher<Transport>,
    mut leash: Leash,
    life: Arc<Life>,
) {
    poll_fn(|cx| {
        if leash.poll_end(cx).is_ready() {
            // Before its streams see that it is gone.
            life.revoked.get_or_init(|| leash.take_reason().unwrap_or_default());
            return Poll::Ready(());
        }
        if let Poll::Ready(ended) = std::pin::Pin::new(&mut connection).poll(cx) {
            if let Err(error) = ended {
                tracing::debug!(%error, "an HTTP/2 connection to an endpoint ended");
            }
            return Poll::Ready(());
        }
        match ready!(flusher.poll_flush(cx)) {
            Ok(()) => Poll::Pending,
            Err(_) => Poll::Ready(()),
        }
    })
    .await;
}

fn head_of(request: &Request) -> Result<http::Request<()>, http::Error> {
    let Request { authority, target, headers, method, .. } = request;
    let mut uri = Uri::builder().authority(&**authority);
    if !request.is_connect() {
        uri = uri.scheme(Scheme::HTTP).path_and_query(target.clone());
    }
    let mut head = http::Request::new(());
    *head.uri_mut() = uri.build()?;
    head.method_mut().clone_from(method);
    if request.is_extended_connect() {
        *head.method_mut() = Method::CONNECT;
        head.extensions_mut().insert(Protocol::from_static(WEBSOCKET));
    }
    *head.version_mut() = Version::HTTP_2;
    head.headers_mut().clone_from(headers);
    Ok(head)
}

fn response_of(parts: http::response::Parts, framing: Framing) -> Response {
    Response {
        status: parts.status,
        reason: Bytes::new(),
        headers: parts.headers,
        framing,
        upgrade: None,
    }
}
