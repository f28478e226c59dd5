//! A client that speaks HTTP/2: each stream is an exchange of its own.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{
    Reason,
    server::{Connection, SendResponse},
};
use http::{
    Method, StatusCode, Version as Http,
    header::{CONTENT_LENGTH, HOST},
};
use tokio::net::TcpStream;

use super::{
    exchange::{self, After},
    message::{Client, Gone, Request, Response, Version},
    network::Network,
    settings,
    stream2::{Receiving, Sending},
};
use crate::{
    http1::{Frame, Framing, Malformed},
    observe::flow::HttpProtocol,
    proxy::hbone::coalesce::{Coalesce, Flusher, coalesce},
};

/// Serves a client's connection to its end; once `drained` it takes no more requests.
pub(in crate::proxy) async fn serve(
    network: Arc<dyn Network>,
    drained: impl Future<Output = ()>,
    stream: TcpStream,
) {
    let (io, flusher) = coalesce(stream);
    let mut handshake = std::pin::pin!(settings::server().handshake(io));
    let connection = poll_fn(|cx| {
        let ready = handshake.as_mut().poll(cx);
        // Our SETTINGS have to leave before the client's preface is there.
        match flusher.poll_flush(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(None),
            _ => ready.map(Result::ok),
        }
    });
    // A client that cannot even say hello is told so by the protocol.
    if let Some(connection) = connection.await {
        run(network, drained, connection, flusher).await;
    }
}

async fn run(
    network: Arc<dyn Network>,
    drained: impl Future<Output = ()>,
    mut connection: Connection<Coalesce<TcpStream>, Bytes>,
    flusher: Flusher<TcpStream>,
) {
    let mut drained = std::pin::pin!(drained);
    let mut is_closing = false;
    loop {
        let accepted = poll_fn(|cx| {
            if !is_closing && drained.as_mut().poll(cx).is_ready() {
                is_closing = true;
                connection.graceful_shutdown();
            }
            if let Poll::Ready(accepted) = connection.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
            match ready!(flusher.poll_flush(cx)) {
                Ok(()) => Poll::Pending,
                // The client is gone.
                Err(_) => Poll::Ready(None),
            }
        });
        match accepted.await {
            Some(Ok((request, respond))) => {
                tokio::spawn(serve_stream(network.clone(), request, respond));
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "an HTTP/2 connection of a client ended");
                return;
            }
            None => return,
        }
    }
}

async fn serve_stream(
    network: Arc<dyn Network>,
    request: http::Request<h2::RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let (parts, body) = request.into_parts();
    let mut client = Client2::new(Receiving::new(body), respond);
    match read_head(parts, &client.receiving) {
        Ok(request) => match exchange::exchange(&network, &mut client, request).await {
            After::Responded => {}
            After::Aborted | After::Upgraded(..) => client.abort(),
        },
        Err(malformed) => {
            exchange::refuse(&*network, &mut client, HttpProtocol::Http2, malformed).await;
        }
    }
}

/// The head of a request, where it is one for us.
fn read_head(mut parts: http::request::Parts, body: &Receiving) -> Result<Request, Malformed> {
    if parts.method == Method::CONNECT {
        return Err(Malformed::Target);
    }
    let target = parts.uri.path_and_query().ok_or(Malformed::Target)?.clone();
    let host = parts.headers.remove(HOST).map(|host| Bytes::copy_from_slice(host.as_bytes()));
    let authority = parts.uri.authority().map(|it| Bytes::copy_from_slice(it.as_str().as_bytes()));
    // RFC 9113, section 8.3.1: two that differ may be read differently.
    if let (Some(host), Some(authority)) = (&host, &authority)
        && host != authority
    {
        return Err(Malformed::Host);
    }
    let authority = authority.or(host).ok_or(Malformed::Host)?;
    if authority.contains(&b'@') {
        return Err(Malformed::Host);
    }
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
    let framing = match length {
        _ if body.is_empty() => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    };
    Ok(Request {
        version: Version::Http2,
        method: parts.method,
        target,
        authority,
        headers: parts.headers,
        framing,
        upgrade: None,
    })
}

/// The client of one stream.
struct Client2 {
    receiving: Receiving,
    respond: SendResponse<Bytes>,
    /// The response's body, once its head was sent and unless it has none.
    sending: Option<Sending>,
    /// The client wants no more.
    is_gone: bool,
}

impl Client2 {
    fn new(receiving: Receiving, respond: SendResponse<Bytes>) -> Self {
        Self { receiving, respond, sending: None, is_gone: false }
    }

    /// Ends the stream so that the client does not take what it got for a whole response.
    fn abort(&mut self) {
        match &mut self.sending {
            Some(sending) => sending.reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}

fn head_of(response: Response) -> http::Response<()> {
    let mut head = http::Response::new(());
    *head.status_mut() = StatusCode::clone(&response.status);
    *head.version_mut() = Http::HTTP_2;
    *head.headers_mut() = response.headers;
    head
}

impl Client for Client2 {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Gone>> {
        self.receiving.poll_frame(cx).map_err(|_| Gone::Left)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        self.receiving.stock(cx);
        let is_reset = match &mut self.sending {
            Some(sending) => sending.poll_reset(cx).is_ready(),
            None => self.respond.poll_reset(cx).is_ready(),
        };
        if is_reset || self.is_gone { Poll::Ready(Gone::Left) } else { Poll::Pending }
    }

    fn inform(&mut self, response: Response) {
        // A client that is gone is noticed elsewhere.
        let _ = self.respond.send_informational(head_of(response));
    }

    fn respond(&mut self, response: Response) {
        let is_end = response.framing.is_empty();
        match self.respond.send_response(head_of(response), is_end) {
            Ok(stream) => self.sending = (!is_end).then(|| Sending::new(stream)),
            Err(_) => self.is_gone = true,
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match &mut self.sending {
            Some(sending) => sending.poll_room(cx).map_err(|_| Gone::Left),
            None => Poll::Ready(Ok(())),
        }
    }

    fn send(&mut self, frame: Frame) {
        if let Some(sending) = &mut self.sending {
            sending.send(frame);
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        match &mut self.sending {
            Some(sending) => sending.poll_flush(cx).map_err(|_| Gone::Left),
            None => Poll::Ready(Ok(())),
        }
    }
}
