//! What a node needs of the mesh, encoded for the wire: pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use mesh_common::{
    api::v1,
    identity::SpiffeId,
    model::{Admission, NamespacedName, Resource, ResourceKey, ResourceKind, Workload},
};
use prost::Message;
use ring::digest::{SHA256, digest};

use crate::compile::Compiled;

/// A resource as agents get it.
#[derive(Debug, PartialEq)]
pub struct Encoded {
    /// The resource with its version.
    pub wire: v1::Resource,
    /// Its size on the wire, bytes.
    pub bytes: usize,
}

impl Encoded {
    /// The version is a hash of the content, so it outlives the controller. A collision, one in
    /// 2^64 for two versions of one resource, would leave an agent with the older of the two.
    fn new(resource: &Resource) -> Self {
        let mut wire = v1::Resource { version: 0, resource: Some(resource.into()) };
        let hash = digest(&SHA256, &wire.encode_to_vec());
        let mut version = [0; 8];
        version.copy_from_slice(&hash.as_ref()[..8]);
        // Zero means that there is none.
        wire.version = u64::from_be_bytes(version).max(1);
        Self { bytes: wire.encoded_len(), wire }
    }

    /// The version.
    pub fn version(&self) -> u64 {
        self.wire.version
    }
}

/// The whole mesh, ready to be looked at from any node.
#[derive(Debug, Default)]
pub struct Picture {
    workloads: BTreeMap<ResourceKey, WorkloadEntry>,
    services: BTreeMap<ResourceKey, Arc<Encoded>>,
    policies: BTreeMap<ResourceKey, Arc<Encoded>>,
    nodes: BTreeMap<String, NodeNeeds>,
    /// The workloads and Services that have an address.
    owners: HashMap<IpAddr, Vec<ResourceKey>>,
    /// The workloads behind a Service, ready or not.
    behind: HashMap<NamespacedName, Vec<ResourceKey>>,
    routes: BTreeMap<ResourceKey, RouteEntry>,
    /// The routes of a Service.
    attached: HashMap<NamespacedName, Vec<ResourceKey>>,
}

#[derive(Debug)]
struct RouteEntry {
    encoded: Arc<Encoded>,
    /// The Services that it leads to.
    targets: BTreeSet<NamespacedName>,
}

/// What of the mesh beyond its own node an agent gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of it: the agent is of a version that does not say what it is interested in.
    Whole,
    /// What has these addresses.
    Addresses(BTreeSet<IpAddr>),
}

#[derive(Debug)]
struct WorkloadEntry {
    node: Option<Arc<str>>,
    /// For its own node.
    whole: Arc<Encoded>,
    /// For the others, who do not judge calls to it.
    without_policies: Arc<Encoded>,
}

impl WorkloadEntry {
    fn seen_by(&self, node: &str) -> &Arc<Encoded> {
        let is_own = self.node.as_deref() == Some(node);
        if is_own { &self.whole } else { &self.without_policies }
    }
}

#[derive(Debug, Default)]
struct NodeNeeds {
    own: BTreeSet<ResourceKey>,
    policies: BTreeSet<NamespacedName>,
    /// The identities of its enrolled pods.
    identities: BTreeSet<SpiffeId>,
}

/// The resources that one node needs.
pub type View = BTreeMap<ResourceKey, Arc<Encoded>>;

impl Picture {
    /// Encodes what was compiled.
    pub fn new(compiled: &Compiled) -> Self {
        let nodes = compiled.nodes.iter().map(|node| (node.clone(), NodeNeeds::default()));
        let mut picture = Self { nodes: nodes.collect(), ..Self::default() };
        for (key, resource) in &compiled.resources {
            match resource {
                Resource::Workload(workload) => picture.add_workload(key, resource, workload),
                Resource::Service(service) => {
                    picture.add_owner(key, &service.addresses);
                    picture.services.insert(key.clone(), Encoded::new(resource).into());
                }
                Resource::Route(route) => {
                    let services = route.parents.iter().map(|parent| parent.service.clone());
                    for service in services.collect::<BTreeSet<_>>() {
                        picture.attached.entry(service).or_default().push(key.clone());
                    }
                    let encoded = Encoded::new(resource).into();
                    let targets = route.targets().cloned().collect();
                    picture.routes.insert(key.clone(), RouteEntry { encoded, targets });
                }
                Resource::AuthorizationPolicy(_) => {
                    picture.policies.insert(key.clone(), Encoded::new(resource).into());
                }
            }
        }
        picture
    }

    /// The PeerPolicy that governs the workload `key`.
    pub fn peer_policy(&self, key: &ResourceKey) -> Option<NamespacedName> {
        let Some(v1::resource::Resource::Workload(workload)) =
            &self.workloads.get(key)?.whole.wire.resource
        else {
            return None;
        };
        let policy = workload.admission.as_ref()?.peer_policy.as_ref()?;
        Some(NamespacedName::new(&policy.namespace, &policy.name))
    }

    fn add_owner(&mut self, key: &ResourceKey, addresses: &[IpAddr]) {
        for address in addresses {
            self.owners.entry(*address).or_default().push(key.clone());
        }
    }

