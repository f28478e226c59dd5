//! `nodemesh routes match`: which rule decides over a request, and why no other does.

use anyhow::{Context, ensure};
use http::{HeaderValue, Method, header::CONTENT_TYPE, uri::PathAndQuery};
use mesh_common::{
    matching::{
        protocol::{self, Choice, Protocol},
        route::{Considered, Outcome, Request, Routes, path, redirect},
    },
    model::{BackendTarget, Filter, NamespacedName, PathMatch, RouteKind, RouteRule, ServicePort},
};
use serde::Serialize;

use super::{
    Format, request,
    seen::{Objects, Seen},
    shown::{self, Out, Rule},
    table, words,
};

/// A request that nobody has sent.
#[derive(Debug, clap::Args)]
pub struct Question {
    /// The Service that is called: NAME, NAME.NAMESPACE or NAMESPACE/NAME, and :PORT where it has
    /// several
    #[arg(long, value_name = "SERVICE[:PORT]")]
    service: String,
    /// The namespace of names that have none
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The path, perhaps with a query
    #[arg(
        long, value_name = "PATH", conflicts_with = "grpc",
        required_unless_present_any = ["grpc", "server_name"]
    )]
    path: Option<String>,
    /// A call of gRPC: POST, with its content-type
    #[arg(long, value_name = "SERVICE/METHOD", conflicts_with = "method")]
    grpc: Option<String>,
    /// The server that a TLS client asks for, which TLSRoutes go by
    #[arg(long, value_name = "NAME", conflicts_with_all = ["path", "grpc"])]
    server_name: Option<String>,
    /// The method
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// A header, `name: value`; may be repeated
    #[arg(long = "header", short = 'H', value_name = "HEADER")]
    headers: Vec<String>,
    /// The host, which no route of a mesh asks for; redirects keep it [default: the Service's name]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// The namespace of the client [default: that of the Service]
    #[arg(long, value_name = "NAMESPACE", conflicts_with = "pod")]
    from: Option<String>,
    /// The client: its namespace counts, and whether it is in the mesh
    #[arg(long, value_name = "[NAMESPACE/]POD")]
    pod: Option<String>,
    #[command(flatten)]
    objects: Objects,
    /// How the answer is printed
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// What becomes of a request.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// The request, for people.
    pub request: String,
    /// Whose objects say so.
    pub source: String,
    /// The namespace of the client.
    pub client_namespace: String,
    /// What the port speaks, and what says so.
    pub protocol: String,
    /// What becomes of it, in a sentence.
    pub outcome: String,
    /// Whether the proxy answers it with an error.
    pub error: bool,
    /// The route that decides: kind, namespace and name.
    pub route: Option<String>,
    /// The match that decides.
    pub matched: Option<String>,
    /// The rule that decides.
    pub rule: Option<Rule>,
    /// The other matches, in the order in which they are asked, and why they do not decide.
    pub others: Vec<Other>,
    /// Routes that are attached and not for this client, or refused.
    pub out: Vec<Out>,
}

/// A match that does not decide.
#[derive(Debug, Serialize)]
pub struct Other {
    /// Kind, namespace and name of its route.
    pub route: String,
    /// The name or index of its rule.
    pub rule: String,
    /// What it asks for.
    pub matched: String,
    /// Why it does not decide.
    pub reason: String,
}

