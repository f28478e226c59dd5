//! Which rule of which route a request meets.
//!
//! [`Routes`] is made once for all that call one port of a Service alike, and asked for each
//! request. The order of precedence is the Gateway API's: an exact path, then a pattern (which that
//! API leaves to us), then the longest prefix, then a method, then most headers, then most query
//! parameters; then the oldest route, then the name, then the first rule.

use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::model::{NamespacedName, Route, RouteKind, RouteMatch, RouteRule};

mod accept;
pub mod backend;
mod bucket;
mod connection;
mod explain;
mod header;
pub mod path;
mod precedence;
mod query;
pub mod redirect;
#[cfg(any(test, feature = "reference"))]
pub mod reference;
mod standing;
mod table;

pub use accept::Mismatch;
pub use explain::{Considered, Outcome};
pub use precedence::Criterion;
pub use standing::{Standing, standings};

use table::{At, Table};

/// What of a request decides its way.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path, as it came.
    pub path: &'a str,
    /// What stands behind the `?`, as it came.
    pub query: Option<&'a str>,
    /// The headers; without `host`, which routes of a mesh do not ask for.
    pub headers: &'a HeaderMap,
}

/// The routes for those who call one port of one Service from one namespace.
#[derive(Debug, Default)]
pub struct Routes {
    routes: Vec<Arc<Route>>,
    table: Table,
}

/// What a request met.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Met<'a> {
    /// The route.
    pub route: &'a Route,
    /// The rule of it.
    pub rule: &'a RouteRule,
    /// The match of that.
    pub by: &'a RouteMatch,
}

impl Routes {
    /// The routes among `routes` that hold for clients of `client_namespace` that call `port` of
    /// `service`, as [`standings`] has it. TLSRoutes and TCPRoutes are for whole connections, and no
    /// request meets a rule of theirs.
    pub fn attached<'r>(
        routes: impl IntoIterator<Item = &'r Arc<Route>>,
        service: &NamespacedName,
        port: u16,
        client_namespace: &str,
    ) -> Self {
        let standings = standings(routes, service, port, client_namespace);
        let holding = standings.into_iter().filter(|(_, standing)| *standing == Standing::Holds);
        let routes: Vec<_> = holding.map(|(route, _)| route.clone()).collect();
        Self { table: Table::new(&routes), routes }
    }

    /// Whether no route is attached: then a request goes where the Service leads.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The kind of all these routes, where there are any: it says how to answer what none is for.
    pub fn kind(&self) -> Option<RouteKind> {
        self.routes.first().map(|route| route.kind)
    }

    /// The rule that `request` meets. Where there are routes and none is for it, it is refused.
    pub fn find(&self, request: Request<'_>) -> Option<Met<'_>> {
        self.table.find(&self.routes, request).map(|at| self.met(at))
    }

    fn met(&self, at: At) -> Met<'_> {
        let route = &*self.routes[at.route];
        let rule = &route.rules[at.rule];
        Met { route, rule, by: &rule.matches[at.by] }
    }
}

#[cfg(test)]
mod tests;
