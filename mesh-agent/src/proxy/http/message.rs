//! Messages as all versions of HTTP have them, and the client's side of an exchange.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, uri::PathAndQuery};
use mesh_common::matching::protocol;

use crate::http1::{Frame, Framing};

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Version {
    /// HTTP/1.1, and HTTP/1.0.
    Http1,
    /// HTTP/2 without TLS.
    Http2,
}

/// The head of a request, without what is for a hop alone.
#[derive(Debug)]
pub(in crate::proxy) struct Request {
    pub(in crate::proxy) version: Version,
    pub(in crate::proxy) method: Method,
    /// The path and query, or `*`.
    pub(in crate::proxy) target: PathAndQuery,
    /// The host, and the port if there is one.
    pub(in crate::proxy) authority: Bytes,
    pub(in crate::proxy) headers: HeaderMap,
    /// How long the body is; of one whose length nobody knows, `Chunked`.
    pub(in crate::proxy) framing: Framing,
    /// The protocol that the client wants to go on with; in HTTP/2 by an extended CONNECT.
    pub(in crate::proxy) upgrade: Option<HeaderValue>,
}

/// The head of a response, without what is for a hop alone.
#[derive(Debug)]
pub(in crate::proxy) struct Response {
    pub(in crate::proxy) status: StatusCode,
    /// What was said of the status; HTTP/2 says nothing.
    pub(in crate::proxy) reason: Bytes,
    pub(in crate::proxy) headers: HeaderMap,
    /// How long the body is; of one whose length nobody knows, `Chunked` or `UntilClose`.
    pub(in crate::proxy) framing: Framing,
    /// The protocol that the server goes on with.
    pub(in crate::proxy) upgrade: Option<HeaderValue>,
}

impl Request {
    /// The same once more, without a wish for another protocol.
    pub(in crate::proxy) fn copy(&self) -> Self {
        Self {
            version: self.version,
            method: self.method.clone(),
            target: self.target.clone(),
            authority: self.authority.clone(),
            headers: self.headers.clone(),
            framing: self.framing,
            upgrade: None,
        }
    }

    /// Whether it asks for a tunnel, which begins behind the response.
    pub(in crate::proxy) fn is_connect(&self) -> bool {
        self.method == Method::CONNECT
    }

    /// Whether it came as an extended CONNECT (RFC 8441), which asks for what a GET with an upgrade
    /// asks for in HTTP/1.1, and is here one.
    pub(in crate::proxy) fn is_extended_connect(&self) -> bool {
        self.version == Version::Http2 && self.upgrade.is_some()
    }

    /// Whether it is a call of gRPC, whose errors are told in another way.
    pub(in crate::proxy) fn is_grpc(&self) -> bool {
        protocol::is_grpc(&self.headers)
    }
}

/// The client is gone, or has cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Gone {
    /// It went away.
    Left,
    /// What it sent cannot be read.
    Malformed(crate::http1::Malformed),
}

/// The client's side of one exchange. Nothing here waits but by polling, so that both directions
/// go on in one task.
pub(in crate::proxy) trait Client: Send {
    /// The next piece of the request's body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Gone>>;

    /// Takes in what comes behind the request, or while nobody wants its body; ready once the
    /// client is gone.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone>;

    /// Whether the client has said that nothing more comes from it, though it may still listen.
    fn is_half_closed(&self) -> bool {
        false
    }

    /// Sends the head of a response with an informational status; others follow.
    fn inform(&mut self, response: Response);

    /// Sends the head of the response.
    fn respond(&mut self, response: Response);

    /// The same of a response behind which another protocol follows.
    fn switch(&mut self, response: Response) {
        self.respond(response);
    }

    /// Ready once the client may be given more.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>>;

    /// Sends a piece of the response's body, after [`poll_room`](Self::poll_room) was ready.
    fn send(&mut self, frame: Frame);

    /// Ready once everything has left.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>>;
}
