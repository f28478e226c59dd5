//! Where a captured connection goes: from the address that the application asked for to a list
//! of places to try.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_common::model::{NamespacedName, Workload};

use super::{Shared, pod::ServedPod};
use crate::snapshot::Endpoint;

/// Where a connection may go.
pub(super) struct Route {
    /// The Service that was called, where one was.
    pub(super) service: Option<NamespacedName>,
    /// The places to try, in order, the second only where connecting to the first failed.
    pub(super) upstreams: Vec<Upstream>,
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
    if let Some(service) = shared.snapshot.service_at(destination.ip()) {
        let mut endpoints = shared.snapshot.endpoints(&service.name, destination.port());
        fastrand::shuffle(&mut endpoints);
        let upstreams = upstreams(shared, endpoints, destination.ip()).take(TRIES).collect();
        return Route { service: Some(service.name.clone()), upstreams };
    }
    let workload = shared.snapshot.workload_at(destination.ip());
    Route { service: None, upstreams: vec![upstream(shared, destination, workload)] }
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
