//! Kubernetes objects as the mesh understands them: parsed once, so that nothing that uses them
//! needs to check an address or a name again.
//!
//! Conversion from the Kubernetes types refuses what one object alone can show to be wrong;
//! what takes two objects to see is [`compile`](crate::compile)'s business.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use mesh_common::model::{NamespacedName, RouteKind};

mod endpoint_slice;
mod fields;
pub(crate) mod limits;
mod obstacle;
mod peer;
mod pod;
mod policy;
mod probes;
mod route;
mod selector;
mod service;

pub use endpoint_slice::{Endpoint, EndpointSlice, SlicePort};
pub use fields::{FieldError, is_name, named};
pub use obstacle::Obstacle;
pub use peer::{MeshConfig, MeshConfigObject, PeerPolicy, PeerPolicyObject};
pub(crate) use peer::{MeshConfigSpec, PeerPolicySpec};
pub use pod::Pod;
pub(crate) use policy::PolicySpec;
pub use policy::{AuthorizationPolicyObject, Policy};
pub use route::{
    BadReference, GrpcRouteObject, HttpRouteObject, ParentRef, Route, TcpRouteObject,
    TlsRouteObject,
};
pub use service::{Service, ServiceAddresses};

/// Labels, as Kubernetes has them.
pub type Labels = BTreeMap<String, String>;

/// The kinds that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1` Namespace.
    Namespace,
    /// `v1` Node.
    Node,
    /// `v1` Pod.
    Pod,
    /// `v1` Service.
    Service,
    /// `v1` ServiceAccount.
    ServiceAccount,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `node.k8s.io/v1` RuntimeClass.
    RuntimeClass,
    /// `nodemesh.dev/v1alpha1` AuthorizationPolicy.
    AuthorizationPolicy,
    /// `nodemesh.dev/v1alpha1` PeerPolicy.
    PeerPolicy,
    /// `nodemesh.dev/v1alpha1` MeshConfig.
    MeshConfig,
    /// `gateway.networking.k8s.io` HTTPRoute.
    HttpRoute,
    /// `gateway.networking.k8s.io` GRPCRoute.
    GrpcRoute,
    /// `gateway.networking.k8s.io` TLSRoute.
    TlsRoute,
    /// `gateway.networking.k8s.io` TCPRoute.
    TcpRoute,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 14] = [
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::Service,
        Self::ServiceAccount,
        Self::EndpointSlice,
        Self::RuntimeClass,
        Self::AuthorizationPolicy,
        Self::PeerPolicy,
        Self::MeshConfig,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TlsRoute,
        Self::TcpRoute,
    ];

    /// As written in `kind:`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::ServiceAccount => "ServiceAccount",
            Self::EndpointSlice => "EndpointSlice",
            Self::RuntimeClass => "RuntimeClass",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::PeerPolicy => "PeerPolicy",
            Self::MeshConfig => "MeshConfig",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TlsRoute => "TLSRoute",
            Self::TcpRoute => "TCPRoute",
        }
    }

    /// As written in `apiVersion:`; the newest.
    pub fn api_version(self) -> &'static str {
        self.api_versions()[0]
    }

    /// Every `apiVersion:` that is understood, the newest first; all say the same.
    pub fn api_versions(self) -> &'static [&'static str] {
        match self {
            Self::Namespace | Self::Node | Self::Pod | Self::Service | Self::ServiceAccount => {
                &["v1"]
            }
            Self::EndpointSlice => &["discovery.k8s.io/v1"],
            Self::RuntimeClass => &["node.k8s.io/v1"],
            Self::AuthorizationPolicy | Self::PeerPolicy | Self::MeshConfig => {
                &[mesh_common::API_VERSION]
            }
            Self::HttpRoute => {
                &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"]
            }
            Self::GrpcRoute => &["gateway.networking.k8s.io/v1"],
            Self::TlsRoute | Self::TcpRoute => &[
                "gateway.networking.k8s.io/v1",
                "gateway.networking.k8s.io/v1alpha3",
                "gateway.networking.k8s.io/v1alpha2",
            ],
        }
    }

    /// Whether it is a route of the Gateway API, which a cluster need not have.
    pub fn is_route(self) -> bool {
        matches!(self, Self::HttpRoute | Self::GrpcRoute | Self::TlsRoute | Self::TcpRoute)
    }

    /// Whether nodemesh defines this kind.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::AuthorizationPolicy | Self::PeerPolicy | Self::MeshConfig)
    }

    /// Whether objects of this kind live in a namespace.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node | Self::RuntimeClass | Self::MeshConfig)
    }
}

impl From<RouteKind> for Kind {
    fn from(kind: RouteKind) -> Self {
        match kind {
            RouteKind::Http => Self::HttpRoute,
            RouteKind::Grpc => Self::GrpcRoute,
            RouteKind::Tls => Self::TlsRoute,
            RouteKind::Tcp => Self::TcpRoute,
        }
    }
}

