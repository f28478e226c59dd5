//! What is shown of routes: the same as a table and as JSON or YAML, whose fields keep name and
//! meaning.

use mesh_common::{
    matching::route::{Standing, standings},
    model::{Backend, BackendTarget, NamespacedName, Route, RouteKind, RouteRule},
};
use serde::Serialize;

use super::{seen::Seen, words};

/// A rule, as it is.
#[derive(Debug, Serialize)]
pub struct Rule {
    /// Its name, or its index in the route.
    pub name: String,
    /// What it is for: any of these.
    pub matches: Vec<String>,
    /// What is done to requests and responses, in this order.
    pub filters: Vec<String>,
    /// Where the requests go.
    pub backends: Vec<Shown>,
    /// Timeouts and retries.
    pub bounds: Vec<String>,
}

/// A backend of a rule.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// `namespace/name:port` of a Service, or why it leads nowhere.
    pub to: String,
    /// Whether it leads anywhere.
    pub valid: bool,
    /// The weight, as written.
    pub weight: u32,
    /// Of a hundred requests of the rule, how many.
    pub percent: f64,
    /// Endpoints of the port that are ready.
    pub ready: usize,
    /// All of them.
    pub endpoints: usize,
    /// What is done besides to requests that go there.
    pub filters: Vec<String>,
}

/// A route that does not hold.
#[derive(Debug, Serialize)]
pub struct Out {
    /// Kind, namespace and name.
    pub route: String,
    /// Why.
    pub reason: String,
}

/// Kind and name of a route.
pub fn named(route: &Route) -> String {
    format!("{} {}", route.kind.name(), route.name)
}

/// A rule of a route and what is behind its backends.
pub fn rule(seen: &Seen, route: &Route, rule: &RouteRule) -> Rule {
    let total: u64 = rule.backends.iter().map(|it| u64::from(it.weight)).sum();
    let matches = match route.kind.is_for_requests() {
        true => rule.matches.iter().map(words::matched).collect(),
        false => route.hostnames.iter().map(|name| format!("server name {name}")).collect(),
    };
    Rule {
        name: rule.name.to_string(),
        matches,
        filters: rule.filters.iter().map(words::filter).collect(),
        backends: rule.backends.iter().map(|it| backend(seen, it, total)).collect(),
        bounds: words::bounds(rule),
    }
}

fn backend(seen: &Seen, backend: &Backend, total: u64) -> Shown {
    let (ready, endpoints) = match &backend.target {
        BackendTarget::Service { name, port } => seen.endpoints(name, *port),
        BackendTarget::Invalid(_) => (0, 0),
    };
    // Weights have fewer digits than a float holds.
    #[allow(clippy::cast_precision_loss)]
    let percent = f64::from(backend.weight) * 100.0 / total.max(1) as f64;
    Shown {
        to: words::target(&backend.target),
        valid: matches!(backend.target, BackendTarget::Service { .. }),
        weight: backend.weight,
        percent: (percent * 100.0).round() / 100.0,
        ready,
        endpoints,
        filters: backend.filters.iter().map(words::filter).collect(),
    }
}

/// The routes at a port that do not hold for clients of a namespace.
pub fn out(seen: &Seen, service: &NamespacedName, port: u16, client: &str) -> Vec<Out> {
    let standings = standings(seen.routes(), service, port, client);
    let out = standings.into_iter().filter_map(|(route, standing)| {
        let reason = why_out(route, standing, client)?;
        Some(Out { route: named(route), reason })
    });
    out.collect()
}

fn why_out(route: &Route, standing: Standing, client: &str) -> Option<String> {
    Some(match standing {
        Standing::Holds => return None,
        Standing::OtherClients => format!("is for clients of namespace {}", route.name.namespace),
        Standing::Replaced => format!("routes of the client's namespace {client} take its place"),
        Standing::Outranked(kind) => outranked(kind),
    })
}

fn outranked(kind: RouteKind) -> String {
    format!("a {} has the port: that kind goes before", kind.name())
}

/// What is refused, or partly wrong, at a port of the Service, or at any.
pub fn refused(seen: &Seen, service: &NamespacedName, at: Option<u16>) -> Vec<Out> {
    let mut refused = Vec::new();
    for (route, parent) in seen.compiled.parents(service) {
        let wrong = parent.conditions.iter();
        let wrong = wrong.filter(|it| it.status == (it.type_ == "PartiallyInvalid"));
        let said = parent.parent_ref.port;
        if at.zip(said).is_some_and(|(at, said)| i32::from(at) != said) {
            continue;
        }
        let port = said.map_or("all ports".to_owned(), |it| format!("port {it}"));
        refused.extend(wrong.map(|it| Out {
            route: route.to_string(),
            reason: format!("{port}: {}={} {}: {}", it.type_, it.status, it.reason, it.message),
        }));
    }
    refused
}
