//! HTTP: every request that a captured pod sends to a Service is routed by itself.
//!
//! ```text
//! client1, client2 ── exchange ── forward ──┬─ upstream1 (pool) ──┬─ transport: TCP, or HBONE
//!                      │ routes,     │ tries └─ upstream2 (shared)─┘
//!                      │ filters     └─ transfer: both bodies, one task
//!                      └─ mirror
//! ```
//!
//! The proxy of the caller's node does all of it; that of the called pod's node relays bytes.
//! HTTP/1.1 is read with our own codec (`http1`), and one task carries a client's connection
//! together with the upstream that its request is on: while bytes move nothing is handed from one
//! task to another. HTTP/2 is the `h2` crate's; there each stream is a task.

use std::{net::SocketAddr, sync::Arc};

use mesh_common::model::Service;
use tokio::net::TcpStream;

use super::{
    pod::ServedPod,
    sniff::{self, Spoken},
    worker::Context,
};
use crate::observe::flow::HttpProtocol;

mod client1;
mod client2;
mod exchange;
mod filters;
mod forward;
mod message;
mod mirror;
mod network;
mod outgoing;
mod pool;
mod replay;
mod retries;
mod settings;
mod stream2;
mod transfer;
mod transport;
mod trouble;
mod upgrade;
mod upstream;
mod upstream1;
mod upstream2;
mod websocket;
mod wire;

use client1::{Client1, NoRequest};
use exchange::After;
use network::{Network, PodNetwork};
pub(super) use pool::Pool;
pub(super) use transfer::Moved;
pub(super) use trouble::Trouble;
pub(super) use upstream2::Pool as Streams;

/// Carries one captured connection to `destination`, a port of `service` that speaks HTTP.
pub(super) async fn serve(
    context: Arc<Context>,
    pod: Arc<ServedPod>,
    client: TcpStream,
    peer: SocketAddr,
    destination: SocketAddr,
    service: Arc<Service>,
) {
    let gone = pod.gone();
    let network: Arc<dyn Network> =
        Arc::new(PodNetwork { context, pod: pod.clone(), peer, destination, service });
    tokio::select! {
        () = serve_any(network, &pod, client) => {}
        // Dropped with all that it had open: nobody is left to be told anything.
        () = gone => {}
    }
}

async fn serve_any(network: Arc<dyn Network>, pod: &ServedPod, client: TcpStream) {
    match sniff::version(&client).await {
        Spoken::Http2 => client2::serve(network, pod.drained(), client).await,
        _ => serve1(network, &|| pod.is_draining(), client).await,
    }
}

async fn serve1(
    network: Arc<dyn Network>,
    is_draining: &(dyn Fn() -> bool + Sync),
    client: TcpStream,
) {
    let mut client = Client1::new(client);
    loop {
        let request = match client.next().await {
            Ok(request) => request,
            Err(NoRequest::Closed) => return,
            Err(NoRequest::Malformed(malformed)) => {
                client.close_after_response();
                exchange::refuse(&*network, &mut client, HttpProtocol::Http1, malformed).await;
                return client.close().await;
            }
        };
        if is_draining() {
            client.close_after_response();
        }
        match exchange::exchange(&network, &mut client, request).await {
            After::Responded if client.may_go_on() => {}
            After::Responded => return client.close().await,
            After::Aborted => return client.abort().await,
            After::Upgraded(upstream, record) => {
                return upgrade::carry(client, upstream, *record, network.meters()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