/// What tells one object from every other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The kind.
    pub kind: Kind,
    /// The name; its namespace is empty for kinds that live in none.
    pub name: NamespacedName,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        f.write_str(" ")?;
        if self.kind.is_namespaced() {
            write!(f, "{}", self.name)
        } else {
            f.write_str(&self.name.name)
        }
    }
}

/// Any object that is understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A Namespace.
    Namespace(Namespace),
    /// A Node.
    Node(Node),
    /// A Pod.
    Pod(Pod),
    /// A Service.
    Service(Service),
    /// A ServiceAccount.
    ServiceAccount(ServiceAccount),
    /// An EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// A RuntimeClass.
    RuntimeClass(RuntimeClass),
    /// An AuthorizationPolicy.
    AuthorizationPolicy(Policy),
    /// A PeerPolicy.
    PeerPolicy(PeerPolicy),
    /// The MeshConfig.
    MeshConfig(MeshConfig),
    /// A route of any kind.
    Route(Box<Route>),
}

impl Object {
    /// The key of this object.
    pub fn key(&self) -> ObjectKey {
        let (kind, name) = match self {
            Self::Namespace(it) => (Kind::Namespace, NamespacedName::new("", &it.name)),
            Self::Node(it) => (Kind::Node, NamespacedName::new("", &it.name)),
            Self::Pod(it) => (Kind::Pod, it.name.clone()),
            Self::Service(it) => (Kind::Service, it.name.clone()),
            Self::ServiceAccount(it) => (Kind::ServiceAccount, it.name.clone()),
            Self::EndpointSlice(it) => (Kind::EndpointSlice, it.name.clone()),
            Self::RuntimeClass(it) => (Kind::RuntimeClass, NamespacedName::new("", &it.name)),
            Self::AuthorizationPolicy(it) => (Kind::AuthorizationPolicy, it.compiled.name.clone()),
            Self::PeerPolicy(it) => (Kind::PeerPolicy, it.name.clone()),
            Self::MeshConfig(_) => (Kind::MeshConfig, MeshConfig::name()),
            Self::Route(it) => (it.kind, it.name().clone()),
        };
        ObjectKey { kind, name }
    }
}

/// A Namespace: what is in the mesh by default.
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace {
    /// Its name.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: Labels,
}

/// A Node: that it exists.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
}

/// A RuntimeClass: what runs the pods that name it.
#[derive(Clone, Debug, PartialEq)]
pub struct RuntimeClass {
    /// Its name.
    pub name: Arc<str>,
    /// The node's runtime, as its container manager calls it.
    pub handler: Box<str>,
}

/// A ServiceAccount: that it exists.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceAccount {
    /// Namespace and name.
    pub name: NamespacedName,
}

impl TryFrom<k8s_openapi::api::core::v1::ServiceAccount> for ServiceAccount {
    type Error = FieldError;

    fn try_from(object: k8s_openapi::api::core::v1::ServiceAccount) -> Result<Self, FieldError> {
        Ok(Self { name: named(&object.metadata)? })
    }
}

impl TryFrom<k8s_openapi::api::core::v1::Namespace> for Namespace {
    type Error = FieldError;

    fn try_from(object: k8s_openapi::api::core::v1::Namespace) -> Result<Self, FieldError> {
        let name = fields::name(&object.metadata)?;
        Ok(Self { name: name.into(), labels: object.metadata.labels.unwrap_or_default() })
    }
}

impl TryFrom<k8s_openapi::api::core::v1::Node> for Node {
    type Error = FieldError;

    fn try_from(object: k8s_openapi::api::core::v1::Node) -> Result<Self, FieldError> {
        Ok(Self { name: fields::name(&object.metadata)?.into() })
    }
}

impl TryFrom<k8s_openapi::api::node::v1::RuntimeClass> for RuntimeClass {
    type Error = FieldError;

    fn try_from(object: k8s_openapi::api::node::v1::RuntimeClass) -> Result<Self, FieldError> {
        let name = fields::name(&object.metadata)?;
        Ok(Self { name: name.into(), handler: object.handler.into() })
    }
}

/// The addresses of `list`, each family once; fields are called `field[0]` and so on.
fn addresses<'t>(
    field: &str,
    list: impl IntoIterator<Item = &'t str>,
) -> Result<Vec<IpAddr>, FieldError> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for (at, text) in list.into_iter().enumerate() {
        let field = format!("{field}[{at}]");
        let address = fields::address(&field, text)?;
        if addresses.iter().any(|known| known.is_ipv4() == address.is_ipv4()) {
            return Err(FieldError::new(field, "a second address of the same family"));
        }
        addresses.push(address);
    }
    Ok(addresses)
}
