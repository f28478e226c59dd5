//! From messages to the model: parses, so that what comes out needs no further checks.

use std::{net::IpAddr, str::FromStr};

use prost::bytes::Bytes;

use super::v1;
use crate::{
    identity::InvalidIdentity,
    model::{
        Action, Admission, AuthorizationPolicy, Enforcement, InvalidIpBlock, InvalidPattern,
        InvalidPrincipal, Membership, NamespacedName, Operation, POLICY_REVISION, PeerMode,
        PortMapping, PortMode, Resource, ResourceKey, ResourceKind, RouteKind, Rule, Service,
        ServicePort, Source, Workload,
    },
};

/// Why a message is not a resource of this version of the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidResource {
    /// A field that must be set is not.
    #[error("field {0} is missing")]
    Missing(&'static str),
    /// A kind, or an enum value, that this version does not know.
    #[error("field {0} has a value that this version does not know")]
    Unknown(&'static str),
    /// An address that is neither 4 nor 16 bytes.
    #[error("an address has {0} bytes, which is neither IPv4 nor IPv6")]
    Address(usize),
    /// A port outside 1 to 65535.
    #[error("port {0} is not within 1 to 65535")]
    Port(u32),
    /// An identity that does not parse.
    #[error(transparent)]
    Identity(#[from] InvalidIdentity),
    /// A pattern of identities that does not parse.
    #[error(transparent)]
    Principal(#[from] InvalidPrincipal),
    /// A block of addresses that does not parse.
    #[error(transparent)]
    IpBlock(#[from] InvalidIpBlock),
    /// A regular expression that does not parse.
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    /// A method, a header or a number that cannot be.
    #[error("field {0} has a value that makes no sense")]
    Value(&'static str),
    /// A policy that uses what this version does not know.
    #[error(
        "it needs revision {0} of the policy language and this agent knows {POLICY_REVISION}: \
         upgrade the agent; until then the policy denies"
    )]
    Revision(u32),
}

impl TryFrom<v1::NamespacedName> for NamespacedName {
    type Error = InvalidResource;

    fn try_from(name: v1::NamespacedName) -> Result<Self, Self::Error> {
        if name.name.is_empty() {
            return Err(InvalidResource::Missing("name"));
        }
        Ok(Self::new(&name.namespace, &name.name))
    }
}

impl TryFrom<v1::ResourceKey> for ResourceKey {
    type Error = InvalidResource;

    fn try_from(key: v1::ResourceKey) -> Result<Self, Self::Error> {
        let kind = match key.kind() {
            v1::ResourceKind::Workload => ResourceKind::Workload,
            v1::ResourceKind::Service => ResourceKind::Service,
            v1::ResourceKind::AuthorizationPolicy => ResourceKind::AuthorizationPolicy,
            v1::ResourceKind::GrpcRoute => ResourceKind::Route(RouteKind::Grpc),
            v1::ResourceKind::HttpRoute => ResourceKind::Route(RouteKind::Http),
            v1::ResourceKind::TlsRoute => ResourceKind::Route(RouteKind::Tls),
            v1::ResourceKind::TcpRoute => ResourceKind::Route(RouteKind::Tcp),
            v1::ResourceKind::Unspecified => return Err(InvalidResource::Unknown("kind")),
        };
        Ok(Self { kind, name: required(key.name, "name")? })
    }
}

impl TryFrom<v1::resource::Resource> for Resource {
    type Error = InvalidResource;

    fn try_from(resource: v1::resource::Resource) -> Result<Self, Self::Error> {
        use v1::resource::Resource as Wire;
        Ok(match resource {
            Wire::Workload(workload) => Self::Workload(workload.try_into()?),
            Wire::Service(service) => Self::Service(service.try_into()?),
            Wire::AuthorizationPolicy(policy) => Self::AuthorizationPolicy(policy.try_into()?),
            Wire::Route(route) => Self::Route(route.try_into()?),
        })
    }
}

impl TryFrom<v1::Workload> for Workload {
    type Error = InvalidResource;

    fn try_from(workload: v1::Workload) -> Result<Self, Self::Error> {
        let identity = match workload.identity.as_str() {
            "" => None,
            text => Some(text.parse()?),
        };
        Ok(Self {
            name: required(workload.name, "name")?,
            uid: workload.uid.into(),
            node: (!workload.node.is_empty()).then(|| workload.node.into()),
            addresses: addresses(&workload.addresses)?,
            identity,
            enrolled: workload.enrolled,
            captured: workload.captured,
            memberships: all(workload.memberships)?,
            authorization_policies: all(workload.authorization_policies)?,
            admission: workload
                .admission
                .map_or_else(|| Ok(Admission::default()), TryInto::try_into)?,
        })
    }
}

impl TryFrom<v1::Admission> for Admission {
    type Error = InvalidResource;

    fn try_from(admission: v1::Admission) -> Result<Self, Self::Error> {
        Ok(Self {
            default_action: admission.default_action().try_into()?,
            peer_mode: admission.peer_mode().try_into()?,
            port_modes: all(admission.port_modes)?,
            peer_policy: admission.peer_policy.map(TryInto::try_into).transpose()?,
            probe_ports: admission.probe_ports.into_iter().map(port).collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<v1::PortMode> for PortMode {
    type Error = InvalidResource;

    fn try_from(wire: v1::PortMode) -> Result<Self, Self::Error> {
        Ok(Self { port: port(wire.port)?, mode: wire.mode().try_into()? })
    }
}

impl TryFrom<v1::PeerMode> for PeerMode {
    type Error = InvalidResource;

    fn try_from(mode: v1::PeerMode) -> Result<Self, Self::Error> {
        match mode {
            v1::PeerMode::Permissive => Ok(Self::Permissive),
            v1::PeerMode::Strict => Ok(Self::Strict),
            v1::PeerMode::Unspecified => Err(InvalidResource::Unknown("peer_mode")),
        }
    }
}

impl TryFrom<v1::authorization_policy::Action> for Action {
    type Error = InvalidResource;

    fn try_from(action: v1::authorization_policy::Action) -> Result<Self, Self::Error> {
        use v1::authorization_policy::Action as Wire;
        match action {
            Wire::Allow => Ok(Self::Allow),
            Wire::Deny => Ok(Self::Deny),
            Wire::Unspecified => Err(InvalidResource::Unknown("action")),
        }
    }
}

impl TryFrom<v1::Membership> for Membership {
    type Error = InvalidResource;

    fn try_from(membership: v1::Membership) -> Result<Self, Self::Error> {
        Ok(Self {
            service: required(membership.service, "service")?,
            ports: all(membership.ports)?,
            ready: membership.ready,
        })
    }
}

impl TryFrom<v1::PortMapping> for PortMapping {
    type Error = InvalidResource;

    fn try_from(mapping: v1::PortMapping) -> Result<Self, Self::Error> {
        Ok(Self {
            service_port: port(mapping.service_port)?,
            target_port: port(mapping.target_port)?,
        })
    }
}

impl TryFrom<v1::Service> for Service {
    type Error = InvalidResource;

    fn try_from(service: v1::Service) -> Result<Self, Self::Error> {
        Ok(Self {
            name: required(service.name, "name")?,
            addresses: addresses(&service.addresses)?,
            ports: all(service.ports)?,
        })
    }
}

impl TryFrom<v1::ServicePort> for ServicePort {
    type Error = InvalidResource;

    fn try_from(wire: v1::ServicePort) -> Result<Self, Self::Error> {
        Ok(Self {
            port: port(wire.port)?,
            name: wire.name.into(),
            app_protocol: wire.app_protocol.map(Into::into),
        })
    }
}

impl TryFrom<v1::AuthorizationPolicy> for AuthorizationPolicy {
    type Error = InvalidResource;

    fn try_from(policy: v1::AuthorizationPolicy) -> Result<Self, Self::Error> {
        use v1::authorization_policy::Enforcement as Wire;
        if policy.revision > POLICY_REVISION {
            return Err(InvalidResource::Revision(policy.revision));
        }
        // Not the accessor, which takes a value that it does not know for the default.
        let enforcement = match Wire::try_from(policy.enforcement) {
            Ok(Wire::Enforce) => Enforcement::Enforce,
            Ok(Wire::Audit) => Enforcement::Audit,
            Err(_) => return Err(InvalidResource::Unknown("enforcement")),
        };
        let label = |it: v1::Label| (it.key.into(), it.value.into());
        Ok(Self {
            action: policy.action().try_into()?,
            name: required(policy.name, "name")?,
            enforcement,
            service: policy.service.map(TryInto::try_into).transpose()?,
            selector: policy.selector.into_iter().map(label).collect(),
            rules: all(policy.rules)?,
        })
    }
}

impl TryFrom<v1::Rule> for Rule {
    type Error = InvalidResource;

    fn try_from(rule: v1::Rule) -> Result<Self, Self::Error> {
        Ok(Self { name: rule.name.into(), from: all(rule.from)?, to: all(rule.to)? })
    }
}

impl TryFrom<v1::Source> for Source {
    type Error = InvalidResource;

    fn try_from(source: v1::Source) -> Result<Self, Self::Error> {
        let names = |list: Vec<String>| list.into_iter().map(Into::into).collect();
        Ok(Self {
            principals: parsed(&source.principals)?,
            not_principals: parsed(&source.not_principals)?,
            namespaces: names(source.namespaces),
            not_namespaces: names(source.not_namespaces),
            service_accounts: all(source.service_accounts)?,
            not_service_accounts: all(source.not_service_accounts)?,
            ip_blocks: parsed(&source.ip_blocks)?,
            not_ip_blocks: parsed(&source.not_ip_blocks)?,
        })
    }
}

impl TryFrom<v1::Operation> for Operation {
    type Error = InvalidResource;

    fn try_from(operation: v1::Operation) -> Result<Self, Self::Error> {
        let ports = |list: Vec<u32>| list.into_iter().map(port).collect::<Result<_, _>>();
        Ok(Self { ports: ports(operation.ports)?, not_ports: ports(operation.not_ports)? })
    }
}

fn parsed<T>(list: &[String]) -> Result<Vec<T>, InvalidResource>
where
    T: FromStr,
    InvalidResource: From<T::Err>,
{
    list.iter().map(|text| Ok(text.parse()?)).collect()
}

pub(super) fn required<W, T>(field: Option<W>, name: &'static str) -> Result<T, InvalidResource>
where
    T: TryFrom<W, Error = InvalidResource>,
{
    field.ok_or(InvalidResource::Missing(name))?.try_into()
}

pub(super) fn all<W, T>(fields: Vec<W>) -> Result<Vec<T>, InvalidResource>
where
    T: TryFrom<W, Error = InvalidResource>,
{
    fields.into_iter().map(TryInto::try_into).collect()
}

pub(super) fn port(port: u32) -> Result<u16, InvalidResource> {
    u16::try_from(port).ok().filter(|port| *port != 0).ok_or(InvalidResource::Port(port))
}

fn addresses(addresses: &[Bytes]) -> Result<Vec<IpAddr>, InvalidResource> {
    addresses.iter().map(|octets| address(octets)).collect()
}

/// The address that these bytes are, in network order.
///
/// # Errors
/// Where they are neither 4 nor 16.
pub fn address(octets: &[u8]) -> Result<IpAddr, InvalidResource> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        Ok(v4.into())
    } else if let Ok(v6) = <[u8; 16]>::try_from(octets) {
        Ok(v6.into())
    } else {
        Err(InvalidResource::Address(octets.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_survives_the_round_trip() {
        let workload = Resource::Workload(Workload {
            name: NamespacedName::new("shop", "web-0"),
            uid: "u1".into(),
            node: Some("node-1".into()),
            addresses: vec!["10.0.0.1".parse().expect("v4"), "fd00::1".parse().expect("v6")],
            identity: Some("spiffe://cluster.local/ns/shop/sa/web".parse().expect("identity")),
            enrolled: true,
            captured: true,
            memberships: vec![Membership {
                service: NamespacedName::new("shop", "web"),
                ports: vec![PortMapping { service_port: 80, target_port: 8080 }],
                ready: true,
            }],
            authorization_policies: vec![NamespacedName::new("shop", "web")],
            admission: Admission {
                default_action: Action::Deny,
                peer_mode: PeerMode::Strict,
                port_modes: vec![PortMode { port: 8081, mode: PeerMode::Permissive }],
                peer_policy: Some(NamespacedName::new("shop", "strict")),
                probe_ports: vec![8080, 9090],
            },
        });
        let wire = v1::resource::Resource::from(&workload);
        assert_eq!(Resource::try_from(wire), Ok(workload));
    }

    fn policy() -> AuthorizationPolicy {
        let source = Source {
            principals: vec!["*/sa/web".parse().expect("principal")],
            not_principals: vec!["spiffe://a/ns/b/sa/c".parse().expect("principal")],
            namespaces: vec!["shop".into()],
            not_namespaces: vec!["test".into()],
            service_accounts: vec![NamespacedName::new("shop", "web")],
            not_service_accounts: vec![NamespacedName::new("shop", "batch")],
            ip_blocks: vec!["10.0.0.0/8".parse().expect("block")],
            not_ip_blocks: vec!["fd00::/8".parse().expect("block")],
        };
        let operation = Operation { ports: vec![80], not_ports: vec![81] };
        AuthorizationPolicy {
            name: NamespacedName::new("shop", "web"),
            action: Action::Deny,
            enforcement: Enforcement::Audit,
            service: Some(NamespacedName::new("shop", "web")),
            selector: [("app".into(), "web".into())].into(),
            rules: vec![Rule { name: "0".into(), from: vec![source], to: vec![operation] }],
        }
    }

    #[test]
    fn a_policy_survives_the_round_trip() {
        let wire = v1::AuthorizationPolicy::from(&policy());
        assert_eq!(AuthorizationPolicy::try_from(wire), Ok(policy()));
    }

    #[test]
    fn a_policy_that_needs_more_than_is_known_is_refused() {
        let first = AuthorizationPolicy {
            enforcement: Enforcement::Enforce,
            service: None,
            rules: Vec::new(),
            ..policy()
        };
        assert_eq!(v1::AuthorizationPolicy::from(&first).revision, 0);
        let mut wire = v1::AuthorizationPolicy::from(&policy());
        assert_eq!(wire.revision, POLICY_REVISION);
        wire.enforcement = 99;
        let unknown = Err(InvalidResource::Unknown("enforcement"));
        assert_eq!(AuthorizationPolicy::try_from(wire.clone()), unknown);
        wire.revision = POLICY_REVISION + 1;
        let refused = Err(InvalidResource::Revision(POLICY_REVISION + 1));
        assert_eq!(AuthorizationPolicy::try_from(wire), refused);
    }

    #[test]
    fn bad_fields_are_named() {
        let mut workload = v1::Workload {
            name: Some(v1::NamespacedName { namespace: "a".into(), name: "b".into() }),
            addresses: vec![Bytes::from_static(&[1, 2, 3])],
            ..Default::default()
        };
        assert_eq!(Workload::try_from(workload.clone()), Err(InvalidResource::Address(3)));
        workload.name = None;
        assert_eq!(Workload::try_from(workload), Err(InvalidResource::Missing("name")));
        assert_eq!(port(0), Err(InvalidResource::Port(0)));
        assert_eq!(port(65536), Err(InvalidResource::Port(65536)));
    }
}
