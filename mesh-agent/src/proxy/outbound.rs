//! Connections that a captured pod opens.
//!
//! The listener that a connection arrives on is in the pod's own network namespace: that alone
//! says who calls. The kernel published where it was going.

use std::{net::SocketAddr, sync::Arc};

use mesh_common::{
    bpf::ConnectionKey,
    matching::{
        protocol::{self, Choice, Protocol},
        route::Routes,
    },
    model::{PeerMode, Service},
};
use tokio::net::TcpStream;

use super::{
    Shared,
    denied::Denied,
    failure::Failure,
    http,
    pod::ServedPod,
    reach::{self, Connected},
    record::Record,
    relay,
    revoke::Leash,
    route::{self, Route},
    sniff::{self, Spoken},
    worker::Context,
};
use crate::observe::flow::Reporter;

/// Carries one captured connection to its end.
pub(super) async fn serve(
    context: Arc<Context>,
    pod: Arc<ServedPod>,
    client: TcpStream,
    peer: SocketAddr,
) {
    let _guard = pod.enter();
    let Some(destination) = original_destination(&context, &pod, &client, peer) else {
        context.shared.observer.unknown_origin();
        relay::reset(client);
        return;
    };
    // Whatever is looked up from here on, the controller has said what it is.
    let is_answered = context.shared.snapshot.interest().ask(destination.ip()).await;
    let called = Called::at(&context, &pod, destination);
    if let Some(called) = &called
        && called.speaks_http(&context, &client, destination).await
    {
        let service = Arc::clone(&called.service);
        return http::serve(context, pod, client, peer, destination, service).await;
    }
    let mut record = Record::start(&context.shared, Reporter::Source);
    record.source_pod(&pod.pod, peer);
    record.destination_address(destination);

    let connected = tokio::select! {
        connected = connect(&context, &pod, &client, destination, called, is_answered, &mut record) => connected,
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
            relay::tunnel::relay(client, stream, relay::Peer::Proxy, leash, meter).await
        }
    });
}

/// The Service that a connection is for, and the routes that hold there for its caller.
struct Called {
    service: Arc<Service>,
    routes: Option<Arc<Routes>>,
}

impl Called {
    /// What is at `destination`, where a Service is.
    fn at(context: &Context, pod: &ServedPod, destination: SocketAddr) -> Option<Self> {
        let snapshot = &context.shared.snapshot;
        let service = snapshot.service_at(destination.ip())?;
        let routes = snapshot.routes_for(destination, &pod.pod.name.namespace);
        Some(Self { service, routes })
    }

    /// The routes, where they are for connections.
    fn connection_routes(&self) -> Option<&Routes> {
        self.routes.as_deref().filter(|routes| routes.are_for_connections())
    }

    /// Whether what `client` speaks to the port is HTTP, and that is to be read.
    async fn speaks_http(
        &self,
        context: &Context,
        client: &TcpStream,
        destination: SocketAddr,
    ) -> bool {
        // Whoever attaches a route says what it is: requests, or connections that are not looked
        // into.
        if !context.shared.http || self.connection_routes().is_some() {
            return false;
        }
        let mut ports = self.service.ports.iter();
        let Some(port) = ports.find(|port| port.port == destination.port()) else { return false };
        match protocol::choose(port, || self.routes.is_some()) {
            Choice::Declared(Protocol::Http | Protocol::Http2, _) | Choice::Routed => true,
            Choice::Declared(Protocol::Opaque, _) => false,
            Choice::Sniffed => {
                let spoken = context.shared.silent.listen(client, destination).await;
                matches!(spoken, Spoken::Http1 | Spoken::Http2)
            }
        }
    }
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
    client: &TcpStream,
    destination: SocketAddr,
    called: Option<Called>,
    is_answered: bool,
    record: &mut Record,
) -> Result<Connected, Failure> {
    let shared = &*context.shared;
    let asked = shared.denials.ask();
    let route = way(shared, client, destination, called, record).await?;
    if route.is_unknown() && !is_answered {
        if is_strict(context, pod) {
            return Err(Failure::Unanswered(destination.ip()));
        }
        record.caveat("the controller does not say who has the address: taken for outside");
    }
    let mut failure = Failure::NoEndpoint;
    for upstream in &route.upstreams {
        record.upstream(upstream);
        match reach::connect(context, pod, upstream).await {
            Ok((connected, audit)) => {
                record.audit(audit);
                return Ok(connected);
            }
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

/// Where the Service that was called, or a route of it, leads `client`.
async fn way(
    shared: &Shared,
    client: &TcpStream,
    destination: SocketAddr,
    called: Option<Called>,
    record: &mut Record,
) -> Result<Route, Failure> {
    let Some(called) = called else { return Ok(route::to_address(shared, destination)) };
    let service = called.service.name.clone();
    record.service(service.clone());
    let Some(routes) = called.connection_routes() else {
        return Ok(route::to_service(shared, service, destination));
    };
    let server_name = match routes.ask_for_server_name() {
        true => sniff::server_name(client).await,
        false => None,
    };
    let route = route::steer(shared, service, destination, routes, server_name)?;
    if let Some(decided_by) = &route.decided_by {
        record.caveat(decided_by.clone());
    }
    Ok(route)
}

/// Whether the caller takes no plaintext itself, and so is not to speak it to what may be a pod.
fn is_strict(context: &Context, caller: &ServedPod) -> bool {
    let own = caller.pod.addresses.first();
    let workload = own.and_then(|own| context.shared.snapshot.workload_at(*own));
    workload
        .is_some_and(|it| it.uid == caller.pod.uid && it.admission.peer_mode == PeerMode::Strict)
}
