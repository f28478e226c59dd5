//! From the model to messages: cannot fail.

use std::{net::IpAddr, sync::Arc};

use super::v1;
use crate::model::{
    Action, Admission, AuthorizationPolicy, Enforcement, Membership, NamespacedName, Operation,
    PeerMode, Resource, ResourceKey, ResourceKind, RouteKind, Rule, Service, ServicePort, Source,
    Workload,
};

impl From<&NamespacedName> for v1::NamespacedName {
    fn from(name: &NamespacedName) -> Self {
        Self { namespace: name.namespace.to_string(), name: name.name.to_string() }
    }
}

impl From<ResourceKind> for v1::ResourceKind {
    fn from(kind: ResourceKind) -> Self {
        match kind {
            ResourceKind::Workload => Self::Workload,
            ResourceKind::Service => Self::Service,
            ResourceKind::AuthorizationPolicy => Self::AuthorizationPolicy,
            ResourceKind::Route(RouteKind::Grpc) => Self::GrpcRoute,
            ResourceKind::Route(RouteKind::Http) => Self::HttpRoute,
            ResourceKind::Route(RouteKind::Tls) => Self::TlsRoute,
            ResourceKind::Route(RouteKind::Tcp) => Self::TcpRoute,
        }
    }
}

impl From<&ResourceKey> for v1::ResourceKey {
    fn from(key: &ResourceKey) -> Self {
        Self { kind: v1::ResourceKind::from(key.kind).into(), name: Some((&key.name).into()) }
    }
}

impl From<&Resource> for v1::resource::Resource {
    fn from(resource: &Resource) -> Self {
        match resource {
            Resource::Workload(workload) => Self::Workload(workload.into()),
            Resource::Service(service) => Self::Service(service.into()),
            Resource::AuthorizationPolicy(policy) => Self::AuthorizationPolicy(policy.into()),
            Resource::Route(route) => Self::Route(route.into()),
        }
    }
}

impl From<&Workload> for v1::Workload {
    fn from(workload: &Workload) -> Self {
        Self {
            name: Some((&workload.name).into()),
            uid: workload.uid.to_string(),
            node: workload.node.as_deref().unwrap_or_default().to_owned(),
            addresses: addresses(&workload.addresses),
            identity: workload.identity.as_ref().map(ToString::to_string).unwrap_or_default(),
            enrolled: workload.enrolled,
            captured: workload.captured,
            memberships: workload.memberships.iter().map(Into::into).collect(),
            authorization_policies: workload
                .authorization_policies
                .iter()
                .map(Into::into)
                .collect(),
            admission: (workload.admission != Admission::default())
                .then(|| (&workload.admission).into()),
        }
    }
}

impl From<&Admission> for v1::Admission {
    fn from(admission: &Admission) -> Self {
        let port_mode = |it: &crate::model::PortMode| v1::PortMode {
            port: it.port.into(),
            mode: v1::PeerMode::from(it.mode).into(),
        };
        Self {
            default_action: v1::authorization_policy::Action::from(admission.default_action).into(),
            peer_mode: v1::PeerMode::from(admission.peer_mode).into(),
            port_modes: admission.port_modes.iter().map(port_mode).collect(),
            peer_policy: admission.peer_policy.as_ref().map(Into::into),
            probe_ports: admission.probe_ports.iter().map(|port| (*port).into()).collect(),
        }
    }
}

impl From<PeerMode> for v1::PeerMode {
    fn from(mode: PeerMode) -> Self {
        match mode {
            PeerMode::Permissive => Self::Permissive,
            PeerMode::Strict => Self::Strict,
        }
    }
}

impl From<Action> for v1::authorization_policy::Action {
    fn from(action: Action) -> Self {
        match action {
            Action::Allow => Self::Allow,
            Action::Deny => Self::Deny,
        }
    }
}

impl From<&Membership> for v1::Membership {
    fn from(membership: &Membership) -> Self {
        let port = |port: &crate::model::PortMapping| v1::PortMapping {
            service_port: port.service_port.into(),
            target_port: port.target_port.into(),
        };
        Self {
            service: Some((&membership.service).into()),
            ports: membership.ports.iter().map(port).collect(),
            ready: membership.ready,
        }
    }
}

impl From<&Service> for v1::Service {
    fn from(service: &Service) -> Self {
        Self {
            name: Some((&service.name).into()),
            addresses: addresses(&service.addresses),
            ports: service.ports.iter().map(Into::into).collect(),
        }
    }
}

impl From<&ServicePort> for v1::ServicePort {
    fn from(port: &ServicePort) -> Self {
        Self {
            port: port.port.into(),
            name: port.name.to_string(),
            app_protocol: port.app_protocol.as_deref().map(str::to_owned),
        }
    }
}

impl From<&AuthorizationPolicy> for v1::AuthorizationPolicy {
    fn from(policy: &AuthorizationPolicy) -> Self {
        use v1::authorization_policy::Enforcement as Wire;
        let enforcement = match policy.enforcement {
            Enforcement::Enforce => Wire::Enforce,
            Enforcement::Audit => Wire::Audit,
        };
        Self {
            name: Some((&policy.name).into()),
            action: v1::authorization_policy::Action::from(policy.action).into(),
            rules: policy.rules.iter().map(Into::into).collect(),
            revision: policy.revision(),
            enforcement: enforcement.into(),
            service: policy.service.as_ref().map(Into::into),
            selector: policy.selector.iter().map(label).collect(),
        }
    }
}

impl From<&Rule> for v1::Rule {
    fn from(rule: &Rule) -> Self {
        Self {
            name: rule.name.to_string(),
            from: rule.from.iter().map(Into::into).collect(),
            to: rule.to.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Source> for v1::Source {
    fn from(source: &Source) -> Self {
        Self {
            principals: texts(&source.principals),
            not_principals: texts(&source.not_principals),
            namespaces: texts(&source.namespaces),
            not_namespaces: texts(&source.not_namespaces),
            service_accounts: source.service_accounts.iter().map(Into::into).collect(),
            not_service_accounts: source.not_service_accounts.iter().map(Into::into).collect(),
            ip_blocks: texts(&source.ip_blocks),
            not_ip_blocks: texts(&source.not_ip_blocks),
        }
    }
}

impl From<&Operation> for v1::Operation {
    fn from(operation: &Operation) -> Self {
        let ports = |list: &[u16]| list.iter().copied().map(Into::into).collect();
        Self { ports: ports(&operation.ports), not_ports: ports(&operation.not_ports) }
    }
}

fn label((key, value): (&Arc<str>, &Arc<str>)) -> v1::Label {
    v1::Label { key: key.to_string(), value: value.to_string() }
}

fn texts<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn addresses(addresses: &[IpAddr]) -> Vec<prost::bytes::Bytes> {
    addresses.iter().copied().map(octets).collect()
}

/// The bytes of an address, in network order.
pub fn octets(address: IpAddr) -> prost::bytes::Bytes {
    match address {
        IpAddr::V4(v4) => prost::bytes::Bytes::copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => prost::bytes::Bytes::copy_from_slice(&v6.octets()),
    }
}
