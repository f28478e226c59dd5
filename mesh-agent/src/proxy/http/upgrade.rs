//! Connections that go on with another protocol, WebSocket most of all: bytes both ways.

use std::{future::poll_fn, io, sync::Arc, task::Poll};

use tokio::io::AsyncWriteExt;

use super::{client1::Client1, message::Client, transport::Transport, upstream1::Upstream1};
use crate::proxy::{
    meter::{Meter, Meters},
    record::Record,
    relay::{self, Transferred},
};

/// Carries both sides to their end, beginning with what either has said already.
pub(super) async fn carry(
    mut client: Client1,
    mut upstream: Box<Upstream1>,
    mut record: Record,
    meters: &Arc<Meters>,
) {
    client.pass_on(upstream.take_input());
    upstream.pass_on(client.take_input());
    let passed_on = poll_fn(|cx| {
        let (to_client, to_server) = (client.poll_flush(cx), upstream.poll_flush(cx));
        match (to_client, to_server) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(true),
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(false),
            _ => Poll::Pending,
        }
    });
    if !passed_on.await {
        return client.abort().await;
    }
    let meter = record.carried(meters);
    record.end(relay(client.into_transport(), *upstream, meter).await.unwrap_or_default());
}

async fn relay(client: Transport, upstream: Upstream1, meter: Meter) -> io::Result<Transferred> {
    // Clients are not reached through tunnels.
    let Transport::Tcp(mut client) = client else { return Ok(Transferred::default()) };
    let (transport, leash) = upstream.into_parts();
    match transport {
        Transport::Tcp(upstream) => Ok(relay::tcp::relay(client, upstream, leash, meter).await),
        Transport::Tunnel(tunnelled) => {
            let (stream, first) = tunnelled.into_stream();
            client.write_all(&first).await?;
            Ok(relay::tunnel::relay(client, stream, leash, meter).await)
        }
    }
}
