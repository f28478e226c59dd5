//! A client that speaks HTTP/2: each stream is an exchange of its own.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{
    Reason,
    ext::Protocol,
    server::{Connection, SendResponse},
};
use http::{
    HeaderValue, Method, StatusCode, Version as Http,
    header::{CONTENT_LENGTH, HOST},
    uri::PathAndQuery,
};
use tokio::net::TcpStream;

use super::{
    exchange::{self, After},
    message::{Client, Gone, Request, Response, Version},
    network::Network,
    settings,
    stream2::{Receiving, Sending},
    upgrade::{self, Switched},
    websocket,
};
use crate::{
    http1::{Frame, Framing, Malformed, is_place},
    observe::flow::HttpProtocol,
    proxy::{
        hbone::{
            Stream,
            coalesce::{Coalesce, Flusher, coalesce},
        },
        relay::{End, Peer},
    },
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
    let request = read_head(parts, &client.receiving);
    client.tunnel = request.as_ref().ok().and_then(reset_of);
    match request {
        Ok(request) => match exchange::exchange(&network, &mut client, request).await {
            After::Responded => {}
            After::Aborted => client.reset(Reason::INTERNAL_ERROR),
            After::Upgraded(upstream, record) => {
                upgrade::carry(client, upstream, *record, network.meters()).await;
            }
        },
        Err(malformed) => {
            exchange::refuse(&*network, &mut client, HttpProtocol::Http2, malformed).await;
        }
    }
}

/// The head of a request, where it is one for us.
fn read_head(mut parts: http::request::Parts, body: &Receiving) -> Result<Request, Malformed> {
    let protocol = parts.extensions.remove::<Protocol>();
    let is_tunnel = parts.method == Method::CONNECT;
    let host = parts.headers.remove(HOST).map(|host| Bytes::copy_from_slice(host.as_bytes()));
    let authority = parts.uri.authority().map(|it| Bytes::copy_from_slice(it.as_str().as_bytes()));
    // RFC 9113, section 8.3.1: two that differ may be read differently.
    if let (Some(host), Some(authority)) = (&host, &authority)
        && host != authority
    {
        return Err(Malformed::Host);
    }
    if is_tunnel && parts.headers.contains_key(CONTENT_LENGTH) {
        return Err(Malformed::ConnectBody);
    }
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
    let framing = match length {
        // What follows the head is the tunnel's.
        _ if body.is_empty() || is_tunnel => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    };
    let (target, authority) = if is_tunnel && protocol.is_none() {
        // RFC 9113, section 8.5: no more than a host and a port.
        let place = authority.filter(is_place).ok_or(Malformed::Target)?;
        (PathAndQuery::from_static("/"), place)
    } else {
        let authority = authority.or(host).ok_or(Malformed::Host)?;
        if authority.contains(&b'@') {
            return Err(Malformed::Host);
        }
        (parts.uri.path_and_query().ok_or(Malformed::Target)?.clone(), authority)
    };
    let mut request = Request {
        version: Version::Http2,
        method: parts.method,
        target,
        authority,
        headers: parts.headers,
        framing,
        upgrade: None,
    };
    if let Some(protocol) = protocol {
        extend(&mut request, protocol.as_str())?;
    }
    Ok(request)
}

/// Makes of an extended CONNECT what HTTP/1.1 asks instead.
fn extend(request: &mut Request, protocol: &str) -> Result<(), Malformed> {
    if !request.target.as_str().starts_with('/') {
        return Err(Malformed::Target);
    }
    request.method = Method::GET;
    request.upgrade = Some(HeaderValue::from_str(protocol).map_err(|_| Malformed::FieldValue)?);
    websocket::forget_handshake(request);
    Ok(())
}

/// How a client learns that its tunnel broke, where it asks for one: RFC 8441, section 5, and
/// RFC 9113, section 8.5.
fn reset_of(request: &Request) -> Option<Reason> {
    if request.is_extended_connect() {
        Some(Reason::CANCEL)
    } else {
        request.is_connect().then_some(Reason::CONNECT_ERROR)
    }
}

/// The client of one stream.
struct Client2 {
    receiving: Receiving,
    /// Where it asks for a tunnel, how it learns that this broke.
    tunnel: Option<Reason>,
    respond: SendResponse<Bytes>,
    /// The response's body, once its head was sent and unless it has none.
    sending: Option<Sending>,
    /// The client wants no more.
    is_gone: bool,
}

impl Client2 {
    fn new(receiving: Receiving, respond: SendResponse<Bytes>) -> Self {
        Self { receiving, tunnel: None, respond, sending: None, is_gone: false }
    }

    /// Ends the stream so that the client does not take what it got for all that there is.
    fn reset(&mut self, reason: Reason) {
        match &mut self.sending {
            Some(sending) => sending.reset(reason),
            None => self.respond.send_reset(reason),
        }
    }

    fn send_head(&mut self, response: Response, is_end: bool) {
        match self.respond.send_response(head_of(response), is_end) {
            Ok(stream) => self.sending = (!is_end).then(|| Sending::new(stream)),
            Err(_) => self.is_gone = true,
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
        if self.tunnel.is_some() {
            return Poll::Ready(Ok(Frame::End(None)));
        }
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
        self.send_head(response, is_end);
    }

    fn switch(&mut self, response: Response) {
        self.send_head(response, false);
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

impl Switched for Client2 {
    fn take_input(&mut self) -> Bytes {
        self.receiving.take_all()
    }

    fn pass_on(&mut self, bytes: Bytes) {
        self.send(Frame::Data(bytes));
    }

    fn into_end(self) -> End {
        let send = self.sending.expect("its response has left, and has no end").into_stream();
        let stream = Stream { send, receive: self.receiving.into_stream(), lease: None };
        End::Stream(stream, Peer::Client(self.tunnel.expect("it asked for a tunnel")))
    }

    async fn abort(mut self) {
        self.reset(self.tunnel.unwrap_or(Reason::INTERNAL_ERROR));
    }
}
