//! Pods, and endpoints that are no pods, as workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use mesh_common::{
    identity::{SpiffeId, TrustDomain},
    model::{Admission, NamespacedName, Workload},
};

use super::{Memberships, Problems, admission::Admissions, authorization::Attachments};
use crate::{
    captured::Captures,
    index::Index,
    object::{Kind, Pod},
};

/// The pods that become workloads, and who owns which address.
pub(super) struct Eligible<'o> {
    /// The pods with the addresses that are theirs.
    pub pods: BTreeMap<&'o NamespacedName, (&'o Pod, Vec<IpAddr>)>,
    /// Which pod has an address; addresses of nodes are in it for no pod.
    pub by_address: BTreeMap<IpAddr, &'o NamespacedName>,
}

/// The pods that run and have addresses. Of two with one address, or one uid, one that is not being
/// deleted has it, then the older, or the first by name where ages are unknown: a node gives an
/// address anew as soon as a pod's processes have ended, before the API server forgets the pod.
pub(super) fn eligible<'o>(index: &Index<'o>, problems: &mut Problems) -> Eligible<'o> {
    let mut eligible = Eligible { pods: BTreeMap::new(), by_address: BTreeMap::new() };
    let mut by_uid: BTreeMap<&str, &NamespacedName> = BTreeMap::new();
    let mut pods: Vec<&Pod> = index
        .pods
        .values()
        .copied()
        .filter(|pod| !pod.finished && !pod.addresses.is_empty())
        .collect();
    pods.sort_by_key(|pod| (pod.deleting, pod.created.is_none(), pod.created, &pod.name));
    for pod in pods {
        if let Some(first) = by_uid.insert(&pod.node_uid, &pod.name) {
            by_uid.insert(&pod.node_uid, first);
            let reason = format!("has the uid of Pod {first}, and is left out: uids are unique");
            problems.add(Kind::Pod, &pod.name, reason);
            continue;
        }
        let mut addresses = Vec::new();
        for &address in &pod.addresses {
            if pod.host_network {
                addresses.push(address);
                continue;
            }
            match eligible.by_address.get(&address) {
                None => {
                    eligible.by_address.insert(address, &pod.name);
                    addresses.push(address);
                }
                Some(first) => {
                    let reason = format!(
                        "address {address} is that of Pod {first}, which keeps it: an address is one pod's"
                    );
                    problems.add(Kind::Pod, &pod.name, reason);
                }
            }
        }
        if !addresses.is_empty() {
            eligible.pods.insert(&pod.name, (pod, addresses));
        }
    }
    eligible
}

/// What workloads are made of.
pub(super) struct Inputs<'i, 'o> {
    pub index: &'i Index<'o>,
    pub pods: Eligible<'o>,
    pub enrolled: BTreeSet<&'o NamespacedName>,
    pub captures: &'i Captures,
    pub trust_domain: &'i TrustDomain,
    pub memberships: Memberships,
    pub problems: &'i mut Problems,
}

/// Every workload of the mesh.
pub(super) fn workloads(inputs: Inputs<'_, '_>) -> Vec<Workload> {
    let Inputs { index, pods, enrolled, captures, trust_domain, mut memberships, problems } =
        inputs;
    let attachments = Attachments::new(index);
    let admissions = Admissions::new(index, problems);
    let mut workloads = Vec::new();
    for (name, (pod, addresses)) in pods.pods {
        let identity = match identity(pod, trust_domain) {
            Ok(identity) => identity,
            Err(reason) => {
                problems.add(Kind::Pod, name, reason);
                continue;
            }
        };
        let enrolled = enrolled.contains(name);
        let memberships = memberships.of_pods.remove(name).unwrap_or_default();
        let captured = match enrolled {
            true => pod.node.as_ref().is_some_and(|node| captures.holds(node, &pod.node_uid)),
            // A pod of another mesh, which must have an identity of ours to be believed.
            false => pod.speaks_hbone && identity.is_some(),
        };
        workloads.push(Workload {
            name: name.clone(),
            uid: pod.node_uid.clone(),
            node: pod.node.clone(),
            addresses,
            identity,
            enrolled,
            captured,
            authorization_policies: match enrolled {
                true => attachments.of(pod, &memberships),
                false => Vec::new(),
            },
            admission: match enrolled {
                true => admissions.of(pod),
                false => Admission::default(),
            },
            memberships,
        });
    }
    workloads.extend(memberships.others.into_iter().map(|((_, address), endpoint)| Workload {
        uid: Arc::from(endpoint.name.to_string()),
        name: endpoint.name,
        node: endpoint.node,
        addresses: vec![address],
        identity: None,
        enrolled: false,
        captured: false,
        memberships: endpoint.memberships,
        authorization_policies: Vec::new(),
        admission: Default::default(),
    }));
    workloads
}

/// A pod's identity. One in its node's network namespace has none: its address is that of every
/// other such pod on the node.
fn identity(pod: &Pod, trust_domain: &TrustDomain) -> Result<Option<SpiffeId>, String> {
    if pod.host_network {
        return Ok(None);
    }
    SpiffeId::new(trust_domain.clone(), &pod.name.namespace, &pod.service_account)
        .map(Some)
        .map_err(|error| format!("has no identity, and is left out: {error}"))
}
