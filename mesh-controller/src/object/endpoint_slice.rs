//! EndpointSlices.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::{core::v1::ObjectReference, discovery::v1};
use mesh_common::model::NamespacedName;

use super::{FieldError, fields};

/// What Kubernetes writes on a slice to say which Service it belongs to.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// An EndpointSlice: what stands behind a Service.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: NamespacedName,
    /// The Service that it belongs to; `None` where it belongs to none.
    pub service: Option<NamespacedName>,
    /// The TCP ports.
    pub ports: Vec<SlicePort>,
    /// The endpoints; none where the slice holds host names.
    pub endpoints: Vec<Endpoint>,
}

/// A port of every endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The name that ties it to a port of the Service.
    pub name: Arc<str>,
    /// The port on the endpoint.
    pub port: u16,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// The Pod that it says it is.
    pub pod: Option<NamespacedName>,
    /// The node that it is on.
    pub node: Option<Arc<str>>,
    /// Whether it takes connections.
    pub ready: bool,
}

impl TryFrom<v1::EndpointSlice> for EndpointSlice {
    type Error = FieldError;

    fn try_from(slice: v1::EndpointSlice) -> Result<Self, FieldError> {
        let name = fields::named(&slice.metadata)?;
        let label = slice.metadata.labels.unwrap_or_default().remove(SERVICE_LABEL);
        let service = label.filter(|label| !label.is_empty());
        let endpoints = match slice.address_type.as_str() {
            "IPv4" | "IPv6" => endpoints(
                slice.endpoints.unwrap_or_default(),
                slice.address_type == "IPv4",
                &name.namespace,
            )?,
            // Host names have no address that a connection could be matched by.
            "FQDN" => Vec::new(),
            other => {
                return Err(FieldError::new(
                    "addressType",
                    format!("`{other}` is none of IPv4, IPv6, FQDN"),
                ));
            }
        };
        Ok(Self {
            service: service.map(|service| NamespacedName::new(&name.namespace, &service)),
            ports: ports(slice.ports.unwrap_or_default())?,
            endpoints,
            name,
        })
    }
}

fn ports(list: Vec<v1::EndpointPort>) -> Result<Vec<SlicePort>, FieldError> {
    let mut ports: Vec<SlicePort> = Vec::new();
    for (at, port) in list.into_iter().enumerate() {
        let field = format!("ports[{at}]");
        // A port without a number stands for all ports, which only UDP-like protocols use.
        let Some(number) = port.port else { continue };
        if !fields::is_tcp(port.protocol.as_deref()) {
            continue;
        }
        let name: Arc<str> = port.name.unwrap_or_default().into();
        if ports.iter().any(|known| known.name == name) {
            return Err(FieldError::new(field, "an earlier port has the same name"));
        }
        ports.push(SlicePort { name, port: fields::port(&format!("{field}.port"), number)? });
    }
    Ok(ports)
}

fn endpoints(
    list: Vec<v1::Endpoint>,
    is_v4: bool,
    namespace: &str,
) -> Result<Vec<Endpoint>, FieldError> {
    let endpoint = |(at, endpoint): (usize, v1::Endpoint)| {
        let field = format!("endpoints[{at}].addresses[0]");
        // Kubernetes itself uses the first address only; more are not defined.
        let text = endpoint.addresses.first().ok_or_else(|| {
            FieldError::new(format!("endpoints[{at}].addresses"), "missing; one address is needed")
        })?;
        let address = fields::address(&field, text)?;
        if address.is_ipv4() != is_v4 {
            let reason = format!("`{text}` is not of the slice's addressType");
            return Err(FieldError::new(field, reason));
        }
        let conditions = endpoint.conditions.unwrap_or_default();
        Ok(Endpoint {
            address,
            pod: endpoint.target_ref.and_then(|target| pod(target, namespace)),
            node: endpoint.node_name.filter(|node| !node.is_empty()).map(Into::into),
            // Not said means ready, by the definition of the field.
            ready: conditions.ready.unwrap_or(true),
        })
    };
    list.into_iter().enumerate().map(endpoint).collect()
}

fn pod(target: ObjectReference, namespace: &str) -> Option<NamespacedName> {
    let is_pod = target.kind.as_deref() == Some("Pod");
    let namespace = target.namespace.as_deref().unwrap_or(namespace);
    is_pod.then_some(target.name)?.map(|name| NamespacedName::new(namespace, &name))
}
