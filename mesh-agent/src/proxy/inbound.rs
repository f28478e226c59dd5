//! Plaintext that reaches a captured pod whose policies, or strict ports, need a verdict.
//!
//! There is no certificate, so there is no identity: only a rule that asks for none lets it
//! through.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;

use super::{
    deliver,
    failure::Failure,
    pod::ServedPod,
    record::Record,
    relay,
    revoke::{Leash, Right},
    worker::Context,
};
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

    let connected = tokio::select! {
        connected = connect(&context, &pod, destination, peer, &mut record) => connected,
        _ = relay::failure(&client) => Err(Failure::CallerLeft),
        () = pod.gone() => Err(Failure::PodGone),
    };
    match connected {
        Ok((application, mut leash)) => {
            leash.hold_to(&pod);
            let meter = record.carried(&context.meters);
            record.end(relay::tcp::relay(client, application, leash, meter).await);
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
    record: &mut Record,
) -> Result<(TcpStream, Leash), Failure> {
    let shared = &context.shared;
    pod.offers(destination)?;
    let callee = shared.workload_of(pod, destination)?;
    let right = Right { source: None, from: peer.ip(), callee, to: destination };
    let leash = context.rights.hold(right.clone());
    record.audit(right.judge(&shared.snapshot)?);
    let connected = deliver::connect(&shared.sockets, pod, destination, peer.ip()).await;
    connected
        .map(|application| (application, leash))
        .map_err(|error| Failure::connect(destination, &error))
}
