//! Routes: which Services they are attached to, where their rules lead, and what status says of
//! that for each parent.

use std::collections::{BTreeMap, BTreeSet};

use mesh_common::model::{
    BackendTarget, Filter, NamespacedName, Resource, Route, RouteKind, RouteParent,
};
use serde::Serialize;

use super::Problems;
use crate::{
    index::Index,
    object::{self, BadReference, ObjectKey, ParentRef, Service, ServiceAddresses},
};

/// What became of a route at one of the Services that it wants to be attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    /// The Service, as the route has it.
    pub parent_ref: ParentRef,
    /// What holds.
    pub conditions: Vec<ParentCondition>,
}

/// A condition of a route at a parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentCondition {
    /// `Accepted`, `ResolvedRefs` or `PartiallyInvalid`; of writers into a cluster also
    /// `nodemesh.dev/Programmed`.
    #[serde(rename = "type")]
    pub type_: &'static str,
    /// Whether it is so.
    pub status: bool,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
}

/// Status by route, for those that name a Service.
pub(super) type Statuses = BTreeMap<ObjectKey, Vec<ParentStatus>>;

/// Why a parent does not take a route.
struct Refused {
    reason: &'static str,
    message: String,
}

/// A route and the Services that it wants to be attached to.
struct Wanting<'o> {
    key: ObjectKey,
    route: &'o object::Route,
    parents: Vec<(&'o ParentRef, Result<RouteParent, Refused>)>,
}

/// The kind that has a port of a Service, for clients of one namespace or for all: routes of the
/// Service's own namespace are for all.
type Taken<'t> = BTreeMap<(&'t NamespacedName, u16, &'t str), RouteKind>;

/// The routes that are attached to a Service, and the status of all that want to be.
pub(super) fn routes(index: &Index<'_>, problems: &mut Problems) -> (Vec<Resource>, Statuses) {
    let wanting = index.routes.iter().filter_map(|(key, route)| {
        let parents = route.parents.iter().filter(|parent| is_service(parent));
        let parents: Vec<_> =
            parents.map(|parent| (parent, attach(index, route, parent))).collect();
        (!parents.is_empty()).then(|| Wanting { key: key.clone(), route, parents })
    });
    let wanting: Vec<Wanting<'_>> = wanting.collect();
    let mut taken = Taken::new();
    for (route, parent) in wanting.iter().flat_map(Wanting::attached) {
        for port in ports(index, parent) {
            let place = (&parent.service, port, &*route.name().namespace);
            let kind = taken.entry(place).or_insert(route.compiled.kind);
            *kind = route.compiled.kind.min(*kind);
        }
    }
    let conflicts: Vec<Vec<Option<RouteKind>>> = wanting
        .iter()
        .map(|it| {
            it.parents.iter().map(|(_, parent)| conflict(index, &taken, it, parent)).collect()
        })
        .collect();
    drop(taken);
    let (mut resources, mut statuses) = (Vec::new(), Statuses::new());
    for (Wanting { key, route, parents }, conflicts) in wanting.into_iter().zip(conflicts) {
        let (compiled, bad) = resolved(index, route);
        let (mut attached, mut status) = (Vec::new(), Vec::new());
        for ((written, parent), conflict) in parents.into_iter().zip(conflicts) {
            let parent = match (parent, conflict) {
                (Ok(parent), Some(kind)) => Err(Refused {
                    reason: "Conflicted",
                    message: format!(
                        "a {} has every port of Service {} that this is for: one kind of route has \
                         a port, in this order: GRPCRoute, HTTPRoute, TLSRoute, TCPRoute",
                        kind.name(),
                        parent.service
                    ),
                }),
                (parent, _) => parent,
            };
            status.push(ParentStatus {
                parent_ref: written.clone(),
                conditions: conditions(route, parent.as_ref().err(), &bad),
            });
            attached.extend(parent.ok());
        }
        let wrong = status.iter().flat_map(|it| &it.conditions);
        let wrong = wrong.filter(|it| it.status == (it.type_ == "PartiallyInvalid"));
        let wrong: BTreeSet<_> =
            wrong.map(|it| format!("{} ({}): {}", it.type_, it.reason, it.message)).collect();
        for reason in wrong {
            problems.add(route.kind, &key.name, reason);
        }
        if !attached.is_empty() {
            resources.push(Resource::Route(Route { parents: attached, ..compiled }));
        }
        statuses.insert(key, status);
    }
    (resources, statuses)
}

impl<'o> Wanting<'o> {
    fn attached(&self) -> impl Iterator<Item = (&'o object::Route, &RouteParent)> {
        self.parents.iter().filter_map(|(_, parent)| Some((self.route, parent.as_ref().ok()?)))
    }
}

/// Gateways and others are no business of ours, nor is their status.
fn is_service(parent: &ParentRef) -> bool {
    matches!(parent.group.as_deref(), Some("" | "core"))
        && parent.kind.as_deref() == Some("Service")
}

