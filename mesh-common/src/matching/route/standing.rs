//! Which routes hold for a client.

use std::sync::Arc;

use crate::model::{NamespacedName, Route, RouteKind};

/// What a route that is attached to a port of a Service is for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds.
    Holds,
    /// It is for clients of its own namespace, of which this is none.
    OtherClients,
    /// It is for all clients, but those of this one's namespace have routes of their own.
    Replaced,
    /// A kind that goes before it holds.
    Outranked(RouteKind),
}

/// The routes among `routes` that are attached to `port` of `service`, and what they are for clients
/// of `client_namespace`.
///
/// Those of the client's own namespace, where there are any, take the place of those of the
/// Service's namespace; those of any other namespace are not for this client. Of several kinds
/// the first takes the place of the others.
pub fn standings<'r>(
    routes: impl IntoIterator<Item = &'r Arc<Route>>,
    service: &NamespacedName,
    port: u16,
    client_namespace: &str,
) -> Vec<(&'r Arc<Route>, Standing)> {
    let is_parent = |route: &Route| {
        let mut parents = route.parents.iter();
        parents.any(|it| it.service == *service && it.port.is_none_or(|it| it == port))
    };
    let attached: Vec<_> = routes.into_iter().filter(|route| is_parent(route)).collect();
    let is_of = |route: &Route, namespace: &str| *route.name.namespace == *namespace;
    let has_own = attached.iter().any(|route| is_of(route, client_namespace));
    let holding = if has_own { client_namespace } else { &*service.namespace };
    let of_clients = attached.iter().filter(|route| is_of(route, holding));
    let first = of_clients.map(|route| route.kind).min();
    let standing = |route: &Route| match first {
        Some(first) if is_of(route, holding) => match route.kind == first {
            true => Standing::Holds,
            false => Standing::Outranked(first),
        },
        _ if is_of(route, &service.namespace) => Standing::Replaced,
        _ => Standing::OtherClients,
    };
    attached.into_iter().map(|route| (route, standing(route))).collect()
}
