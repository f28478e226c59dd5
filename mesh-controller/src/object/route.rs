//! Routes of the Gateway API: HTTPRoutes, GRPCRoutes, TLSRoutes and TCPRoutes.
//!
//! A rule that is wrong in itself answers with an error in its place, and the others go on. Parents
//! and backends take other objects to judge: see [`compile`](crate::compile).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_common::model::{NamespacedName, Route as Compiled, RouteKind, RouteRule};

mod backend;
mod duration;
mod filter;
mod matching;
mod rule;
mod written;

use super::{FieldError, Kind, fields};
pub use written::{GrpcRouteObject, HttpRouteObject, ParentRef, TcpRouteObject, TlsRouteObject};

/// Rules of a route, as its definition has it.
const RULES: usize = 16;
/// Matches of a rule.
const RULE_MATCHES: usize = 64;
/// Matches of all rules.
const MATCHES: usize = 128;

/// A route as it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Which kind of object it is.
    pub kind: Kind,
    /// The rules, with backends as they are written and without parents.
    pub compiled: Compiled,
    /// What it wants to be attached to, Services and others.
    pub parents: Vec<ParentRef>,
    /// Rules that answer with an error.
    pub invalid: Vec<InvalidRule>,
    /// References that lead nowhere, whatever other objects there are.
    pub bad_references: Vec<BadReference>,
    /// `metadata.generation`.
    pub generation: Option<i64>,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidRule {
    /// As conditions have it.
    pub reason: &'static str,
    /// The field and what is wrong with it.
    pub message: String,
}

/// What is wrong with a reference to a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadReference {
    /// As conditions have it.
    pub reason: &'static str,
    /// What is wrong.
    pub message: String,
}

/// A value that is not supported, or that no definition allows.
const UNSUPPORTED: &str = "UnsupportedValue";
/// Filters that cannot be used together.
const INCOMPATIBLE: &str = "IncompatibleFilters";

impl Route {
    /// Namespace and name.
    pub fn name(&self) -> &NamespacedName {
        &self.compiled.name
    }

    /// Whether no rule is valid.
    pub fn is_invalid(&self) -> bool {
        !self.invalid.is_empty() && self.invalid.len() >= self.compiled.rules.len()
    }
}

/// What the four kinds have in common.
struct Head {
    name: NamespacedName,
    created: i64,
    generation: Option<i64>,
}

impl Head {
    fn new(metadata: &ObjectMeta) -> Result<Self, FieldError> {
        let created = metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
        Ok(Self {
            name: fields::named(metadata)?,
            // What has no age is younger than all.
            created: created.unwrap_or(i64::MAX),
            generation: metadata.generation,
        })
    }

    fn route(
        self,
        kind: Kind,
        hostnames: Vec<String>,
        parents: Vec<ParentRef>,
        built: Built,
    ) -> Result<Route, FieldError> {
        let Built { rules, invalid, bad_references } = built;
        fields::at_most("spec.rules", rules.len(), RULES)?;
        let matches = rules.iter().map(|rule| rule.matches.len()).sum();
        fields::at_most("spec.rules[].matches", matches, MATCHES)?;
        let route_kind = match kind {
            Kind::GrpcRoute => RouteKind::Grpc,
            Kind::TlsRoute => RouteKind::Tls,
            Kind::TcpRoute => RouteKind::Tcp,
            _ => RouteKind::Http,
        };
        let compiled = Compiled {
            name: self.name,
            kind: route_kind,
            created: self.created,
            parents: Vec::new(),
            hostnames: hostnames.into_iter().map(Into::into).collect(),
            rules,
        };
        let generation = self.generation;
        Ok(Route { kind, compiled, parents, invalid, bad_references, generation })
    }
}

/// Rules, and what is wrong with them.
#[derive(Default)]
struct Built {
    rules: Vec<RouteRule>,
    invalid: Vec<InvalidRule>,
    bad_references: Vec<BadReference>,
}

impl TryFrom<HttpRouteObject> for Route {
    type Error = FieldError;

    fn try_from(object: HttpRouteObject) -> Result<Self, FieldError> {
        let head = Head::new(&object.metadata)?;
        let mut built = Built::default();
        // What the definition has as the default: requests of all kinds, and nowhere to go.
        let rules = object.spec.rules.unwrap_or_else(|| vec![written::HttpRule::default()]);
        for (at, rule) in rules.into_iter().enumerate() {
            rule::http(&mut built, at, rule, &head.name.namespace)?;
        }
        // Host names are for gateways: what calls a Service has said whom it means.
        head.route(Kind::HttpRoute, Vec::new(), object.spec.parent_refs.unwrap_or_default(), built)
    }
}

impl TryFrom<GrpcRouteObject> for Route {
    type Error = FieldError;

    fn try_from(object: GrpcRouteObject) -> Result<Self, FieldError> {
        let head = Head::new(&object.metadata)?;
        let mut built = Built::default();
        for (at, rule) in object.spec.rules.unwrap_or_default().into_iter().enumerate() {
            rule::grpc(&mut built, at, rule, &head.name.namespace)?;
        }
        head.route(Kind::GrpcRoute, Vec::new(), object.spec.parent_refs.unwrap_or_default(), built)
    }
}

impl TryFrom<TlsRouteObject> for Route {
    type Error = FieldError;

    fn try_from(object: TlsRouteObject) -> Result<Self, FieldError> {
        let (head, spec) = (Head::new(&object.metadata)?, object.spec);
        let built = rule::streams(spec.rules, &head.name.namespace);
        let hostnames = spec.hostnames.unwrap_or_default();
        head.route(Kind::TlsRoute, hostnames, spec.parent_refs.unwrap_or_default(), built)
    }
}

impl TryFrom<TcpRouteObject> for Route {
    type Error = FieldError;

    fn try_from(TcpRouteObject(object): TcpRouteObject) -> Result<Self, FieldError> {
        let (head, spec) = (Head::new(&object.metadata)?, object.spec);
        let built = rule::streams(spec.rules, &head.name.namespace);
        head.route(Kind::TcpRoute, Vec::new(), spec.parent_refs.unwrap_or_default(), built)
    }
}

#[cfg(test)]
mod tests;
