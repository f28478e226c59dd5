//! What this node knows of the mesh: the controller's deltas, kept as an index for lookups.
//!
//! Lookups take a short read lock and clone [`Arc`]s; nothing here does I/O but [`disk`]. A bad
//! resource is refused alone, with the reason, and its previous good version stays in use; but of
//! an AuthorizationPolicy no version stays, so that what it is attached to refuses everybody.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use mesh_common::{
    api::{self, v1},
    matching::{
        authorization::{self, Verdict},
        route::Routes,
    },
    model::{NamespacedName, Resource, ResourceKey, ResourceKind, Service, Workload},
};
use tokio::sync::watch;

pub mod disk;
mod index;
pub mod interest;

use index::Index;
use interest::Interest;

/// A workload behind a Service, and the port on it that a port of the Service leads to.
pub type Endpoint = (Arc<Workload>, u16);

/// Every resource that the controller sent to this node: its own pods, and what they call.
///
/// Two resources that claim one address: a captured pod wins over one that is not captured (so
/// that a stale claim never turns mTLS into plaintext), then the name that sorts first. The order in
/// which they arrived makes no difference, so a restart changes nothing, and within one response an
/// address may move between resources in any order.
#[derive(Debug)]
pub struct Snapshot {
    index: RwLock<Index>,
    changed: watch::Sender<u64>,
    interest: Interest,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::new()
    }
}

impl Snapshot {
    /// An empty snapshot.
    pub fn new() -> Self {
        Self {
            index: RwLock::default(),
            changed: watch::Sender::new(0),
            interest: Interest::default(),
        }
    }

    /// What pods of this node call, beyond which nothing is here.
    pub fn interest(&self) -> &Interest {
        &self.interest
    }

    /// Takes over what the controller sent; what comes back was refused.
    pub fn apply(
        &self,
        updated: Vec<v1::Resource>,
        removed: Vec<v1::ResourceKey>,
    ) -> Vec<v1::Nack> {
        let mut nacks = Vec::new();
        let updated: Vec<_> = updated
            .into_iter()
            .filter_map(|wire| parse_resource(wire).map_err(|nack| nacks.push(nack)).ok())
            .collect();
        // The last good version of a policy may allow what the one that is not understood
        // refuses: without any, the workloads that it is attached to refuse.
        let not_understood = nacks.iter().filter_map(|nack| {
            let key: ResourceKey = nack.key.clone()?.try_into().ok()?;
            let is_policy = key.kind == ResourceKind::AuthorizationPolicy;
            is_policy.then(|| (key, nack.reason.clone()))
        });
        let not_understood: Vec<_> = not_understood.collect();
        let mut removed: Vec<_> = removed
            .into_iter()
            .filter_map(|wire| parse_key(wire).map_err(|nack| nacks.push(nack)).ok())
            .collect();
        removed.extend(not_understood.iter().map(|(key, _)| key.clone()));
        if updated.is_empty() && removed.is_empty() {
            return nacks;
        }
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        for key in &removed {
            index.remove(key);
        }
        for (key, reason) in not_understood {
            index.refuse(key.name, reason);
        }
        for (version, resource) in updated {
            index.insert(version, resource);
        }
        drop(index);
        self.touch();
        nacks
    }

    /// What is held, for the first message to the controller.
    pub fn versions(&self) -> Vec<v1::VersionedKey> {
        let versioned = |(key, version): (ResourceKey, u64)| v1::VersionedKey {
            key: Some((&key).into()),
            version,
        };
        self.read().versions().map(versioned).collect()
    }

    /// Everything that is held, as it was received.
    pub fn resources(&self) -> Vec<v1::Resource> {
        self.read().resources().collect()
    }

    /// How many resources are held.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The workload that owns `address`.
    pub fn workload_at(&self, address: IpAddr) -> Option<Arc<Workload>> {
        self.read().workload_at(address.to_canonical())
    }

    /// The workloads that are pods and whose name is one that `is_wanted`, by name.
    pub fn pods(&self, is_wanted: impl Fn(&NamespacedName) -> bool) -> Vec<Arc<Workload>> {
        self.read().pods(is_wanted)
    }

    /// The Service called `name`.
    pub fn service(&self, name: &NamespacedName) -> Option<Arc<Service>> {
        self.read().service(name)
    }

    /// The Service that has `address` as a virtual address.
    pub fn service_at(&self, address: IpAddr) -> Option<Arc<Service>> {
        self.read().service_at(address.to_canonical())
    }

