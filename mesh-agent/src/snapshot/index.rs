//! The index behind a [`Snapshot`](super::Snapshot): every lookup that a connection needs is one
//! or two hash lookups, whatever the size of the cluster.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
};

use mesh_common::{
    api::v1,
    matching::{authorization::Policies, route::Routes},
    model::{
        AuthorizationPolicy, NamespacedName, Resource, ResourceKey, ResourceKind, Route, RouteKind,
        RouteParent, Service, Workload,
    },
};

use super::Endpoint;

/// A resource and the version that the controller gave it.
#[derive(Debug)]
struct Held<T> {
    version: u64,
    resource: Arc<T>,
}

/// Two routes of different kinds may have one name.
type RouteName = (RouteKind, NamespacedName);

/// For whom routes are prepared: a Service, a port of it, and the namespace of clients that have
/// routes of their own, or of the Service for all others.
type RoutesFor = (NamespacedName, u16, Arc<str>);

/// Workloads in the order in which they may claim an address: the first one has it.
type Claim = (Reverse<bool>, NamespacedName);

/// Resources by name, and the tables that lookups use; see [`super::Snapshot`] for the rules.
#[derive(Debug, Default)]
pub(super) struct Index {
    workloads: HashMap<NamespacedName, Held<Workload>>,
    services: HashMap<NamespacedName, Held<Service>>,
    policies: HashMap<NamespacedName, Held<AuthorizationPolicy>>,
    /// Policies that were not understood, and why.
    refused: HashMap<NamespacedName, String>,
    routes: HashMap<RouteName, Held<Route>>,
    workload_claims: HashMap<IpAddr, BTreeMap<Claim, Arc<Workload>>>,
    service_claims: HashMap<IpAddr, BTreeMap<NamespacedName, Arc<Service>>>,
    endpoints: HashMap<NamespacedName, HashMap<u16, Vec<Endpoint>>>,
    enrolled: HashMap<Arc<str>, BTreeMap<NamespacedName, Arc<Workload>>>,
    /// Policies as verdicts need them, of the workloads that were called since anything about
    /// them changed. Only readers fill it, so nothing in it is older than the rest of the index.
    prepared: RwLock<HashMap<NamespacedName, Arc<Policies>>>,
    /// The routes of a Service.
    attached: HashMap<NamespacedName, BTreeMap<RouteName, Arc<Route>>>,
    /// Routes as requests need them, kept as `prepared` is.
    tables: RwLock<HashMap<RoutesFor, Arc<Routes>>>,
}

impl Index {
    pub(super) fn insert(&mut self, version: u64, resource: Resource) {
        self.remove(&resource.key());
        match resource {
            Resource::Workload(workload) => {
                let resource = Arc::new(workload);
                self.link_workload(&resource);
                self.workloads.insert(resource.name.clone(), Held { version, resource });
            }
            Resource::Service(service) => {
                let resource = Arc::new(service);
                for address in &resource.addresses {
                    let claims = self.service_claims.entry(*address).or_default();
                    claims.insert(resource.name.clone(), Arc::clone(&resource));
                }
                self.services.insert(resource.name.clone(), Held { version, resource });
            }
            Resource::AuthorizationPolicy(policy) => {
                let resource = Arc::new(policy);
                self.policies.insert(resource.name.clone(), Held { version, resource });
            }
            Resource::Route(route) => {
                let resource = Arc::new(route);
                let name = (resource.kind, resource.name.clone());
                for parent in &resource.parents {
                    let attached = self.attached.entry(parent.service.clone()).or_default();
                    attached.insert(name.clone(), Arc::clone(&resource));
                }
                self.routes.insert(name, Held { version, resource });
            }
        }
    }

    pub(super) fn remove(&mut self, key: &ResourceKey) {
        let prepared = self.prepared.get_mut().unwrap_or_else(PoisonError::into_inner);
        match key.kind {
            ResourceKind::Workload => {
                prepared.remove(&key.name);
                if let Some(held) = self.workloads.remove(&key.name) {
                    self.unlink_workload(&held.resource);
                }
            }
            ResourceKind::Service => {
                if let Some(held) = self.services.remove(&key.name) {
                    for address in &held.resource.addresses {
                        remove_claim(&mut self.service_claims, *address, &key.name);
                    }
                }
            }
            ResourceKind::AuthorizationPolicy => {
                prepared.clear();
                self.policies.remove(&key.name);
                self.refused.remove(&key.name);
            }
            ResourceKind::Route(kind) => {
                let name = (kind, key.name.clone());
                self.tables.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
                if let Some(held) = self.routes.remove(&name) {
                    for parent in &held.resource.parents {
                        remove_claim(&mut self.attached, parent.service.clone(), &name);
                    }
                }
            }
        }
    }

