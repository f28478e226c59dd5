//! An HTTP/1.1 connection to an endpoint: one exchange at a time, kept for more.

use std::{
    io,
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use bytes::Bytes;
use http::Method;

use super::{
    message::{Request, Response},
    transport::Transport,
    wire::{Broken, Wire},
};
use crate::{
    http1::{Frame, Persistence, read_response, take_hop_by_hop, write_request},
    proxy::{relay::End, revoke::Leash},
};

/// The connection.
pub(in crate::proxy) struct Upstream1 {
    wire: Wire,
    leash: Leash,
    /// What policies that only audit would have refused it for.
    pub(super) audit: Option<String>,
    method: Method,
    /// Whether another request was answered on it before.
    pub(super) is_reused: bool,
    /// Whether anything of the response has arrived.
    has_answered: bool,
    /// Whether the server lets it live.
    keep_alive: bool,
    /// Whether all of the request was sent.
    is_sent: bool,
    pub(super) idle_since: Instant,
}

impl Upstream1 {
    pub(super) fn new(transport: Transport, leash: Leash, audit: Option<String>) -> Self {
        Self {
            wire: Wire::new(transport),
            leash,
            audit,
            method: Method::GET,
            is_reused: false,
            has_answered: false,
            keep_alive: true,
            is_sent: true,
            idle_since: Instant::now(),
        }
    }

    /// Whether another exchange may begin on it: the last one is whole, the server has neither
    /// closed it nor said anything since, and it still has its right.
    pub(super) fn is_good(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.keep_alive
            && self.is_sent
            && self.wire.is_body_read()
            && self.wire.input.is_empty()
            && self.wire.output.is_empty()
            && self.leash.poll_end(&mut cx).is_pending()
            && self.wire.poll_fill(&mut cx).is_pending()
    }

    /// Whether the server may have answered already.
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered
    }

    pub(super) fn send_head(&mut self, request: &Request) {
        self.method.clone_from(&request.method);
        (self.has_answered, self.is_sent) = (false, false);
        let persistence = Persistence { keep_alive: true, upgrade: request.upgrade.clone() };
        let out = self.wire.output.text();
        let Request { method, target, authority, headers, framing, .. } = request;
        write_request(out, method, target, authority, headers, *framing, &persistence);
        self.wire.begin_body(*framing);
    }

    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_room(cx)
    }

    pub(super) fn send(&mut self, frame: Frame) {
        self.is_sent = matches!(frame, Frame::End(_));
        self.wire.send(frame);
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_flush(cx)
    }

    /// Tells the server that the client sends no more.
    pub(super) fn end_write(&mut self) {
        self.keep_alive = false;
        // Where it is closed there is nobody to tell, and reading says why.
        let _ = self.wire.transport.end_write();
    }

    /// The head of the next response, which may be an informational one.
    pub(super) fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response, Broken>> {
        let mut head = loop {
            let Wire { heads, input, .. } = &mut self.wire;
            let head = read_response(heads, input, &self.method).map_err(Broken::Malformed)?;
            if let Some(head) = head {
                break head;
            }
            if !ready!(self.wire.poll_fill(cx)).map_err(Broken::Io)? {
                return Poll::Ready(Err(Broken::Io(io::ErrorKind::UnexpectedEof.into())));
            }
            self.has_answered = true;
        };
        let Persistence { keep_alive, upgrade } = take_hop_by_hop(&mut head.headers, head.version);
        if !head.status.is_informational() {
            self.keep_alive &= keep_alive && !head.framing.ends_with_connection();
            self.wire.expect_body(head.framing);
        }
        Poll::Ready(Ok(Response {
            status: head.status,
            reason: head.reason,
            headers: head.headers,
            framing: head.framing,
            upgrade,
        }))
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Broken>> {
        self.wire.poll_body(cx)
    }

    /// Takes in what arrives, where the client takes nothing now.
    pub(super) fn stock(&mut self, cx: &mut Context<'_>) {
        self.wire.transport.stock(cx);
    }

    /// Ready once the connection has lost its right; says why.
    pub(super) fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        ready!(self.leash.poll_end(cx));
        Poll::Ready(self.leash.take_reason().unwrap_or_default())
    }

    /// What the server said behind its response.
    pub(super) fn take_input(&mut self) -> Bytes {
        let mut input = self.wire.input.split();
        input.extend_from_slice(&self.wire.transport.take_stock());
        input.freeze()
    }

    /// Sends bytes that are no HTTP.
    pub(super) fn pass_on(&mut self, bytes: Bytes) {
        self.wire.output.push(bytes);
    }

    pub(super) fn into_end(self) -> (End, Leash) {
        (self.wire.transport.into_end(), self.leash)
    }
}