    /// The ready workloads behind `port` of `service`, by name, with their own ports.
    pub fn endpoints(&self, service: &NamespacedName, port: u16) -> Vec<Endpoint> {
        self.read().endpoints(service, port).to_vec()
    }

    /// Of the same, the one at the place that `pick` says.
    pub fn endpoint(
        &self,
        service: &NamespacedName,
        port: u16,
        pick: impl FnOnce(&[Endpoint]) -> Option<usize>,
    ) -> Option<Endpoint> {
        let index = self.read();
        let endpoints = index.endpoints(service, port);
        endpoints.get(pick(endpoints)?).cloned()
    }

    /// The routes for clients of `namespace` that call the address and port `called` of a Service,
    /// prepared; `None` where no route is attached.
    pub fn routes_for(&self, called: SocketAddr, namespace: &str) -> Option<Arc<Routes>> {
        let called = SocketAddr::new(called.ip().to_canonical(), called.port());
        self.read().routes_for(called, namespace)
    }

    /// Addresses and ports of Services that no workload is ready to serve.
    pub fn unserved(&self) -> HashSet<SocketAddr> {
        self.read().unserved().collect()
    }

    /// Judges `request` to `workload` by the policies attached to it.
    pub fn authorize(&self, workload: &Workload, request: authorization::Request<'_>) -> Verdict {
        self.read().policies_of(workload).judge(request)
    }

    /// The policies that are attached to `workload`, for people.
    pub fn policies_of(&self, workload: &Workload) -> Vec<v1::AttachedPolicy> {
        let index = self.read();
        api::attached_policies(workload, |name| index.policy(name))
    }

    /// The pods of `node` that labels put into the mesh, by name.
    pub fn local_pods(&self, node: &str) -> Vec<Arc<Workload>> {
        self.read().enrolled_on(node)
    }

    /// Grows with every change; starts as changed for a receiver that has seen nothing.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Tells those who wait for changes to look again, though no resource changed.
    pub fn touch(&self) {
        self.changed.send_modify(|generation| *generation += 1);
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse_resource(wire: v1::Resource) -> Result<(u64, Resource), v1::Nack> {
    let Some(resource) = wire.resource else {
        return Err(v1::Nack {
            key: None,
            reason: "the resource is of a kind that this agent does not know".to_owned(),
        });
    };
    let key = wire_key(&resource);
    let nack = |reason: String| v1::Nack { key, reason };
    match Resource::try_from(resource) {
        Ok(resource) => match contradiction(&resource) {
            None => Ok((wire.version, resource)),
            Some(reason) => Err(nack(reason)),
        },
        Err(error) => Err(nack(error.to_string())),
    }
}

fn parse_key(wire: v1::ResourceKey) -> Result<ResourceKey, v1::Nack> {
    ResourceKey::try_from(wire.clone())
        .map_err(|error| v1::Nack { key: Some(wire), reason: error.to_string() })
}

fn wire_key(resource: &v1::resource::Resource) -> Option<v1::ResourceKey> {
    use v1::resource::Resource as Wire;
    let (kind, name) = match resource {
        Wire::Workload(workload) => (v1::ResourceKind::Workload, &workload.name),
        Wire::Service(service) => (v1::ResourceKind::Service, &service.name),
        Wire::AuthorizationPolicy(policy) => (v1::ResourceKind::AuthorizationPolicy, &policy.name),
        Wire::Route(route) => (route_kind(route.kind()), &route.name),
    };
    Some(v1::ResourceKey { kind: kind.into(), name: Some(name.clone()?) })
}

fn route_kind(kind: v1::RouteKind) -> v1::ResourceKind {
    match kind {
        v1::RouteKind::Grpc => v1::ResourceKind::GrpcRoute,
        v1::RouteKind::Http => v1::ResourceKind::HttpRoute,
        v1::RouteKind::Tls => v1::ResourceKind::TlsRoute,
        v1::RouteKind::Tcp => v1::ResourceKind::TcpRoute,
        v1::RouteKind::Unspecified => v1::ResourceKind::Unspecified,
    }
}

/// What no single field shows: parts of a resource that cannot all be true.
fn contradiction(resource: &Resource) -> Option<String> {
    let Resource::Workload(workload) = resource else { return None };
    let of_family = |v4: bool| workload.addresses.iter().filter(move |ip| ip.is_ipv4() == v4);
    if of_family(true).count() > 1 || of_family(false).count() > 1 {
        return Some(format!("addresses {:?}: more than one of a family", workload.addresses));
    }
    (workload.enrolled && workload.identity.is_none())
        .then(|| "it is enrolled but has no identity".to_owned())
}

#[cfg(test)]
mod tests;
