//! Which TLSRoute or TCPRoute a connection meets.
//!
//! A TLSRoute is met by the server name of the ClientHello: the same name first, then the longest
//! `*.` in front of it, then a route without names. A TCPRoute is met by every connection. Of those
//! that are met alike the oldest decides, then the name; and of its rules the first, since nothing
//! tells connections apart further.

use super::Routes;
use crate::model::{Route, RouteKind, RouteRule};

impl Routes {
    /// Whether these are for whole connections, and no request meets a rule of theirs.
    pub fn are_for_connections(&self) -> bool {
        self.kind().is_some_and(|kind| !kind.is_for_requests())
    }

    /// Whether it takes the server name of a connection to know what it meets.
    pub fn ask_for_server_name(&self) -> bool {
        self.kind() == Some(RouteKind::Tls)
    }

    /// The rule that a connection meets whose client asks for `server_name`, where it asks for one.
    /// Where there are routes and none is for it, it is refused.
    pub fn connection(&self, server_name: Option<&str>) -> Option<(&Route, &RouteRule)> {
        let routes = self.routes.iter().filter(|_| self.are_for_connections());
        let met = routes.filter_map(|route| Some((specificity(route, server_name)?, &**route)));
        let (_, route) = met.min_by(|(one, a), (other, b)| {
            (other, a.created, &a.name).cmp(&(one, b.created, &b.name))
        })?;
        Some((route, route.rules.first()?))
    }
}

/// How closely a route names `server_name`, larger being closer; `None` where it does not.
fn specificity(route: &Route, server_name: Option<&str>) -> Option<usize> {
    if route.hostnames.is_empty() {
        return Some(0);
    }
    let name = server_name?;
    route.hostnames.iter().filter_map(|hostname| names(hostname, name)).max()
}

fn names(hostname: &str, name: &str) -> Option<usize> {
    let Some(suffix) = hostname.strip_prefix('*') else {
        return hostname.eq_ignore_ascii_case(name).then_some(usize::MAX);
    };
    // At least one byte stands for the `*`, as `.example.com` is no name.
    let rest = name.len().checked_sub(suffix.len()).filter(|rest| *rest > 0)?;
    let end = name.get(rest..)?;
    (suffix.starts_with('.') && end.eq_ignore_ascii_case(suffix)).then_some(suffix.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{NamespacedName, RouteParent};

    fn route(kind: RouteKind, name: &str, created: i64, hostnames: &[&str]) -> Arc<Route> {
        let rule = |name: &str| RouteRule {
            name: name.into(),
            matches: Vec::new(),
            filters: Vec::new(),
            backends: Vec::new(),
            timeouts: crate::model::Timeouts::default(),
            retry: None,
        };
        Arc::new(Route {
            name: NamespacedName::new("shop", name),
            kind,
            created,
            parents: vec![RouteParent { service: web(), port: None }],
            hostnames: hostnames.iter().map(|&name| name.into()).collect(),
            rules: vec![rule("first"), rule("second")],
        })
    }

    fn web() -> NamespacedName {
        NamespacedName::new("shop", "web")
    }

    fn met<'r>(routes: &'r Routes, server_name: Option<&str>) -> Option<&'r str> {
        let (route, rule) = routes.connection(server_name)?;
        assert_eq!(&*rule.name, "first");
        Some(&route.name.name)
    }

    #[test]
    fn the_closest_server_name_decides() {
        use RouteKind::Tls;
        let routes = [
            route(Tls, "any", 1, &["*.example.com"]),
            route(Tls, "eu", 2, &["*.eu.example.com", "other.test"]),
            route(Tls, "exact", 3, &["Shop.eu.example.com"]),
            route(Tls, "younger", 4, &["shop.eu.example.com"]),
        ];
        let routes = Routes::attached(&routes, &web(), 443, "shop");
        assert!(routes.are_for_connections() && routes.ask_for_server_name());
        for (name, expected) in [
            ("shop.eu.example.com", Some("exact")),
            ("SHOP.EU.EXAMPLE.COM", Some("exact")),
            ("a.eu.example.com", Some("eu")),
            ("a.b.eu.example.com", Some("eu")),
            ("eu.example.com", Some("any")),
            ("other.test", Some("eu")),
            ("example.com", None),
            (".example.com", None),
            ("notexample.com", None),
            ("é.com", None),
        ] {
            assert_eq!(met(&routes, Some(name)), expected, "{name}");
        }
        assert_eq!(met(&routes, None), None);
    }

    #[test]
    fn a_route_without_names_is_for_the_rest() {
        let routes =
            [route(RouteKind::Tls, "rest", 2, &[]), route(RouteKind::Tls, "named", 1, &["a.test"])];
        let routes = Routes::attached(&routes, &web(), 443, "shop");
        assert_eq!(met(&routes, Some("a.test")), Some("named"));
        assert_eq!(met(&routes, Some("b.test")), Some("rest"));
        assert_eq!(met(&routes, None), Some("rest"));
    }

    #[test]
    fn of_tcp_routes_the_oldest_decides() {
        let two = [
            route(RouteKind::Tcp, "young", 2, &[]),
            route(RouteKind::Tcp, "b", 1, &[]),
            route(RouteKind::Tcp, "a", 1, &[]),
        ];
        let routes = Routes::attached(&two, &web(), 443, "shop");
        assert!(!routes.ask_for_server_name());
        assert_eq!(met(&routes, None), Some("a"));
        let http = [route(RouteKind::Http, "http", 1, &[])];
        let routes = Routes::attached(&http, &web(), 443, "shop");
        assert!(!routes.are_for_connections());
        assert_eq!(met(&routes, None), None);
    }
}
