//! Connections that go on with another protocol, WebSocket most of all: bytes both ways.

use std::{future::poll_fn, sync::Arc, task::Poll};

use bytes::Bytes;
use http::{StatusCode, header::CONTENT_LENGTH};

use super::{
    message::{Client, Request, Response, Version},
    trouble::Trouble,
    upstream::Upstream,
    websocket::{self, Opening},
};
use crate::proxy::{
    meter::Meters,
    record::Record,
    relay::{End, Transferred, relay},
};

/// A client whose request was answered with a change of protocol.
pub(super) trait Switched: Client {
    /// What it said behind its request.
    fn take_input(&mut self) -> Bytes;

    /// Sends bytes that are no HTTP.
    fn pass_on(&mut self, bytes: Bytes);

    /// The side of a relay that it is, after everything has left.
    fn into_end(self) -> End;

    /// Ends the connection so that the client does not take what it got for all that there is.
    fn abort(self) -> impl Future<Output = ()> + Send;
}

/// Whether both sides go on with another protocol behind `response`, which came by `version` and
/// becomes what the client is to be told.
pub(super) fn begins(
    request: &Request,
    opening: Option<&Opening>,
    version: Version,
    response: &mut Response,
) -> Result<bool, Trouble> {
    if let Some(opening) = opening {
        return opening.read(response);
    }
    let asks_for_tunnel = request.is_connect() || request.is_extended_connect();
    if asks_for_tunnel && response.status.is_success() {
        // RFC 9110, section 9.3.6: a server is not to say it, and what it says means nothing.
        response.headers.remove(CONTENT_LENGTH);
        websocket::forget_handshake_of_response(response);
        return Ok(true);
    }
    if response.status != StatusCode::SWITCHING_PROTOCOLS {
        response.upgrade = None;
        return Ok(false);
    }
    if version == Version::Http1 && request.upgrade.is_some() {
        return Ok(true);
    }
    Err(unasked())
}

/// What it is where a server switches without having been asked, or before it has the request.
pub(super) fn unasked() -> Trouble {
    Trouble::MalformedResponse("it switches protocols unasked".to_owned())
}

/// Carries both sides to their end, beginning with what either has said already.
pub(super) async fn carry(
    mut client: impl Switched,
    mut upstream: Upstream,
    mut record: Record,
    meters: &Arc<Meters>,
) {
    let meter = record.carried(meters);
    let (from_server, from_client) = (upstream.take_input(), client.take_input());
    let (sent, received) = meter.directions();
    sent.add(from_client.len());
    received.add(from_server.len());
    client.pass_on(from_server);
    upstream.pass_on(from_client);
    let passed_on = poll_fn(|cx| {
        if let Poll::Ready(reason) = upstream.poll_revoked(cx) {
            return Poll::Ready(Err(Some(reason)));
        }
        let (to_client, to_server) = (client.poll_flush(cx), upstream.poll_flush(cx));
        match (to_client, to_server) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(Err(None)),
            _ => Poll::Pending,
        }
    });
    if let Err(revoked) = passed_on.await {
        let (from_client, to_client) = (sent.get(), received.get());
        let broken = Some("a side broke before the other protocol began".to_owned());
        record.end(Transferred { from_client, to_client, broken, revoked });
        return client.abort().await;
    }
    let life = upstream.life();
    let (upstream, leash) = upstream.into_end();
    let mut moved = relay(client.into_end(), upstream, leash, meter).await;
    moved.revoked = moved.revoked.or_else(|| life?.revoked());
    record.end(moved);
}
