//! The server's side of an exchange.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::{
    message::{Request, Response},
    upstream1::Upstream1,
    upstream2::{Life, Upstream2},
    wire::Broken,
};
use crate::{
    http1::Frame,
    proxy::{relay::End, revoke::Leash},
};

/// A connection, or a place on one, for one request.
pub(in crate::proxy) enum Upstream {
    Http1(Box<Upstream1>),
    Http2(Box<Upstream2>),
}

impl Upstream {
    /// What policies that only audit would have refused it for.
    pub(super) fn audit(&self) -> Option<String> {
        match self {
            Self::Http1(upstream) => upstream.audit.clone(),
            Self::Http2(upstream) => upstream.audit(),
        }
    }

    /// Whether it may end though nothing is wrong with the server, as a connection does that was
    /// used before.
    pub(super) fn is_reused(&self) -> bool {
        match self {
            Self::Http1(upstream) => upstream.is_reused,
            Self::Http2(upstream) => upstream.is_reused,
        }
    }

    /// Whether any of the response has arrived.
    pub(super) fn has_answered(&self) -> bool {
        match self {
            Self::Http1(upstream) => upstream.has_answered(),
            Self::Http2(upstream) => upstream.has_answered,
        }
    }

    /// Whether it is certain that the server has done nothing with the request.
    pub(super) fn was_refused(&self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(upstream) => upstream.was_refused,
        }
    }

    pub(super) fn send_head(&mut self, request: &Request) -> Result<(), Broken> {
        match self {
            Self::Http1(upstream) => {
                upstream.send_head(request);
                Ok(())
            }
            Self::Http2(upstream) => upstream.send_head(request),
        }
    }

    /// Ready once more of the body may be sent.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self {
            Self::Http1(upstream) => upstream.poll_room(cx).map_err(Broken::Io),
            Self::Http2(upstream) => upstream.poll_room(cx),
        }
    }

    /// Sends a piece of the request's body, after [`poll_room`](Self::poll_room) was ready.
    pub(super) fn send(&mut self, frame: Frame) {
        match self {
            Self::Http1(upstream) => upstream.send(frame),
            Self::Http2(upstream) => upstream.send(frame),
        }
    }

    /// Ready once everything has left.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match self {
            Self::Http1(upstream) => upstream.poll_flush(cx).map_err(Broken::Io),
            Self::Http2(upstream) => upstream.poll_flush(cx),
        }
    }

    /// Tells the server that its client sends no more, where the protocol can say that.
    pub(super) fn end_write(&mut self) {
        match self {
            Self::Http1(upstream) => upstream.end_write(),
            // A stream is either open to its end, or reset.
            Self::Http2(_) => {}
        }
    }

    /// The next head of a response, which may be an informational one.
    pub(super) fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response, Broken>> {
        match self {
            Self::Http1(upstream) => upstream.poll_response(cx),
            Self::Http2(upstream) => upstream.poll_response(cx),
        }
    }

    /// The next piece of the response's body.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Broken>> {
        match self {
            Self::Http1(upstream) => upstream.poll_body(cx),
            Self::Http2(upstream) => upstream.poll_body(cx),
        }
    }

    /// Takes in what arrives, where the client takes nothing now.
    pub(super) fn stock(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Http1(upstream) => upstream.stock(cx),
            Self::Http2(upstream) => upstream.stock(cx),
        }
    }

    /// Whether it can be asked for a WebSocket.
    pub(super) fn takes_extended_connect(&self) -> bool {
        match self {
            Self::Http1(_) => true,
            Self::Http2(upstream) => upstream.takes_extended_connect(),
        }
    }

    /// What the server said behind its response.
    pub(super) fn take_input(&mut self) -> Bytes {
        match self {
            Self::Http1(upstream) => upstream.take_input(),
            Self::Http2(upstream) => upstream.take_input(),
        }
    }

    /// Sends bytes that are no HTTP.
    pub(super) fn pass_on(&mut self, bytes: Bytes) {
        match self {
            Self::Http1(upstream) => upstream.pass_on(bytes),
            Self::Http2(upstream) => upstream.send(Frame::Data(bytes)),
        }
    }

    /// What is known of the connection that it is on, where others are on it too.
    pub(super) fn life(&self) -> Option<Arc<Life>> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(upstream) => Some(upstream.life()),
        }
    }

    /// The side of a relay that it is, after everything has left.
    pub(super) fn into_end(self) -> (End, Leash) {
        match self {
            Self::Http1(upstream) => upstream.into_end(),
            // Its connection has the leash.
            Self::Http2(upstream) => (upstream.into_end(), Leash::default()),
        }
    }

    /// Ready once it has lost its right; says why.
    pub(super) fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        match self {
            Self::Http1(upstream) => upstream.poll_revoked(cx),
            // Its connection has it, and says so when it ends.
            Self::Http2(_) => Poll::Pending,
        }
    }
}
