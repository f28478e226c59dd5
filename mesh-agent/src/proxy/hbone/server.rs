//! The called side of HBONE: who is there, may they, and on to the application.

use std::{
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Poll, ready},
    time::SystemTime,
};

use bytes::Bytes;
use h2::{
    RecvStream,
    server::{Connection, SendResponse},
};
use http::{Method, Request, Response};
use mesh_common::{
    identity::SpiffeId,
    model::{NamespacedName, Workload},
    ports,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    net::TcpStream,
    time,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    FRAME, HEADER_LIST, REMEMBERED_RESETS, RESET_MEMORY, SEND_BUFFER, STREAM_WINDOW,
    STREAMS_A_TUNNEL, Stream, TUNNEL_WINDOW,
    coalesce::{Coalesce, Flusher, coalesce},
    status,
};
use crate::{
    identity::{Certificates, peer_identity, trusted_until},
    observe::flow::{Reporter, Security},
    proxy::{
        HANDSHAKE_TIMEOUT, buffer, deliver, dial,
        failure::Failure,
        pod::ServedPod,
        record::Record,
        relay,
        revoke::{Leash, Right},
        worker::Context,
    },
};

/// Who is at the other end of a tunnel.
#[derive(Clone)]
struct Caller {
    identity: SpiffeId,
    address: SocketAddr,
    /// When its certificate ends.
    trusted_until: SystemTime,
}

type Tls = TlsStream<BufReader<TcpStream>>;
type Tunnel<T> = (Connection<Coalesce<T>, Bytes>, Flusher<T>);

/// Serves one tunnel to its end.
pub(in crate::proxy) async fn serve(
    context: Arc<Context>,
    pod: Arc<ServedPod>,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let mut place = pod.handshakes.enter();
    let accepted = tokio::select! {
        accepted = time::timeout(HANDSHAKE_TIMEOUT, handshake(&context, &pod, stream, peer)) => {
            accepted.unwrap_or_else(|_| Err(given_up(&context, "timed out")))
        }
        () = place.overtaken() => Err(given_up(&context, "too many newer ones at once")),
        () = pod.gone() => return,
    };
    drop(place);
    let (tunnel, caller) = match accepted {
        Ok(accepted) => accepted,
        Err(failure) => return refuse(&context, &pod, peer, failure),
    };
    let ended = tokio::select! {
        ended = run(&context, &pod, tunnel, &caller) => ended,
        () = pod.gone() => return,
    };
    if let Err(error) = ended {
        tracing::debug!(pod = %pod.pod.name, caller = %caller.identity, %error, "tunnel ended");
    }
}

fn given_up(context: &Context, why: &str) -> Failure {
    context.shared.observer.handshake_given_up();
    Failure::handshake(why)
}

async fn handshake(
    context: &Context,
    pod: &ServedPod,
    stream: TcpStream,
    address: SocketAddr,
) -> Result<(Tunnel<Tls>, Caller), Failure> {
    let identity = &pod.pod.identity;
    let config = context
        .shared
        .certificates
        .server_config(identity)
        .ok_or_else(|| Failure::NoCertificate(identity.clone()))?;
    dial::keep_tunnel_alive(&stream).map_err(|error| Failure::handshake(&error))?;
    let stream = BufReader::with_capacity(buffer::BLOCK, stream);
    let tls = TlsAcceptor::from(config).accept(stream).await.map_err(|e| Failure::handshake(&e))?;
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let identity = peer_identity(chain).map_err(|error| Failure::handshake(&error))?;
    let trusted_until = trusted_until(chain).map_err(|error| Failure::handshake(&error))?;

    let (io, flusher) = coalesce(tls);
    let connection = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(TUNNEL_WINDOW)
        .max_concurrent_streams(2 * STREAMS_A_TUNNEL)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .reset_stream_duration(RESET_MEMORY)
        .handshake(io);
    let mut connection = std::pin::pin!(connection);
    let connection = poll_fn(|cx| {
        let ready = connection.as_mut().poll(cx);
        // The server's SETTINGS have to leave before the client's preface is there.
        match flusher.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(Failure::handshake(&error))),
            _ => ready.map_err(|error| Failure::handshake(&error)),
        }
    })
    .await?;
    Ok(((connection, flusher), Caller { identity, address, trusted_until }))
}

/// A tunnel that was refused before any stream: one flow, and one log line a caller and reason.
fn refuse(context: &Context, pod: &ServedPod, peer: SocketAddr, failure: Failure) {
    let mut record = Record::start(&context.shared, Reporter::Destination);
    record.source_address(&context.shared, peer);
    record.security(Security::Plaintext);
    record.destination_pod(&pod.pod, SocketAddr::new(own_address(pod, peer.ip()), ports::HBONE));
    context.shared.refusals.warn(peer.ip(), peer.ip(), &pod.pod, &failure);
    record.fail(failure);
}

/// The pod's address of the caller's family.
fn own_address(pod: &ServedPod, like: IpAddr) -> IpAddr {
    let addresses = &pod.pod.addresses;
    addresses.iter().copied().find(|own| own.is_ipv4() == like.is_ipv4()).unwrap_or(like)
}

/// Returns when a tunnel shall take no more streams: the pod stops, or nobody vouches for the
/// caller any longer because its certificate ends or the trust bundle changes.
async fn over(certificates: &Certificates, pod: &ServedPod, caller: &Caller) {
    let left = caller.trusted_until.duration_since(SystemTime::now()).unwrap_or_default();
    let mut changed = certificates.changed();
    let generation = certificates.generation();
    let bundle_changes = async {
        // An error means that the agent ends.
        while certificates.generation() == generation && changed.changed().await.is_ok() {}
    };
    tokio::select! {
        () = pod.stopped() => {}
        () = time::sleep(left) => {}
        () = bundle_changes => {}
    }
}

