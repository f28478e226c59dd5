//! Services, and what EndpointSlices put behind them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use mesh_common::model::{Membership, NamespacedName, PortMapping, Service};

use super::{Memberships, Problems, workload::Eligible};
use crate::{
    index::Index,
    object::{self, Endpoint, EndpointSlice, Kind, ServiceAddresses},
};

/// An endpoint that is no pod.
pub(super) struct OtherEndpoint {
    pub name: NamespacedName,
    pub node: Option<Arc<str>>,
    pub memberships: Vec<Membership>,
}

/// The Services that the mesh knows. Of two with one cluster IP the older has it, or the first by
/// name where ages are unknown.
pub(super) fn services(
    index: &Index<'_>,
    problems: &mut Problems,
) -> BTreeMap<NamespacedName, Service> {
    let mut owners: BTreeMap<IpAddr, &NamespacedName> = BTreeMap::new();
    let mut compiled = BTreeMap::new();
    let mut services: Vec<&object::Service> = index.services.values().copied().collect();
    services.sort_by_key(|service| (service.created.is_none(), service.created, &service.name));
    for service in services {
        let written = match &service.addresses {
            ServiceAddresses::Virtual(addresses) => addresses.as_slice(),
            ServiceAddresses::Headless => &[],
            ServiceAddresses::External => continue,
        };
        let mut addresses = Vec::new();
        for &address in written {
            match owners.get(&address) {
                None => {
                    owners.insert(address, &service.name);
                    addresses.push(address);
                }
                Some(first) => {
                    let reason =
                        format!("cluster IP {address} is that of Service {first}, which keeps it");
                    problems.add(Kind::Service, &service.name, reason);
                }
            }
        }
        let name = service.name.clone();
        let ports = service.ports.clone();
        compiled.insert(name.clone(), Service { name, addresses, ports });
    }
    compiled
}

/// Who stands behind which Service.
pub(super) fn memberships(
    index: &Index<'_>,
    services: &BTreeMap<NamespacedName, Service>,
    pods: &Eligible<'_>,
    problems: &mut Problems,
) -> Memberships {
    let mut memberships = Memberships::default();
    for slice in index.slices.values() {
        let Some(name) = &slice.service else {
            let reason = "has no label kubernetes.io/service-name, so it stands behind no Service";
            problems.add(Kind::EndpointSlice, &slice.name, reason.into());
            continue;
        };
        let Some(service) = services.get(name) else {
            if !index.services.contains_key(name) {
                let reason = format!("Service {name} does not exist");
                problems.add(Kind::EndpointSlice, &slice.name, reason);
            }
            continue;
        };
        let ports = mappings(service, slice);
        if ports.is_empty() && !service.ports.is_empty() && !slice.ports.is_empty() {
            let reason = format!("no port has the name of a TCP port of Service {name}");
            problems.add(Kind::EndpointSlice, &slice.name, reason);
        }
        for endpoint in &slice.endpoints {
            let membership =
                Membership { service: name.clone(), ports: ports.clone(), ready: endpoint.ready };
            match resolve(endpoint, index, pods) {
                Ok(Some(pod)) => {
                    add(memberships.of_pods.entry(pod.clone()).or_default(), membership);
                }
                Ok(None) => {
                    // While slices are split or merged, two have it for a moment.
                    let key = (slice.name.namespace.clone(), endpoint.address);
                    let other = memberships.others.entry(key).or_insert_with(|| OtherEndpoint {
                        name: other_name(slice, endpoint),
                        node: endpoint.node.clone(),
                        memberships: Vec::new(),
                    });
                    add(&mut other.memberships, membership);
                }
                Err(Stale::Finished) => {}
                Err(Stale::Reason(reason)) => {
                    problems.add(Kind::EndpointSlice, &slice.name, reason);
                }
            }
        }
    }
    memberships
}

/// The ports of `service` that `slice` serves: names tie them together.
fn mappings(service: &Service, slice: &EndpointSlice) -> Vec<PortMapping> {
    let mapping = |port: &mesh_common::model::ServicePort| {
        let target = slice.ports.iter().find(|target| target.name == port.name)?;
        Some(PortMapping { service_port: port.port, target_port: target.port })
    };
    service.ports.iter().filter_map(mapping).collect()
}

/// Why an endpoint is left out.
enum Stale {
    /// Its pod has run to its end or has no address: the slice will follow by itself.
    Finished,
    /// Something that does not mend itself.
    Reason(String),
}

/// The pod that an endpoint is, if it is one.
///
/// An endpoint that names a pod but has not its address is left out: the address may already be
/// another pod's, and a caller would meet an identity that it did not ask for.
fn resolve<'o>(
    endpoint: &Endpoint,
    index: &Index<'o>,
    pods: &Eligible<'o>,
) -> Result<Option<&'o NamespacedName>, Stale> {
    let address = endpoint.address;
    let owner = pods.by_address.get(&address).copied();
    let Some(named) = &endpoint.pod else { return Ok(owner) };
    match (pods.pods.get_key_value(named), index.pods.get(named)) {
        (Some((&name, (_, addresses))), _) if addresses.contains(&address) => Ok(Some(name)),
        (Some(_), _) => Err(Stale::Reason(format!(
            "endpoint {address} says it is Pod {named}, which has another address; it is left out"
        ))),
        (None, Some(_)) => Err(Stale::Finished),
        (None, None) => match owner {
            None => Ok(None),
            Some(owner) => Err(Stale::Reason(format!(
                "endpoint {address} says it is Pod {named}, which does not exist, but the address \
                 is that of Pod {owner}; it is left out"
            ))),
        },
    }
}

fn other_name(slice: &EndpointSlice, endpoint: &Endpoint) -> NamespacedName {
    let name = format!("{}/{}", slice.name.name, endpoint.address);
    NamespacedName::new(&slice.name.namespace, &name)
}

/// Adds a membership; slices of two families, or a slice that was split, name one Service twice.
fn add(memberships: &mut Vec<Membership>, new: Membership) {
    let Some(known) = memberships.iter_mut().find(|known| known.service == new.service) else {
        memberships.push(new);
        memberships.sort_by(|a, b| a.service.cmp(&b.service));
        return;
    };
    known.ready |= new.ready;
    for port in new.ports {
        if !known.ports.iter().any(|known| known.service_port == port.service_port) {
            known.ports.push(port);
        }
    }
    known.ports.sort_by_key(|port| port.service_port);
}
