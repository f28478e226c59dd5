//! From the model to messages: cannot fail.

use std::net::IpAddr;

use super::v1;
use crate::model::{
    Action, AuthorizationPolicy, Membership, NamespacedName, Operation, Resource, ResourceKey,
    ResourceKind, Rule, Service, ServicePort, Source, Workload,
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
        let action = match policy.action {
            Action::Allow => v1::authorization_policy::Action::Allow,
            Action::Deny => v1::authorization_policy::Action::Deny,
        };
        Self {
            name: Some((&policy.name).into()),
            action: action.into(),
            rules: policy.rules.iter().map(Into::into).collect(),
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
            principals: source.principals.iter().map(ToString::to_string).collect(),
            namespaces: source.namespaces.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<&Operation> for v1::Operation {
    fn from(operation: &Operation) -> Self {
        Self { ports: operation.ports.iter().copied().map(Into::into).collect() }
    }
}

fn addresses(addresses: &[IpAddr]) -> Vec<prost::bytes::Bytes> {
    let octets = |address: &IpAddr| match address {
        IpAddr::V4(v4) => prost::bytes::Bytes::copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => prost::bytes::Bytes::copy_from_slice(&v6.octets()),
    };
    addresses.iter().map(octets).collect()
}
