//! Where a captured connection goes: from the address that the application asked for to a list
//! of places to try.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_common::{
    matching::route::{Routes, backend},
    model::{BackendTarget, NamespacedName, Workload},
};

use super::{Shared, failure::Failure, pod::ServedPod};
use crate::snapshot::Endpoint;

/// Where a connection may go.
pub(super) struct Route {
    /// The Service that was called, where one was.
    pub(super) service: Option<NamespacedName>,
    /// The places to try, in order, the second only where connecting to the first failed.
    pub(super) upstreams: Vec<Upstream>,
    /// The TLSRoute or TCPRoute that decided, as flows have it.
    pub(super) decided_by: Option<String>,
}

impl Route {
    /// Whether nothing in the snapshot has the address that was called.
    pub(super) fn is_unknown(&self) -> bool {
        self.service.is_none() && self.upstreams.iter().all(|it| it.workload.is_none())
    }
}

/// One place to try.
pub(super) struct Upstream {
    /// The application's own address and port.
    pub(super) address: SocketAddr,
    /// The workload there, where the mesh knows one.
    pub(super) workload: Option<Arc<Workload>>,
    /// How to get there.
    pub(super) via: Via,
}

/// How to get to an upstream.
pub(super) enum Via {
    /// As the application would: it is not in the mesh.
    Passthrough,
    /// Over the CNI's own path to a captured pod of this node.
    SameNode(Arc<ServedPod>),
    /// Through a tunnel to a captured pod of another node, or of another mesh.
    Tunnel,
}

/// How many upstreams are tried (design: retry once and only where connecting failed).
const TRIES: usize = 2;

/// The way to `destination`.
pub(super) fn choose(shared: &Shared, destination: SocketAddr) -> Route {
    match shared.snapshot.service_at(destination.ip()) {
        Some(service) => to_service(shared, service.name.clone(), destination),
        None => to_address(shared, destination),
    }
}

/// The way to `destination`, an address and port of `service`, where no route says otherwise.
pub(super) fn to_service(
    shared: &Shared,
    service: NamespacedName,
    destination: SocketAddr,
) -> Route {
    let upstreams = shuffled(shared, &service, destination.port(), destination.ip());
    Route { service: Some(service), upstreams, decided_by: None }
}

/// The way to `destination`, which is no Service's.
pub(super) fn to_address(shared: &Shared, destination: SocketAddr) -> Route {
    let workload = shared.snapshot.workload_at(destination.ip());
    let upstreams = vec![upstream(shared, destination, workload)];
    Route { service: None, upstreams, decided_by: None }
}

/// The way to `destination`, an address and port of `service`, where `routes` say where its
/// connections go; `server_name` is what the client asks for, where that is of interest.
pub(super) fn steer(
    shared: &Shared,
    service: NamespacedName,
    destination: SocketAddr,
    routes: &Routes,
    server_name: Option<String>,
) -> Result<Route, Failure> {
    let Some((route, rule)) = routes.connection(server_name.as_deref()) else {
        return Err(Failure::NoRoute(server_name));
    };
    let decided_by = format!("{} {}", route.kind.name(), route.name);
    let backend = backend::choose(&rule.backends, fastrand::u64(..)).map(|it| &it.target);
    match backend {
        Some(BackendTarget::Service { name, port }) => {
            let upstreams = shuffled(shared, name, *port, destination.ip());
            Ok(Route { service: Some(service), upstreams, decided_by: Some(decided_by) })
        }
        Some(BackendTarget::Invalid(reason)) => {
            Err(Failure::NoBackend { route: decided_by, reason: (**reason).to_owned() })
        }
        None => {
            let reason = "there is none, or all have weight 0".to_owned();
            Err(Failure::NoBackend { route: decided_by, reason })
        }
    }
}

/// Places behind a port of a Service, in any order, as many as are tried.
fn shuffled(shared: &Shared, service: &NamespacedName, port: u16, like: IpAddr) -> Vec<Upstream> {
    let mut endpoints = shared.snapshot.endpoints(service, port);
    fastrand::shuffle(&mut endpoints);
    upstreams(shared, endpoints, like).take(TRIES).collect()
}

/// Every place behind `destination`, an address and port of `service`.
pub(super) fn endpoints(
    shared: &Shared,
    service: &NamespacedName,
    destination: SocketAddr,
) -> impl Iterator<Item = Upstream> {
    let endpoints = shared.snapshot.endpoints(service, destination.port());
    upstreams(shared, endpoints, destination.ip())
}

/// The endpoints that have an address of the same family as `like`.
fn upstreams(
    shared: &Shared,
    endpoints: Vec<Endpoint>,
    like: IpAddr,
) -> impl Iterator<Item = Upstream> {
    endpoints.into_iter().filter_map(move |(workload, port)| {
        let ip = workload.address_like(like)?;
        Some(upstream(shared, SocketAddr::new(ip, port), Some(workload)))
    })
}

/// The place at `address`, and how to get there.
pub(super) fn upstream(
    shared: &Shared,
    address: SocketAddr,
    workload: Option<Arc<Workload>>,
) -> Upstream {
    let via = match &workload {
        // Of our own mesh's pods on this node we know better than the snapshot which are captured.
        Some(workload) if workload.node.as_ref() == Some(&shared.node) && !is_foreign(workload) => {
            shared.pod_of(workload).map_or(Via::Passthrough, Via::SameNode)
        }
        Some(workload) if workload.captured => Via::Tunnel,
        _ => Via::Passthrough,
    };
    Upstream { address, workload, via }
}

/// Whether the proxy of another mesh takes HBONE for a workload.
fn is_foreign(workload: &Workload) -> bool {
    workload.captured && !workload.enrolled
}