/// Accepts streams until the peer closes the tunnel, or it is [`over`] and its streams end.
async fn run<T>(
    context: &Arc<Context>,
    pod: &Arc<ServedPod>,
    (mut connection, flusher): Tunnel<T>,
    caller: &Caller,
) -> Result<(), h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut over = std::pin::pin!(over(&context.shared.certificates, pod, caller));
    let mut closing = false;
    loop {
        let accepted = poll_fn(|cx| {
            if !closing && over.as_mut().poll(cx).is_ready() {
                closing = true;
                connection.graceful_shutdown();
            }
            if let Poll::Ready(accepted) = connection.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
            match ready!(flusher.poll_flush(cx)) {
                Ok(()) => Poll::Pending,
                // The connection itself meets the same error and knows what to end.
                Err(error) => Poll::Ready(Some(Err(h2::Error::from(io_reason(&error))))),
            }
        })
        .await;
        match accepted {
            Some(Ok((request, respond))) => {
                let (context, pod, caller) = (context.clone(), pod.clone(), caller.clone());
                tokio::spawn(serve_stream(context, pod, caller, request, respond));
            }
            Some(Err(error)) => return Err(error),
            None => return Ok(()),
        }
    }
}

fn io_reason(error: &std::io::Error) -> h2::Reason {
    tracing::debug!(%error, "cannot write to a tunnel");
    h2::Reason::CONNECT_ERROR
}

/// One CONNECT.
async fn serve_stream(
    context: Arc<Context>,
    pod: Arc<ServedPod>,
    caller: Caller,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let _guard = pod.enter();
    let mut record = Record::start(&context.shared, Reporter::Destination);
    record.source_identity(&context.shared, caller.identity.clone(), caller.address);
    record.security(Security::Mtls);
    record.destination_pod(&pod.pod, caller.address);

    let connected = tokio::select! {
        connected = connect(&context, &pod, &caller, &request, &mut record) => connected,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => Err(Failure::CallerLeft),
        () = pod.gone() => Err(Failure::PodGone),
    };
    match connected {
        Ok((application, mut leash)) => {
            leash.hold_to(&pod);
            let Ok(send) = respond.send_response(Response::new(()), false) else {
                return record.fail(Failure::handshake(&"the caller gave up"));
            };
            let stream = Stream { send, receive: request.into_body(), lease: None };
            let meter = record.carried(&context.meters).swapped();
            record.end(
                relay::tunnel::relay(application, stream, relay::Peer::Proxy, leash, meter)
                    .await
                    .swapped(),
            );
        }
        Err(failure) => {
            if matches!(failure, Failure::NotOurs(_) | Failure::NotConnect(_)) {
                let refusals = &context.shared.refusals;
                refusals.warn(&caller.identity, caller.address.ip(), &pod.pod, &failure);
            }
            // A caller that is gone needs no answer.
            let _ = respond.send_response(status::to_response(&failure), true);
            record.fail(failure);
        }
    }
}

async fn connect(
    context: &Context,
    pod: &ServedPod,
    caller: &Caller,
    request: &Request<RecvStream>,
    record: &mut Record,
) -> Result<(TcpStream, Leash), Failure> {
    let shared = &context.shared;
    let to = destination(context, pod, caller, request)?;
    record.destination_pod(&pod.pod, to);
    let callee = shared.workload_of(pod, to)?;
    let (source, from) = (Some(caller.identity.clone()), caller.address.ip());
    let right = Right { source, from, callee, to };
    let leash = context.rights.hold(right.clone());
    record.audit(right.judge(&shared.snapshot)?);
    deliver::connect(&shared.sockets, pod, to, caller.address.ip())
        .await
        .map(|application| (application, leash))
        .map_err(|error| Failure::connect(to, &error))
}

/// Where a CONNECT wants to go: an address of this pod, and no port of ours.
fn destination(
    context: &Context,
    pod: &ServedPod,
    caller: &Caller,
    request: &Request<RecvStream>,
) -> Result<SocketAddr, Failure> {
    if request.method() != Method::CONNECT {
        return Err(Failure::NotConnect(request.method().clone()));
    }
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let authority = authority.unwrap_or_default();
    let to = match authority.parse() {
        Ok(address) => address,
        Err(_) => {
            let own = SocketAddr::new(own_address(pod, caller.address.ip()), ports::HBONE);
            let workload = context.shared.workload_of(pod, own)?;
            behind_service(&workload, own.ip(), authority)
                .ok_or_else(|| Failure::BadAuthority(authority.to_owned()))?
        }
    };
    pod.offers(to)?;
    Ok(to)
}

/// The port of `workload` that a Service's port, `web.shop.svc.cluster.local:80`, leads to: what
/// ztunnel asks for where the connection came through a gateway to another network.
pub(in crate::proxy) fn behind_service(
    workload: &Workload,
    own: IpAddr,
    authority: &str,
) -> Option<SocketAddr> {
    let (host, port) = authority.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let mut labels = host.split('.');
    let (name, namespace) = (labels.next()?, labels.next()?);
    // What follows is the cluster's domain, which the mesh need not know.
    (labels.next()? == "svc").then_some(())?;
    let is_named =
        |service: &NamespacedName| &*service.name == name && &*service.namespace == namespace;
    let membership = workload.memberships.iter().find(|known| is_named(&known.service))?;
    let mapping = membership.ports.iter().find(|mapping| mapping.service_port == port)?;
    Some(SocketAddr::new(own, mapping.target_port))
}
