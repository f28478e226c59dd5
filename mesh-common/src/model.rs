//! The mesh as agents see it: what the controller compiles and streams, one resource at a time.
//!
//! These types know neither Kubernetes nor gRPC. Every resource has a [`ResourceKey`]; a change
//! of one never needs another to be sent again.

use std::{fmt, net::IpAddr, sync::Arc};

use crate::identity::SpiffeId;

mod admission;
mod authorization;
mod ip_block;
mod pattern;
mod principal;
mod route;

pub use admission::{Admission, PeerMode, PortMode};
pub use authorization::{
    Action, AuthorizationPolicy, Enforcement, Operation, POLICY_REVISION, Rule, Source,
};
pub use ip_block::{InvalidIpBlock, IpBlock};
pub use pattern::{InvalidPattern, Pattern};
pub use principal::{InvalidPrincipal, Principal};
pub use route::{
    Backend, BackendTarget, Cors, Filter, Header, HeaderMatch, HeaderModifier, Mirror, PathMatch,
    PathModifier, QueryMatch, Redirect, RedirectScheme, Retry, Rewrite, Route, RouteKind,
    RouteMatch, RouteParent, RouteRule, Share, TextMatch, Timeouts,
};

/// A namespaced name, `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedName {
    /// The Kubernetes namespace.
    pub namespace: Arc<str>,
    /// The name within it.
    pub name: Arc<str>,
}

impl NamespacedName {
    /// The name of `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What kinds of resource the control API carries. Agents are sent the last first: what is referred
/// to comes before what refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKind {
    /// A [`Route`].
    Route(RouteKind),
    /// A [`Workload`].
    Workload,
    /// A [`Service`].
    Service,
    /// An [`AuthorizationPolicy`].
    AuthorizationPolicy,
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Workload => "Workload",
            Self::Service => "Service",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::Route(kind) => kind.name(),
        })
    }
}

/// What tells one resource from every other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceKey {
    /// The kind.
    pub kind: ResourceKind,
    /// The name within the kind. Endpoints without a pod are Workloads named after their
    /// EndpointSlice and address.
    pub name: NamespacedName,
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// Anything the control API carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Something that has addresses.
    Workload(Workload),
    /// A name with virtual addresses in front of workloads.
    Service(Service),
    /// Who may call.
    AuthorizationPolicy(AuthorizationPolicy),
    /// Where requests go.
    Route(Route),
}

impl Resource {
    /// The key of this resource.
    pub fn key(&self) -> ResourceKey {
        let (kind, name) = match self {
            Self::Workload(workload) => (ResourceKind::Workload, &workload.name),
            Self::Service(service) => (ResourceKind::Service, &service.name),
            Self::AuthorizationPolicy(policy) => (ResourceKind::AuthorizationPolicy, &policy.name),
            Self::Route(route) => (ResourceKind::Route(route.kind), &route.name),
        };
        ResourceKey { kind, name: name.clone() }
    }
}

/// A pod, or an endpoint that is no pod: something that has addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Namespace and name of the pod.
    pub name: NamespacedName,
    /// What tells this pod from an earlier one of the same name: its uid as its node knows it.
    pub uid: Arc<str>,
    /// The node it runs on; `None` where that is unknown.
    pub node: Option<Arc<str>>,
    /// Its addresses, each family at most once, the first one preferred.
    pub addresses: Vec<IpAddr>,
    /// Its identity; `None` for an endpoint that is no pod.
    pub identity: Option<SpiffeId>,
    /// Whether labels put it in the mesh: its node's agent shall capture it.
    pub enrolled: bool,
    /// Whether callers shall speak HBONE to it: its node's agent has captured it, or it is not in
    /// this mesh and another one's proxy takes HBONE for it.
    pub captured: bool,
    /// The Services that it stands behind.
    pub memberships: Vec<Membership>,
    /// The AuthorizationPolicies that apply to connections to it, sorted.
    pub authorization_policies: Vec<NamespacedName>,
    /// What holds for connections to it besides those.
    pub admission: Admission,
}

impl Workload {
    /// The address of the same family as `like`, if it has one.
    pub fn address_like(&self, like: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == like.is_ipv4())
    }
}

/// That a workload stands behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The Service.
    pub service: NamespacedName,
    /// For each port of the Service that this workload serves, the port on the workload.
    pub ports: Vec<PortMapping>,
    /// Whether the EndpointSlice calls it ready.
    pub ready: bool,
}

/// A port of a Service and the port that it leads to on one workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// The port of the Service.
    pub service_port: u16,
    /// The port of the workload.
    pub target_port: u16,
}

/// A Service: virtual addresses in front of workloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: NamespacedName,
    /// The cluster IPs; empty for a headless Service.
    pub addresses: Vec<IpAddr>,
    /// The TCP ports.
    pub ports: Vec<ServicePort>,
}

/// A TCP port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The number.
    pub port: u16,
    /// Its name; empty where the Service has one unnamed port.
    pub name: Arc<str>,
    /// `appProtocol` as written, for protocol choice.
    pub app_protocol: Option<Arc<str>>,
}
