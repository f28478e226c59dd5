//! Plaintext that reaches a captured pod whose policies need a verdict.
//!
//! There is no certificate, so there is no identity: only a rule that asks for none lets it
//! through.

use std::{net::SocketAddr, sync::Arc};

use mesh_common::matching::authorization::Request;
use tokio::net::TcpStream;

use super::{deliver, failure::Failure, pod::ServedPod, record::Record, relay, worker::Context};
use crate::observe::flow::{Reporter, Security};

/// Judges and carries one plaintext connection.
pub(super) async fn serve(
    context: Arc<Context>,
    pod: Arc<ServedPod>,
    client: TcpStream,
    peer: SocketAddr,
) {
    let _guard = pod.enter();
    let mut record = Record::start(&context.shared, Reporter::Destination);
    record.source_address(&context.shared, peer);
    record.security(Security::Plaintext);
    // The pod's sk_lookup program chose this listener for an address that is the pod's own.
    let Ok(destination) = client.local_addr() else { return relay::reset(client) };
    record.destination_pod(&pod.pod, destination);

    match connect(&context, &pod, destination, peer).await {
        Ok(application) => {
            record.carried();
            record.end(relay::tcp::relay(client, application).await);
        }
        Err(failure) => {
            relay::reset(client);
            record.fail(failure);
        }
    }
}

async fn connect(
    context: &Context,
    pod: &ServedPod,
    destination: SocketAddr,
    peer: SocketAddr,
) -> Result<TcpStream, Failure> {
    pod.offers(destination)?;
    let shared = &context.shared;
    let request = Request { source: None, port: destination.port() };
    let workload = shared.workload_of(pod, destination)?;
    let verdict = shared.snapshot.authorize(&workload, request);
    if !verdict.is_allowed() {
        return Err(Failure::Denied(verdict.to_string()));
    }
    deliver::connect(&shared.sockets, pod, destination, peer.ip())
        .await
        .map_err(|error| Failure::connect(destination, &error))
}