fn attach(
    index: &Index<'_>,
    route: &object::Route,
    parent: &ParentRef,
) -> Result<RouteParent, Refused> {
    let no_parent = |message: String| Refused { reason: "NoMatchingParent", message };
    let namespace = parent.namespace.as_deref().unwrap_or(&route.name().namespace);
    let name = NamespacedName::new(namespace, &parent.name);
    if let Some(section) = &parent.section_name {
        return Err(Refused {
            reason: "UnsupportedValue",
            message: format!(
                "sectionName `{section}`: write the port of Service {name} as a number"
            ),
        });
    }
    let service = index.services.get(&name);
    let service = service.ok_or_else(|| no_parent(format!("Service {name} does not exist")))?;
    match &service.addresses {
        ServiceAddresses::Virtual(_) => {}
        ServiceAddresses::Headless => {
            return Err(no_parent(format!(
                "Service {name} is headless: what calls its pods passes by routes"
            )));
        }
        ServiceAddresses::External => {
            return Err(no_parent(format!("Service {name} is a name elsewhere")));
        }
    }
    let port = match parent.port {
        None => None,
        Some(port) => Some(
            port_of(service, port)
                .ok_or_else(|| no_parent(format!("Service {name} has no TCP port {port}")))?,
        ),
    };
    Ok(RouteParent { service: name, port })
}

fn port_of(service: &Service, port: i32) -> Option<u16> {
    service.ports.iter().map(|it| it.port).find(|it| i32::from(*it) == port)
}

/// The ports that a route is for at a parent.
fn ports(index: &Index<'_>, parent: &RouteParent) -> Vec<u16> {
    let service = index.services.get(&parent.service);
    let ports = service.into_iter().flat_map(|service| &service.ports).map(|port| port.port);
    ports.filter(|port| parent.port.is_none_or(|it| it == *port)).collect()
}

/// The kind that has all of the ports that a route is for, where one has.
fn conflict(
    index: &Index<'_>,
    taken: &Taken<'_>,
    wanting: &Wanting<'_>,
    parent: &Result<RouteParent, Refused>,
) -> Option<RouteKind> {
    let parent = parent.as_ref().ok()?;
    let kinds = ports(index, parent)
        .into_iter()
        .map(|port| taken.get(&(&parent.service, port, &*wanting.route.name().namespace)).copied());
    let kinds: Option<Vec<_>> = kinds.collect();
    kinds?.into_iter().max().filter(|kind| *kind < wanting.route.compiled.kind)
}

/// The route with targets that are there, and what is wrong with those that are not.
fn resolved(index: &Index<'_>, route: &object::Route) -> (Route, Vec<BadReference>) {
    let mut bad = route.bad_references.clone();
    let mut compiled = route.compiled.clone();
    for rule in &mut compiled.rules {
        let mirrors = rule.filters.iter_mut().filter_map(|filter| match filter {
            Filter::Mirror(mirror) => Some(&mut mirror.target),
            _ => None,
        });
        let targets = rule.backends.iter_mut().map(|backend| &mut backend.target);
        for target in targets.chain(mirrors) {
            let BackendTarget::Service { name, port } = target else { continue };
            if let Err((reason, message)) = find(index, name, *port) {
                *target = BackendTarget::Invalid(message.as_str().into());
                bad.push(BadReference { reason, message });
            }
        }
    }
    (compiled, bad)
}

fn find(index: &Index<'_>, name: &NamespacedName, port: u16) -> Result<(), (&'static str, String)> {
    let not_found = |message: String| ("BackendNotFound", message);
    let service = index.services.get(name);
    let service = service.ok_or_else(|| not_found(format!("Service {name} does not exist")))?;
    if service.addresses == ServiceAddresses::External {
        return Err(("InvalidKind", format!("Service {name} is a name elsewhere (ExternalName)")));
    }
    let port = port_of(service, port.into())
        .ok_or_else(|| not_found(format!("Service {name} has no TCP port {port}")));
    port.map(|_| ())
}

fn conditions(
    route: &object::Route,
    refused: Option<&Refused>,
    bad: &[BadReference],
) -> Vec<ParentCondition> {
    let condition =
        |type_, status, reason, message| ParentCondition { type_, status, reason, message };
    let invalid: Vec<&str> = route.invalid.iter().map(|it| it.message.as_str()).collect();
    let invalid = invalid.join("; ");
    let accepted = match (refused, route.invalid.first()) {
        (Some(Refused { reason, message }), _) => {
            condition("Accepted", false, *reason, message.clone())
        }
        (None, Some(first)) if route.is_invalid() => {
            let message =
                format!("{invalid}; requests that any rule matches are answered with 500");
            condition("Accepted", false, first.reason, message)
        }
        (None, _) => condition("Accepted", true, "Accepted", String::new()),
    };
    let resolved = match bad.first() {
        Some(first) => {
            let messages: Vec<&str> = bad.iter().map(|it| it.message.as_str()).collect();
            condition("ResolvedRefs", false, first.reason, messages.join("; "))
        }
        None => condition("ResolvedRefs", true, "ResolvedRefs", String::new()),
    };
    let is_partly = accepted.status && !route.invalid.is_empty();
    let mut conditions = vec![accepted, resolved];
    if is_partly {
        let message =
            format!("Dropped Rule: {invalid}; what these rules match is answered with 500");
        // Whatever the first is called alone: of the reasons for a part there is one.
        conditions.push(condition("PartiallyInvalid", true, "UnsupportedValue", message));
    }
    conditions
}
