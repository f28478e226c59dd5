//! Objects by kind and name, as the compiler looks them up.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_common::model::NamespacedName;

use crate::object::{
    EndpointSlice, MeshConfig, Namespace, Node, Object, ObjectKey, PeerPolicy, Pod, Policy, Route,
    RuntimeClass, Service,
};

/// Every object in use. Iteration is in the order of names, so what is compiled from it does not
/// depend on the order of arrival.
#[derive(Debug, Default)]
pub struct Index<'o> {
    /// Namespaces by name.
    pub namespaces: BTreeMap<&'o str, &'o Namespace>,
    /// Nodes by name.
    pub nodes: BTreeMap<&'o str, &'o Node>,
    /// Pods.
    pub pods: BTreeMap<&'o NamespacedName, &'o Pod>,
    /// Services.
    pub services: BTreeMap<&'o NamespacedName, &'o Service>,
    /// ServiceAccounts.
    pub accounts: BTreeSet<&'o NamespacedName>,
    /// EndpointSlices.
    pub slices: BTreeMap<&'o NamespacedName, &'o EndpointSlice>,
    /// RuntimeClasses by name.
    pub runtime_classes: BTreeMap<&'o str, &'o RuntimeClass>,
    /// AuthorizationPolicies.
    pub policies: BTreeMap<&'o NamespacedName, &'o Policy>,
    /// PeerPolicies.
    pub peer_policies: BTreeMap<&'o NamespacedName, &'o PeerPolicy>,
    /// The MeshConfig.
    pub config: Option<&'o MeshConfig>,
    /// Routes of all kinds.
    pub routes: BTreeMap<ObjectKey, &'o Route>,
}

impl<'o> FromIterator<&'o Arc<Object>> for Index<'o> {
    fn from_iter<I: IntoIterator<Item = &'o Arc<Object>>>(objects: I) -> Self {
        let mut index = Self::default();
        for object in objects {
            match &**object {
                Object::Namespace(it) => {
                    index.namespaces.insert(&it.name, it);
                }
                Object::Node(it) => {
                    index.nodes.insert(&it.name, it);
                }
                Object::Pod(it) => {
                    index.pods.insert(&it.name, it);
                }
                Object::Service(it) => {
                    index.services.insert(&it.name, it);
                }
                Object::ServiceAccount(it) => {
                    index.accounts.insert(&it.name);
                }
                Object::EndpointSlice(it) => {
                    index.slices.insert(&it.name, it);
                }
                Object::RuntimeClass(it) => {
                    index.runtime_classes.insert(&it.name, it);
                }
                Object::AuthorizationPolicy(it) => {
                    index.policies.insert(&it.compiled.name, it);
                }
                Object::PeerPolicy(it) => {
                    index.peer_policies.insert(&it.name, it);
                }
                Object::MeshConfig(it) => index.config = Some(it),
                Object::Route(it) => {
                    index.routes.insert(object.key(), it);
                }
            }
        }
        index
    }
}
