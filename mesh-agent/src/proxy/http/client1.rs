//! A client that speaks HTTP/1.1: requests of one connection, one after the other.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Version as Http};
use tokio::{
    net::TcpStream,
    time::{self, Instant},
};

use super::{
    message::{Client, Gone, Request, Response, Version},
    transport::Transport,
    upgrade::Switched,
    wire::{Broken, Wire},
};
use crate::{
    http1::{
        Frame, Framing, Malformed, Persistence, read_request, take_hop_by_hop, write_response,
    },
    proxy::relay::{self, End},
};

/// How long what a client still sends is read and forgotten after the last response: closing
/// with anything unread would reset the connection, and the client might lose the response.
const LINGER: Duration = Duration::from_secs(2);

/// The client of one connection.
pub(in crate::proxy) struct Client1 {
    wire: Wire,
    /// What the client said of its connection in the current request.
    is_http10: bool,
    keep_alive: bool,
    /// Whether the response under way ends with the connection.
    ends_with_connection: bool,
}

/// Why there is no next request.
#[derive(Debug)]
pub(in crate::proxy) enum NoRequest {
    /// The client closed the connection, or it broke.
    Closed,
    /// What came is no request; the connection cannot go on.
    Malformed(Malformed),
}

impl Client1 {
    pub(in crate::proxy) fn new(stream: TcpStream) -> Self {
        Self {
            wire: Wire::new(Transport::Tcp(stream)),
            is_http10: false,
            keep_alive: true,
            ends_with_connection: false,
        }
    }

    /// Waits for the head of the next request.
    pub(in crate::proxy) async fn next(&mut self) -> Result<Request, NoRequest> {
        let mut head = loop {
            let Wire { heads, input, .. } = &mut self.wire;
            if let Some(head) = read_request(heads, input).map_err(NoRequest::Malformed)? {
                break head;
            }
            match poll_fn(|cx| self.wire.poll_fill(cx)).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return Err(NoRequest::Closed),
            }
        };
        let Persistence { keep_alive, upgrade } = take_hop_by_hop(&mut head.headers, head.version);
        self.is_http10 = head.version == Http::HTTP_10;
        // HTTP/1.0 needs to be told that a connection stays, which few clients ask for today.
        self.keep_alive = keep_alive && !self.is_http10;
        self.ends_with_connection = false;
        self.wire.expect_body(head.framing);
        // It goes on with another protocol by itself.
        let is_connect = head.method == Method::CONNECT;
        Ok(Request {
            version: Version::Http1,
            method: head.method,
            target: head.target,
            authority: head.host,
            headers: head.headers,
            framing: head.framing,
            upgrade: upgrade.filter(|_| !is_connect),
        })
    }

    /// Ends the connection behind the current response.
    pub(in crate::proxy) fn close_after_response(&mut self) {
        self.keep_alive = false;
    }

    /// Whether another request may follow: the current one was read to its end.
    pub(in crate::proxy) fn may_go_on(&self) -> bool {
        self.keep_alive && !self.ends_with_connection && self.wire.is_body_read()
    }

    /// Ends the connection so that the client gets what was written.
    pub(in crate::proxy) async fn close(mut self) {
        let ended = async {
            poll_fn(|cx| self.wire.poll_flush(cx)).await?;
            self.wire.transport.end_write()?;
            while poll_fn(|cx| self.wire.poll_fill(cx)).await? {
                self.wire.input.clear();
            }
            io::Result::Ok(())
        };
        // A client that is gone, or sends on and on, gets no more.
        let _ = time::timeout(LINGER, ended).await;
    }

    /// Ends the connection so that the client does not take what it got for a whole response, but
    /// gets that much.
    pub(in crate::proxy) async fn abort(mut self) {
        let deadline = Instant::now() + LINGER;
        // A client that is gone, or reads nothing, gets no more.
        let _ = time::timeout_at(deadline, poll_fn(|cx| self.wire.poll_flush(cx))).await;
        if let Transport::Tcp(stream) = &self.wire.transport {
            relay::sent(stream, deadline).await;
        }
        self.wire.transport.reset();
    }

    fn write_head(&mut self, response: Response, framing: Framing) {
        let persistence = Persistence { keep_alive: self.keep_alive, upgrade: response.upgrade };
        let Response { status, reason, headers, .. } = response;
        let reason: &[u8] = match status.canonical_reason() {
            Some(canonical) if reason.is_empty() => canonical.as_bytes(),
            _ => &reason,
        };
        let out = self.wire.output.text();
        write_response(out, status, reason, &headers, framing, &persistence);
    }
}

impl Client for Client1 {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Gone>> {
        self.wire.poll_body(cx).map_err(|broken| match broken {
            Broken::Io(_) => Gone::Left,
            Broken::Malformed(malformed) => Gone::Malformed(malformed),
        })
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        self.wire.poll_broken(cx).map(|_| Gone::Left)
    }

    fn is_half_closed(&self) -> bool {
        self.wire.is_ended && self.wire.input.is_empty()
    }

    fn inform(&mut self, response: Response) {
        // RFC 9110, section 15.2: HTTP/1.0 knows none of these.
        if !self.is_http10 {
            let keep_alive = std::mem::replace(&mut self.keep_alive, true);
            self.write_head(response, Framing::None);
            self.keep_alive = keep_alive;
        }
    }

    fn respond(&mut self, response: Response) {
        let framing = match response.framing {
            Framing::Chunked | Framing::UntilClose if self.is_http10 => Framing::UntilClose,
            Framing::UntilClose => Framing::Chunked,
            framing => framing,
        };
        self.ends_with_connection = framing == Framing::UntilClose;
        self.write_head(response, framing);
        self.wire.begin_body(framing);
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(ready!(self.wire.poll_room(cx)).map_err(|_| Gone::Left))
    }

    fn send(&mut self, frame: Frame) {
        self.wire.send(frame);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.wire.poll_flush(cx).map_err(|_| Gone::Left)
    }
}

impl Switched for Client1 {
    fn take_input(&mut self) -> Bytes {
        self.wire.input.split().freeze()
    }

    fn pass_on(&mut self, bytes: Bytes) {
        self.wire.output.push(bytes);
    }

    fn into_end(self) -> End {
        self.wire.transport.into_end()
    }

    async fn abort(self) {
        Self::abort(self).await;
    }
}