impl Question {
    /// Whether the request gets somewhere, and what is to be printed.
    ///
    /// # Errors
    /// Where the question makes no sense, or nobody is there to answer.
    pub fn answer(&self) -> anyhow::Result<(bool, String)> {
        let (name, port) =
            request::service_name(&self.service, &self.namespace).context("--service")?;
        let target = match (&self.grpc, &self.path) {
            (Some(call), _) => {
                let is_call = path::grpc(&format!("/{call}"))
                    .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
                ensure!(is_call, "--grpc `{call}`: write package.Service/Method");
                request::path(&format!("/{call}"))?
            }
            (None, Some(path)) => request::path(path)?,
            (None, None) => PathAndQuery::from_static("/"),
        };
        let mut headers = request::headers(&self.headers)?;
        let mut method = request::method(&self.method)?;
        if self.grpc.is_some() {
            method = Method::POST;
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/grpc"));
        }
        let seen = self.objects.look()?;
        let service = seen.service(&name)?;
        let port = request::port(service, port)?;
        let (client, is_outside) = self.client(&seen, &name)?;
        let request = Request {
            method: &method,
            path: target.path(),
            query: target.query(),
            headers: &headers,
        };
        let host = self.host.clone().unwrap_or_else(|| format!("{}:{}", name.name, port.port));
        let server_name = self.server_name.as_deref();
        let (client, host, target) = (&*client, &*host, &target);
        let asked = Asked { service: &name, port, client, host, target, server_name };
        let answer = asked.answer(&seen, request, is_outside);
        Ok((!answer.error, self.output.print(&answer, table::matched)?))
    }

    /// The client's namespace, and whether it is a pod outside the mesh.
    fn client(&self, seen: &Seen, service: &NamespacedName) -> anyhow::Result<(String, bool)> {
        let Some(pod) = &self.pod else {
            let namespace = self.from.as_deref().unwrap_or(&service.namespace);
            return Ok((namespace.to_owned(), false));
        };
        let (namespace, name) = pod.split_once('/').unwrap_or((&self.namespace, pod));
        let workload = seen.compiled.workload(&NamespacedName::new(namespace, name));
        let workload = workload.with_context(|| {
            format!(
                "--pod: {} has no running pod {namespace}/{name}; where it is yet to run, give its \
                 namespace with --from",
                seen.source
            )
        })?;
        Ok((namespace.to_owned(), !workload.enrolled))
    }
}

struct Asked<'a> {
    service: &'a NamespacedName,
    port: &'a ServicePort,
    client: &'a str,
    host: &'a str,
    target: &'a PathAndQuery,
    server_name: Option<&'a str>,
}

impl Asked<'_> {
    fn answer(&self, seen: &Seen, request: Request<'_>, is_outside: bool) -> Answer {
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
        let endpoints = format!("to the Service itself, {endpoints}");
        if is_outside {
            answer.outcome = format!("no route: the client is not in the mesh; {endpoints}");
        } else if routes.are_for_connections() {
            answer.protocol = format!("{} (a route for connections holds)", words::BYTES);
            self.connect(seen, &routes, &mut answer);
        } else if self.server_name.is_some() {
            answer.outcome = format!("no route: TLS is carried as it is; {endpoints}");
        } else if matches!(choice, Choice::Declared(Protocol::Opaque, _)) {
            answer.outcome = format!("no route: the port carries bytes; {endpoints}");
        } else if !is_routed {
            answer.outcome = format!("no route is for it; {endpoints}");
        } else {
            self.decide(seen, &routes.explain(request), &mut answer);
        }
        answer
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
        (answer.outcome, answer.error) = (
            "answered with 404, or as a gRPC call with status 12: routes are attached and none is \
             for it (no_route)"
                .to_owned(),
            true,
        );
        for Considered { met, outcome } in considered {
            let reason = match outcome {
                Outcome::Decides => {
                    answer.route = Some(shown::named(met.route));
                    answer.matched = Some(words::matched(met.by));
                    let rule = shown::rule(seen, met.route, met.rule);
                    (answer.outcome, answer.error) = self.outcome(met.rule, &met.by.path);
                    if !answer.error && is_unserved(seen, &rule) {
                        answer.outcome +=
                            ": answered with 503, since no endpoint is ready (no_endpoint)";
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
        match valid_of(rule) {
            (0, _) => ("answered with 500: no backend has a weight (no_backend)".to_owned(), true),
            (_, 0) => ("answered with 500: no backend is valid (no_backend)".to_owned(), true),
            (count, valid) if valid < count => {
                (format!("sent on as {path}; the share of what is not valid gets 500"), false)
            }
            _ => (format!("sent on as {path}"), false),
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
    let is_known = |it: &shown::Shown| seen.is_live || it.endpoints > 0;
    weighs.peek().is_some() && weighs.all(|it| it.ready == 0 && is_known(it))
}