    fn add_workload(&mut self, key: &ResourceKey, resource: &Resource, workload: &Workload) {
        self.add_owner(key, &workload.addresses);
        for membership in &workload.memberships {
            self.behind.entry(membership.service.clone()).or_default().push(key.clone());
        }
        let whole: Arc<Encoded> = Encoded::new(resource).into();
        let judges_nothing = workload.authorization_policies.is_empty()
            && workload.admission == Admission::default();
        let without_policies = match judges_nothing {
            true => whole.clone(),
            false => {
                let stripped = Workload {
                    authorization_policies: Vec::new(),
                    admission: Admission::default(),
                    ..workload.clone()
                };
                Encoded::new(&Resource::Workload(stripped)).into()
            }
        };
        let needs = workload.node.as_deref().and_then(|node| self.nodes.get_mut(node));
        if let Some(needs) = needs {
            needs.own.insert(key.clone());
            if workload.enrolled {
                needs.policies.extend(workload.authorization_policies.iter().cloned());
                needs.identities.extend(workload.identity.clone());
            }
        }
        let node = workload.node.clone();
        self.workloads.insert(key.clone(), WorkloadEntry { node, whole, without_policies });
    }

    /// The nodes that have a Node object.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.nodes.keys().map(String::as_str)
    }

    /// The version of a resource, as the agent of `node` gets it.
    pub fn version(&self, node: &str, key: &ResourceKey) -> Option<u64> {
        self.encoded(node, key).map(|encoded| encoded.version())
    }

    fn encoded(&self, node: &str, key: &ResourceKey) -> Option<&Arc<Encoded>> {
        match key.kind {
            ResourceKind::Workload => self.workloads.get(key).map(|entry| entry.seen_by(node)),
            ResourceKind::Service => self.services.get(key),
            ResourceKind::AuthorizationPolicy => self.policies.get(key),
            ResourceKind::Route(_) => self.routes.get(key).map(|entry| &entry.encoded),
        }
    }

    /// A Service and all that stand behind it.
    fn with_endpoints(&self, service: &NamespacedName) -> impl Iterator<Item = &ResourceKey> {
        let key = ResourceKey { kind: ResourceKind::Service, name: service.clone() };
        let service = self.services.get_key_value(&key).map(|(key, _)| key);
        service.into_iter().chain(self.behind.get(&key.name).into_iter().flatten())
    }

    /// The routes of `service` for clients of a node, and the Services that they lead to with all
    /// that stand behind those.
    fn add_routes<'p>(
        &'p self,
        service: &NamespacedName,
        needs: &NodeNeeds,
        keys: &mut BTreeSet<&'p ResourceKey>,
    ) {
        for key in self.attached.get(service).into_iter().flatten() {
            let namespace = &*key.name.namespace;
            let is_for_all = namespace == &*service.namespace;
            // Those of other namespaces are for clients of theirs.
            if !is_for_all && !needs.identities.iter().any(|it| it.namespace() == namespace) {
                continue;
            }
            keys.insert(key);
            let targets = self.routes.get(key).into_iter().flat_map(|entry| &entry.targets);
            keys.extend(targets.flat_map(|target| self.with_endpoints(target)));
        }
    }

    /// Whether there is a Node object of this name; one without sees nothing.
    pub fn knows(&self, node: &str) -> bool {
        self.nodes.contains_key(node)
    }

    /// What `node` needs: its own workloads with their policies and, where one of them is enrolled,
    /// what is in `scope`.
    pub fn view(&self, node: &str, scope: &Scope) -> View {
        let Some(needs) = self.nodes.get(node) else { return View::new() };
        let mut keys: BTreeSet<&ResourceKey> = needs.own.iter().collect();
        let policy = |name: &NamespacedName| {
            let key = ResourceKey { kind: ResourceKind::AuthorizationPolicy, name: name.clone() };
            Some(self.policies.get_key_value(&key)?.0)
        };
        keys.extend(needs.policies.iter().filter_map(policy));
        match scope {
            _ if needs.identities.is_empty() => {}
            // Agents of such versions know no routes.
            Scope::Whole => keys.extend(self.workloads.keys().chain(self.services.keys())),
            Scope::Addresses(addresses) => {
                for key in addresses.iter().filter_map(|it| self.owners.get(it)).flatten() {
                    keys.insert(key);
                    if key.kind == ResourceKind::Service {
                        keys.extend(self.with_endpoints(&key.name));
                        self.add_routes(&key.name, needs, &mut keys);
                    }
                }
            }
        }
        let encoded = |key: &ResourceKey| Some((key.clone(), self.encoded(node, key)?.clone()));
        keys.into_iter().filter_map(encoded).collect()
    }

    /// Whether an enrolled pod with this identity runs on `node`.
    pub fn runs(&self, node: &str, identity: &SpiffeId) -> bool {
        self.nodes.get(node).is_some_and(|needs| needs.identities.contains(identity))
    }
}

#[cfg(test)]
mod tests;
