//! What a node needs of the mesh, encoded for the wire: pure.

use std::{
    collections::{BTreeMap, BTreeSet},
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
}

#[derive(Debug)]
struct WorkloadEntry {
    node: Option<Arc<str>>,
    /// For its own node.
    whole: Arc<Encoded>,
    /// For the others, who do not judge calls to it.
    without_policies: Arc<Encoded>,
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
                Resource::Service(_) => {
                    picture.services.insert(key.clone(), Encoded::new(resource).into());
                }
                Resource::AuthorizationPolicy(_) => {
                    picture.policies.insert(key.clone(), Encoded::new(resource).into());
                }
            }
        }
        picture
    }

    fn add_workload(&mut self, key: &ResourceKey, resource: &Resource, workload: &Workload) {
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
        let encoded = match key.kind {
            ResourceKind::Workload => {
                let entry = self.workloads.get(key)?;
                let is_own = entry.node.as_deref() == Some(node);
                if is_own { &entry.whole } else { &entry.without_policies }
            }
            ResourceKind::Service => self.services.get(key)?,
            ResourceKind::AuthorizationPolicy => self.policies.get(key)?,
        };
        Some(encoded.version())
    }

    /// Whether there is a Node object of this name; one without sees nothing.
    pub fn knows(&self, node: &str) -> bool {
        self.nodes.contains_key(node)
    }

    /// What `node` needs: with enrolled pods every workload and Service, and the policies of its
    /// own workloads; without, its own workloads only.
    pub fn view(&self, node: &str) -> View {
        let Some(needs) = self.nodes.get(node) else { return View::new() };
        if needs.identities.is_empty() {
            let own = |key: &ResourceKey| {
                self.workloads.get(key).map(|entry| (key.clone(), entry.whole.clone()))
            };
            return needs.own.iter().filter_map(own).collect();
        }
        let workloads = self.workloads.iter().map(|(key, entry)| {
            let is_own = entry.node.as_deref() == Some(node);
            (key, if is_own { &entry.whole } else { &entry.without_policies })
        });
        let policies = needs.policies.iter().filter_map(|name| {
            let kind = ResourceKind::AuthorizationPolicy;
            self.policies.get_key_value(&ResourceKey { kind, name: name.clone() })
        });
        let all = workloads.chain(&self.services).chain(policies);
        all.map(|(key, encoded)| (key.clone(), encoded.clone())).collect()
    }

    /// Whether an enrolled pod with this identity runs on `node`.
    pub fn runs(&self, node: &str, identity: &SpiffeId) -> bool {
        self.nodes.get(node).is_some_and(|needs| needs.identities.contains(identity))
    }
}

#[cfg(test)]
mod tests;
