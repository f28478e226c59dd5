//! Connections that a captured pod opens.
//!
//! The listener that a connection arrives on is in the pod's own network namespace: that alone
//! says who calls. The kernel published where it was going.

use std::{net::SocketAddr, sync::Arc};

use mesh_common::{
    bpf::ConnectionKey,
    model::{PeerMode, Workload},
};
use tokio::net::TcpStream;

use super::{
    denied::Denied,
    dial,
    failure::Failure,
    hbone,
    pod::ServedPod,
    record::Record,
    relay,
    revoke::{Leash, Right},
    route::{self, Upstream, Via},
    worker::Context,
};
use crate::{
    capture::enroll::Pod,
    observe::flow::{Reporter, Security},
};

/// An upstream that answered.
enum Connected {
    Tcp(TcpStream, Leash),
    Tunnel(hbone::Stream),
}

/// Carries one captured connection to its end.
pub(super) async fn serve(
    context: Arc<Context>,
    pod: Arc<ServedPod>,
    client: TcpStream,
    peer: SocketAddr,
) {
    let _guard = pod.enter();
    let mut record = Record::start(&context.shared, Reporter::Source);
    record.source_pod(&pod.pod, peer);
    let Some(destination) = original_destination(&context, &pod, &client, peer) else {
        context.shared.observer.unknown_origin();
        relay::reset(client);
        return;
    };
    record.destination_address(destination);

    let connected = tokio::select! {
        connected = connect(&context, &pod, destination, &mut record) => connected,
        _ = relay::failure(&client) => Err(Failure::CallerLeft),
        () = pod.gone() => Err(Failure::PodGone),
    };
    let connected = match connected {
        Ok(connected) => connected,
        Err(failure) => {
            relay::reset(client);
            return record.fail(failure);
        }
    };
    let meter = record.carried(&context.meters);
    record.end(match connected {
        Connected::Tcp(upstream, mut leash) => {
            leash.hold_to(&pod);
            relay::tcp::relay(client, upstream, leash, meter).await
        }
        Connected::Tunnel(stream) => {
            // The far proxy judges, and ends what loses its right.
            let mut leash = Leash::default();
            leash.hold_to(&pod);
            relay::tunnel::relay(client, stream, leash, meter).await
        }
    });
}

/// Where the application was going; `None` where the kernel published nothing, which is what a
/// connection made straight to the listener looks like.
fn original_destination(
    context: &Context,
    pod: &ServedPod,
    client: &TcpStream,
    peer: SocketAddr,
) -> Option<SocketAddr> {
    let local = client.local_addr().ok()?;
    let key = ConnectionKey::new(pod.pod.netns.cookie(), peer, local);
    match context.shared.sockets.take_original_destination(&key) {
        Ok(destination) => destination,
        Err(error) => {
            tracing::warn!(pod = %pod.pod.name, %error, "cannot read an original destination");
            None
        }
    }
}

async fn connect(
    context: &Context,
    pod: &ServedPod,
    destination: SocketAddr,
    record: &mut Record,
) -> Result<Connected, Failure> {
    let shared = &*context.shared;
    let is_answered = shared.snapshot.interest().ask(destination.ip()).await;
    let asked = shared.denials.ask();
    let route = route::choose(shared, destination);
    if route.is_unknown() && !is_answered {
        if is_strict(context, pod) {
            return Err(Failure::Unanswered(destination.ip()));
        }
        record.caveat("the controller does not say who has the address: taken for outside");
    }
    let mut failure = Failure::NoEndpoint;
    if let Some(service) = &route.service {
        record.service(service.clone());
    }
    for upstream in &route.upstreams {
        record.upstream(upstream);
        match try_upstream(context, pod, upstream, record).await {
            Ok(connected) => return Ok(connected),
            Err(failed) if failed.is_retriable() => failure = failed,
            Err(failed) => {
                if let Failure::Denied(reason) = &failed {
                    let route = &route;
                    Denied { shared, caller: pod, destination, route, upstream, asked }
                        .remember(record.denial(reason));
                }
                return Err(failed);
            }
        }
    }
    Err(failure)
}

/// Whether the caller takes no plaintext itself, and so is not to speak it to what may be a pod.
fn is_strict(context: &Context, caller: &ServedPod) -> bool {
    let own = caller.pod.addresses.first();
    let workload = own.and_then(|own| context.shared.snapshot.workload_at(*own));
    workload
        .is_some_and(|it| it.uid == caller.pod.uid && it.admission.peer_mode == PeerMode::Strict)
}

async fn try_upstream(
    context: &Context,
    pod: &ServedPod,
    upstream: &Upstream,
    record: &mut Record,
) -> Result<Connected, Failure> {
    let sockets = &context.shared.sockets;
    let address = upstream.address;
    match (&upstream.via, &upstream.workload) {
        (Via::SameNode(callee), Some(workload)) => {
            record.security(Security::Local);
            let leash = judge(context, pod, workload, address, record)?;
            let admit = callee.pod.netns.cookie();
            let connected = dial::connect(sockets, &pod.pod, address, admit).await;
            connected
                .map(|upstream| Connected::Tcp(upstream, leash))
                .map_err(|error| Failure::connect(address, &error))
        }
        (Via::Tunnel, Some(workload)) => {
            record.security(Security::Mtls);
            hbone::client::connect(context, pod, workload, address).await.map(Connected::Tunnel)
        }
        _ => {
            record.security(Security::Plaintext);
            let connected = dial::connect(sockets, &pod.pod, address, 0).await;
            let unjudged = |upstream| Connected::Tcp(upstream, Leash::default());
            connected.map(unjudged).map_err(|error| Failure::connect(address, &error))
        }
    }
}

/// On the same node this proxy decides for the callee too. The listener proved the caller, so it
/// counts as authenticated where the callee is strict.
fn judge(
    context: &Context,
    caller: &ServedPod,
    callee: &Arc<Workload>,
    to: SocketAddr,
    record: &mut Record,
) -> Result<Leash, Failure> {
    let right = right(caller, callee, to);
    let leash = context.rights.hold(right.clone());
    record.audit(right.judge(&context.shared.snapshot)?);
    Ok(leash)
}

/// What `caller` needs to call `callee`, a pod of the same node, at `to`.
pub(super) fn right(caller: &ServedPod, callee: &Arc<Workload>, to: SocketAddr) -> Right {
    let Pod { identity, addresses, .. } = &*caller.pod;
    let own = addresses.iter().find(|own| own.is_ipv4() == to.is_ipv4());
    let from = own.copied().unwrap_or(to.ip());
    Right { source: Some(identity.clone()), from, callee: callee.clone(), to }
}