    /// Keeps why a policy is not in use, until it is or is gone.
    pub(super) fn refuse(&mut self, policy: NamespacedName, reason: String) {
        self.refused.insert(policy, reason);
    }

    /// A policy, or why it is not in use.
    pub(super) fn policy(&self, name: &NamespacedName) -> Result<&AuthorizationPolicy, String> {
        let held = self.policies.get(name).map(|held| &*held.resource);
        held.ok_or_else(|| match self.refused.get(name) {
            Some(reason) => reason.clone(),
            None => "the controller has not sent it: see the controller's log".to_owned(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.workloads.len() + self.services.len() + self.policies.len() + self.routes.len()
    }

    pub(super) fn versions(&self) -> impl Iterator<Item = (ResourceKey, u64)> + '_ {
        let workloads = versions_of(ResourceKind::Workload, &self.workloads);
        let services = versions_of(ResourceKind::Service, &self.services);
        let policies = versions_of(ResourceKind::AuthorizationPolicy, &self.policies);
        let routes = self.routes.iter().map(|((kind, name), held)| {
            let kind = ResourceKind::Route(*kind);
            (ResourceKey { kind, name: name.clone() }, held.version)
        });
        workloads.chain(services).chain(policies).chain(routes)
    }

    pub(super) fn resources(&self) -> impl Iterator<Item = v1::Resource> + '_ {
        use v1::resource::Resource as Wire;
        let workloads = resources_of(&self.workloads, |it| Wire::Workload(it.into()));
        let services = resources_of(&self.services, |it| Wire::Service(it.into()));
        let policies = resources_of(&self.policies, |it| Wire::AuthorizationPolicy(it.into()));
        let routes = resources_of(&self.routes, |it| Wire::Route(it.into()));
        workloads.chain(services).chain(policies).chain(routes)
    }

    pub(super) fn workload_at(&self, address: IpAddr) -> Option<Arc<Workload>> {
        self.workload_claims.get(&address)?.values().next().cloned()
    }

    pub(super) fn pods(&self, is_wanted: impl Fn(&NamespacedName) -> bool) -> Vec<Arc<Workload>> {
        let held = self.workloads.iter().filter(|(name, _)| is_wanted(name));
        let workloads = held.map(|(_, held)| Arc::clone(&held.resource));
        let mut pods: Vec<_> = workloads.filter(|pod| pod.identity.is_some()).collect();
        pods.sort_by(|one, other| one.name.cmp(&other.name));
        pods
    }

    pub(super) fn service(&self, name: &NamespacedName) -> Option<Arc<Service>> {
        self.services.get(name).map(|held| Arc::clone(&held.resource))
    }

    pub(super) fn service_at(&self, address: IpAddr) -> Option<Arc<Service>> {
        self.service_claims.get(&address)?.values().next().cloned()
    }

    pub(super) fn endpoints(&self, service: &NamespacedName, port: u16) -> &[Endpoint] {
        let of_port = self.endpoints.get(service).and_then(|ports| ports.get(&port));
        of_port.map_or(&[], Vec::as_slice)
    }

    pub(super) fn unserved(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let owned = self.service_claims.iter();
        let owned = owned.filter_map(|(at, claims)| Some((*at, claims.values().next()?)));
        owned.flat_map(move |(at, service)| {
            let is_served = move |port| {
                let mut endpoints = self.endpoints(&service.name, port).iter();
                endpoints.any(|(workload, _)| workload.address_like(at).is_some())
            };
            // Where a route is attached it may lead to others, and answers where it does not.
            let attached = self.attached.get(&service.name).into_iter().flat_map(BTreeMap::values);
            let is_routed = move |port| {
                let mut parents = attached.clone().flat_map(|route| &route.parents);
                let is_of = |it: &RouteParent| {
                    it.service == service.name && it.port.is_none_or(|it| it == port)
                };
                parents.any(is_of)
            };
            let ports = service.ports.iter().map(|port| port.port);
            ports
                .filter(move |port| !is_served(*port) && !is_routed(*port))
                .map(move |port| SocketAddr::new(at, port))
        })
    }

    /// The routes for clients of `namespace` that call `called`, prepared; `None` where there are
    /// none, and the Service alone says where requests go.
    pub(super) fn routes_for(&self, called: SocketAddr, namespace: &str) -> Option<Arc<Routes>> {
        let service = self.service_claims.get(&called.ip())?.values().next()?;
        let attached = self.attached.get(&service.name)?;
        let is_own = attached.keys().any(|(_, name)| *name.namespace == *namespace);
        let of = if is_own { namespace } else { &service.name.namespace };
        let key = (service.name.clone(), called.port(), Arc::from(of));
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let routes = match tables.get(&key) {
            Some(routes) => Arc::clone(routes),
            None => {
                drop(tables);
                let routes = Routes::attached(attached.values(), &key.0, key.1, &key.2);
                let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(tables.entry(key).or_insert(Arc::new(routes)))
            }
        };
        (!routes.is_empty()).then_some(routes)
    }

    /// The policies of `workload`, prepared; those of the newest version that is held of it.
    pub(super) fn policies_of(&self, workload: &Workload) -> Arc<Policies> {
        let held = self.workloads.get(&workload.name).map(|held| &*held.resource);
        let find = |name: &NamespacedName| self.policies.get(name).map(|policy| &*policy.resource);
        let Some(held) = held.filter(|held| held.uid == workload.uid) else {
            // It is gone, or another pod has its name: nobody will ask for it again.
            return Arc::new(Policies::new(workload, find));
        };
        let prepared = self.prepared.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(policies) = prepared.get(&workload.name) {
            return Arc::clone(policies);
        }
        drop(prepared);
        let policies = Arc::new(Policies::new(held, find));
        let mut prepared = self.prepared.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(prepared.entry(workload.name.clone()).or_insert(policies))
    }

    pub(super) fn enrolled_on(&self, node: &str) -> Vec<Arc<Workload>> {
        let pods = self.enrolled.get(node);
        pods.into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    fn link_workload(&mut self, workload: &Arc<Workload>) {
        for address in own_addresses(workload) {
            let claims = self.workload_claims.entry(*address).or_default();
            claims.insert(claim(workload), Arc::clone(workload));
        }
        for (service, service_port, target_port) in ready_ports(workload) {
            let ports = self.endpoints.entry(service.clone()).or_default();
            let endpoints = ports.entry(service_port).or_default();
            let place =
                |(other, port): &Endpoint| (&other.name, *port).cmp(&(&workload.name, target_port));
            if let Err(at) = endpoints.binary_search_by(place) {
                endpoints.insert(at, (Arc::clone(workload), target_port));
            }
        }
        if let (true, Some(node)) = (workload.enrolled, &workload.node) {
            let pods = self.enrolled.entry(Arc::clone(node)).or_default();
            pods.insert(workload.name.clone(), Arc::clone(workload));
        }
    }

    fn unlink_workload(&mut self, workload: &Workload) {
        for address in own_addresses(workload) {
            remove_claim(&mut self.workload_claims, *address, &claim(workload));
        }
        for (service, service_port, _) in ready_ports(workload) {
            let Entry::Occupied(mut ports) = self.endpoints.entry(service.clone()) else {
                continue;
            };
            if let Entry::Occupied(mut endpoints) = ports.get_mut().entry(service_port) {
                endpoints.get_mut().retain(|(other, _)| other.name != workload.name);
                if endpoints.get().is_empty() {
                    endpoints.remove();
                }
            }
            if ports.get().is_empty() {
                ports.remove();
            }
        }
        if let Some(node) = &workload.node {
            remove_claim(&mut self.enrolled, Arc::clone(node), &workload.name);
        }
    }
}

fn claim(workload: &Workload) -> Claim {
    (Reverse(workload.captured), workload.name.clone())
}

/// The addresses that are this workload's alone. One without an identity has none: it is a pod with
/// the address of its node, where whatever else listens has it too, or no pod at all.
fn own_addresses(workload: &Workload) -> &[IpAddr] {
    if workload.identity.is_some() { &workload.addresses } else { &[] }
}

/// The Service, its port and the workload's port, for each that the workload is ready to serve.
fn ready_ports(workload: &Workload) -> impl Iterator<Item = (&NamespacedName, u16, u16)> {
    let ready = workload.memberships.iter().filter(|membership| membership.ready);
    ready.flat_map(|membership| {
        let port = |port: &mesh_common::model::PortMapping| (port.service_port, port.target_port);
        membership.ports.iter().map(port).map(|(from, to)| (&membership.service, from, to))
    })
}

/// Removes `claim` on `key`, and the list of claims with its last one.
fn remove_claim<K: std::hash::Hash + Eq, C: Ord, T>(
    claims: &mut HashMap<K, BTreeMap<C, T>>,
    key: K,
    claim: &C,
) {
    if let Entry::Occupied(mut of_key) = claims.entry(key) {
        of_key.get_mut().remove(claim);
        if of_key.get().is_empty() {
            of_key.remove();
        }
    }
}

fn versions_of<T>(
    kind: ResourceKind,
    held: &HashMap<NamespacedName, Held<T>>,
) -> impl Iterator<Item = (ResourceKey, u64)> + '_ {
    held.iter().map(move |(name, held)| (ResourceKey { kind, name: name.clone() }, held.version))
}

fn resources_of<K, T>(
    held: &HashMap<K, Held<T>>,
    to_wire: impl Fn(&T) -> v1::resource::Resource,
) -> impl Iterator<Item = v1::Resource> {
    held.values().map(move |held| v1::Resource {
        version: held.version,
        resource: Some(to_wire(&held.resource)),
    })
}
