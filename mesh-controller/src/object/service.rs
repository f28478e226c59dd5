//! Services.

use std::net::IpAddr;

use k8s_openapi::{api::core::v1, apimachinery::pkg::util::intstr::IntOrString};
use mesh_common::model::{NamespacedName, ServicePort};

use super::{FieldError, Labels, addresses, fields};

/// A Service: virtual addresses and ports.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Namespace and name.
    pub name: NamespacedName,
    /// When it was made, seconds since the Unix epoch, where known.
    pub created: Option<i64>,
    /// What stands for it.
    pub addresses: ServiceAddresses,
    /// The TCP ports.
    pub ports: Vec<ServicePort>,
    /// Labels of the pods behind it; empty where somebody else says what is.
    pub selector: Labels,
    /// Those of the TCP ports that lead to a port which pods call by name, and that name.
    pub target_names: Vec<(u16, Box<str>)>,
}

/// What stands for a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceAddresses {
    /// Cluster IPs, each family at most once; none where the Service is yet to be applied and they
    /// yet to be given out.
    Virtual(Vec<IpAddr>),
    /// Nothing: names resolve to the pods.
    Headless,
    /// A name elsewhere: none of the mesh's business.
    External,
}

impl TryFrom<v1::Service> for Service {
    type Error = FieldError;

    fn try_from(service: v1::Service) -> Result<Self, FieldError> {
        let service = Self::unapplied(service)?;
        match &service.addresses {
            ServiceAddresses::Virtual(addresses) if addresses.is_empty() => Err(FieldError::new(
                "spec.clusterIP",
                "missing; write the address, or `None` for a headless Service: only a cluster gives \
                 addresses out",
            )),
            _ => Ok(service),
        }
    }
}

impl Service {
    /// The Service as it is written before an API server gave it an address.
    ///
    /// # Errors
    /// Where a field cannot be used.
    pub fn unapplied(service: v1::Service) -> Result<Self, FieldError> {
        let name = fields::named(&service.metadata)?;
        let spec = service.spec.unwrap_or_default();
        let target_names = target_names(spec.ports.as_deref().unwrap_or_default());
        Ok(Self {
            name,
            created: service.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second()),
            addresses: service_addresses(&spec)?,
            ports: ports(spec.ports.unwrap_or_default())?,
            selector: spec.selector.unwrap_or_default(),
            target_names,
        })
    }
}

fn target_names(ports: &[v1::ServicePort]) -> Vec<(u16, Box<str>)> {
    let named = ports.iter().filter(|port| fields::is_tcp(port.protocol.as_deref()));
    let named = named.filter_map(|port| match &port.target_port {
        Some(IntOrString::String(name)) => Some((u16::try_from(port.port).ok()?, name)),
        _ => None,
    });
    named.map(|(port, name)| (port, name.as_str().into())).collect()
}

fn service_addresses(spec: &v1::ServiceSpec) -> Result<ServiceAddresses, FieldError> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return Ok(ServiceAddresses::External);
    }
    let first = spec.cluster_ip.as_deref().filter(|text| !text.is_empty());
    let all = spec.cluster_ips.as_deref().unwrap_or_default();
    if first == Some("None") || all.first().is_some_and(|text| text == "None") {
        return Ok(ServiceAddresses::Headless);
    }
    let first = first.map(|text| fields::address("spec.clusterIP", text)).transpose()?;
    let all = addresses("spec.clusterIPs", all.iter().map(String::as_str))?;
    match (first, all.first()) {
        (Some(first), None) => Ok(ServiceAddresses::Virtual(vec![first])),
        (Some(first), Some(head)) if first != *head => Err(FieldError::new(
            "spec.clusterIPs",
            format!("the first entry is {head}, but spec.clusterIP is {first}"),
        )),
        _ => Ok(ServiceAddresses::Virtual(all)),
    }
}

fn ports(list: Vec<v1::ServicePort>) -> Result<Vec<ServicePort>, FieldError> {
    let is_only = list.len() <= 1;
    let mut ports: Vec<ServicePort> = Vec::new();
    for (at, port) in list.into_iter().enumerate() {
        let field = format!("spec.ports[{at}]");
        let number = fields::port(&format!("{field}.port"), port.port)?;
        let name = port.name.unwrap_or_default();
        if !fields::is_tcp(port.protocol.as_deref()) {
            continue;
        }
        if name.is_empty() && !is_only {
            return Err(FieldError::new(
                format!("{field}.name"),
                "missing; each port of several needs a name",
            ));
        }
        if ports.iter().any(|known| *known.name == *name || known.port == number) {
            return Err(FieldError::new(field, "an earlier port has the same name or number"));
        }
        ports.push(ServicePort {
            port: number,
            name: name.into(),
            app_protocol: port.app_protocol.map(Into::into),
        });
    }
    Ok(ports)
}
