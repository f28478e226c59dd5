//! What becomes of a request or a connection: by the matching of the proxy, in words.

use http::uri::PathAndQuery;
use mesh_common::{
    matching::{
        protocol::{self, Choice, Protocol},
        route::{Considered, Outcome, Request, Routes, path, redirect, standings},
    },
    model::{BackendTarget, Filter, NamespacedName, PathMatch, RouteKind, RouteRule, ServicePort},
};

use super::{
    matched::{Answer, Other},
    seen::Seen,
    shown::{self, Rule},
    words,
};

/// A request, or a connection, and who sends it where.
pub struct Asked<'a> {
    pub service: &'a NamespacedName,
    pub port: &'a ServicePort,
    pub client: &'a str,
    pub host: &'a str,
    pub target: &'a PathAndQuery,
    pub server_name: Option<&'a str>,
    /// Whether it is a call of gRPC.
    pub is_grpc: bool,
}

/// Why nobody answers.
const UNSERVED: &str = ", since no endpoint is ready";

impl Asked<'_> {
    /// What becomes of it, of a client that `is_outside` of the mesh or in it.
    pub fn answer(&self, seen: &Seen, request: Request<'_>, is_outside: bool) -> Answer {
        let Self { service, port, client, .. } = *self;
        let routes = Routes::attached(seen.routes(), service, port.port, client);
        let is_routed = routes.kind().is_some_and(RouteKind::is_for_requests);
        let choice = protocol::choose(port, || is_routed);
        let mut out = shown::out(seen, service, port.port, client);
        out.extend(shown::refused(seen, service, Some(port.port)));
        let mut answer = Answer {
            request: match self.server_name {
                Some(name) => format!("TLS for {name} to {service}:{}", port.port),
                None => format!("{} {} to {service}:{}", request.method, self.target, port.port),
            },
            source: seen.source.clone(),
            client_namespace: client.to_owned(),
            protocol: format!("{} ({})", words::protocol(choice), words::choice(choice, port)),
            outcome: String::new(),
            error: false,
            route: None,
            matched: None,
            rule: None,
            others: Vec::new(),
            out,
        };
        let (ready, all) = seen.endpoints(service, port.port);
        let endpoints = words::endpoints(ready, all);
        let is_unserved = !is_outside && ready == 0 && seen.knows(all);
        let is_attached = !standings(seen.routes(), service, port.port, client).is_empty();
        let is_http = match choice {
            Choice::Declared(protocol, _) => protocol != Protocol::Opaque,
            Choice::Routed => true,
            Choice::Sniffed => self.server_name.is_none(),
        };
        let to_itself = |why: &str| match is_unserved {
            false => (format!("{why}; to the Service itself, {endpoints}"), false),
            true if is_http => (format!("{why}; {}", self.unserved()), true),
            true => (format!("{why}; reset{UNSERVED}"), true),
        };
        if is_outside {
            (answer.outcome, answer.error) = to_itself("no route: the client is not in the mesh");
        } else if is_unserved && !is_attached {
            // The kernel says so: the proxy is asked only where a route may lead elsewhere.
            answer.outcome = format!("no route; connect() is refused (ECONNREFUSED){UNSERVED}");
            answer.error = true;
        } else if routes.are_for_connections() {
            answer.protocol = format!("{} (a route for connections holds)", words::BYTES);
            self.connect(seen, &routes, &mut answer);
        } else if self.server_name.is_some() && is_http {
            answer.outcome =
                "answered with 400: the port speaks HTTP, and TLS is none (malformed_request)"
                    .to_owned();
            answer.error = true;
        } else if self.server_name.is_some() {
            (answer.outcome, answer.error) = to_itself("no route: TLS is carried as it is");
        } else if !is_http {
            (answer.outcome, answer.error) = to_itself("no route: the port carries bytes");
        } else if !is_routed {
            (answer.outcome, answer.error) = to_itself("no route is for it");
        } else {
            self.decide(seen, &routes.explain(request), &mut answer);
        }
        answer
    }

    /// How the proxy tells an error: calls of gRPC have statuses of their own.
    fn refused(&self, status: u16, grpc: u8, why: &str) -> String {
        match self.is_grpc {
            true => format!("answered as a gRPC call with status {grpc}{why}"),
            false => format!("answered with {status}{why}"),
        }
    }

    fn unserved(&self) -> String {
        self.refused(503, 14, UNSERVED) + " (no_endpoint)"
    }

    /// What becomes of the connection.
    fn connect(&self, seen: &Seen, routes: &Routes, answer: &mut Answer) {
        let Some((route, rule)) = routes.connection(self.server_name) else {
            let named = self.server_name.unwrap_or("what names no server");
            answer.outcome = format!("reset: no TLSRoute is for {named}");
            answer.error = true;
            return;
        };
        let shown = shown::rule(seen, route, rule);
        (answer.outcome, answer.error) = match valid_of(rule) {
            (_, 0) => ("reset: no backend is valid and has a weight".to_owned(), true),
            _ if is_unserved(seen, &shown) => ("reset: no endpoint is ready".to_owned(), true),
            (all, valid) if valid < all => {
                ("carried as bytes; the share of what is not valid is reset".to_owned(), false)
            }
            _ => ("carried as bytes".to_owned(), false),
        };
        answer.route = Some(shown::named(route));
        answer.matched = Some(match shown.matches.is_empty() {
            true => "every connection".to_owned(),
            false => shown.matches.join("; or "),
        });
        answer.rule = Some(shown);
    }

    fn decide(&self, seen: &Seen, considered: &[Considered<'_>], answer: &mut Answer) {
        let no_route = ": routes are attached and none is for it (no_route)";
        (answer.outcome, answer.error) = (self.refused(404, 12, no_route), true);
        for Considered { met, outcome } in considered {
            let reason = match outcome {
                Outcome::Decides => {
                    answer.route = Some(shown::named(met.route));
                    answer.matched = Some(words::matched(met.by));
                    let rule = shown::rule(seen, met.route, met.rule);
                    (answer.outcome, answer.error) = self.outcome(met.rule, &met.by.path);
                    if !answer.error && is_unserved(seen, &rule) {
                        answer.outcome += &format!(": {}", self.unserved());
                        answer.error = true;
                    }
                    answer.rule = Some(rule);
                    continue;
                }
                Outcome::Later(criterion) => {
                    format!("is for it too, but {}", words::criterion(*criterion))
                }
                Outcome::Mismatches(all) => {
                    all.iter().map(words::mismatch).collect::<Vec<_>>().join(", ")
                }
            };
            answer.others.push(Other {
                route: shown::named(met.route),
                rule: met.rule.name.to_string(),
                matched: words::matched(met.by),
                reason,
            });
        }
    }

    /// What a rule makes of the request, and whether that is an error.
    fn outcome(&self, rule: &RouteRule, by: &PathMatch) -> (String, bool) {
        let mut path = self.target.path().to_owned();
        for filter in &rule.filters {
            match filter {
                Filter::Redirect(it) => {
                    let asked = redirect::Asked {
                        authority: self.host,
                        path: &path,
                        query: self.target.query(),
                        port: self.port.port,
                    };
                    let location = redirect::location(it, by, asked);
                    return (format!("answered with {} to {location}", it.status.as_u16()), false);
                }
                Filter::Rewrite(it) => {
                    if let Some(modifier) = &it.path {
                        path = path::modified(&path, modifier, by).into_owned();
                    }
                }
                _ => {}
            }
        }
        let query = self.target.query().map(|query| format!("?{query}")).unwrap_or_default();
        let sent = format!("sent on as {path}{query}");
        let no_backend =
            |what: &str| self.refused(500, 14, &format!(": no backend {what} (no_backend)"));
        match valid_of(rule) {
            (0, _) => (no_backend("has a weight"), true),
            (_, 0) => (no_backend("is valid"), true),
            (count, valid) if valid < count => {
                let share = self.refused(500, 14, "");
                (format!("{sent}; the share of what is not valid is {share}"), false)
            }
            _ => (sent, false),
        }
    }
}

/// How many backends of a rule have a weight, and how many of these are valid.
fn valid_of(rule: &RouteRule) -> (usize, usize) {
    let weighs = rule.backends.iter().filter(|it| it.weight > 0);
    weighs.fold((0, 0), |(count, valid), it| {
        let is_valid = matches!(it.target, BackendTarget::Service { .. });
        (count + 1, valid + usize::from(is_valid))
    })
}

/// Whether a rule leads somewhere, and nowhere there is anybody to answer.
fn is_unserved(seen: &Seen, rule: &Rule) -> bool {
    let mut weighs = rule.backends.iter().filter(|it| it.valid && it.weight > 0).peekable();
    weighs.peek().is_some() && weighs.all(|it| it.ready == 0 && seen.knows(it.endpoints))
}
