//! Connecting to a place that a captured pod's connection or request may go to.

use std::{net::SocketAddr, sync::Arc};

use mesh_common::model::Workload;
use tokio::net::TcpStream;

use super::{
    dial,
    failure::Failure,
    hbone,
    pod::ServedPod,
    revoke::{Leash, Right},
    route::{Upstream, Via},
    worker::Context,
};
use crate::{capture::enroll::Pod, observe::flow::Security};

/// An upstream that answered.
pub(super) enum Connected {
    Tcp(TcpStream, Leash),
    Tunnel(hbone::Stream),
}

/// How what goes there is protected.
pub(super) fn security(upstream: &Upstream) -> Security {
    match (&upstream.via, &upstream.workload) {
        (Via::SameNode(_), Some(_)) => Security::Local,
        (Via::Tunnel, Some(_)) => Security::Mtls,
        _ => Security::Plaintext,
    }
}

/// Connects `pod` to `upstream`; and what policies that only audit would have refused it for.
pub(super) async fn connect(
    context: &Context,
    pod: &ServedPod,
    upstream: &Upstream,
) -> Result<(Connected, Option<String>), Failure> {
    let sockets = &context.shared.sockets;
    let address = upstream.address;
    match (&upstream.via, &upstream.workload) {
        (Via::SameNode(callee), Some(workload)) => {
            let (leash, audit) = judge(context, pod, workload, address)?;
            let admit = callee.pod.netns.cookie();
            let connected = dial::connect(sockets, &pod.pod, address, admit).await;
            connected
                .map(|upstream| (Connected::Tcp(upstream, leash), audit))
                .map_err(|error| Failure::connect(address, &error))
        }
        (Via::Tunnel, Some(workload)) => {
            let stream = hbone::client::connect(context, pod, workload, address).await?;
            Ok((Connected::Tunnel(stream), None))
        }
        _ => {
            let connected = dial::connect(sockets, &pod.pod, address, 0).await;
            let unjudged = |upstream| (Connected::Tcp(upstream, Leash::default()), None);
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
) -> Result<(Leash, Option<String>), Failure> {
    let right = right(caller, callee, to);
    let leash = context.rights.hold(right.clone());
    let audit = right.judge(&context.shared.snapshot)?;
    Ok((leash, audit))
}

/// What `caller` needs to call `callee`, a pod of the same node, at `to`.
pub(super) fn right(caller: &ServedPod, callee: &Arc<Workload>, to: SocketAddr) -> Right {
    let Pod { identity, addresses, .. } = &*caller.pod;
    let own = addresses.iter().find(|own| own.is_ipv4() == to.is_ipv4());
    let from = own.copied().unwrap_or(to.ip());
    Right { source: Some(identity.clone()), from, callee: callee.clone(), to }
}
