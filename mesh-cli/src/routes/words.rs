//! Parts of routes in words.

use std::time::Duration;

use mesh_common::{
    matching::{
        protocol::{Choice, Declaration, Protocol},
        route::{Criterion, Mismatch},
    },
    model::{
        Filter, Header, HeaderModifier, NamespacedName, PathMatch, PathModifier, Retry, RouteMatch,
        RouteRule, ServicePort, TextMatch,
    },
};

/// What is not looked into.
pub const BYTES: &str = "bytes";

/// What a port speaks.
pub fn protocol(choice: Choice) -> &'static str {
    match choice {
        Choice::Declared(Protocol::Http, _) | Choice::Routed => "HTTP",
        Choice::Declared(Protocol::Http2, _) => "HTTP/2",
        Choice::Declared(Protocol::Opaque, _) => BYTES,
        Choice::Sniffed => "not declared",
    }
}

/// What says so.
pub fn choice(choice: Choice, port: &ServicePort) -> String {
    match choice {
        Choice::Declared(_, Declaration::AppProtocol) => {
            format!("appProtocol `{}`", port.app_protocol.as_deref().unwrap_or_default())
        }
        Choice::Declared(_, Declaration::Name) => format!("name `{}`", port.name),
        Choice::Declared(_, Declaration::Number) => {
            format!("{} is the port of a protocol that is not HTTP", port.port)
        }
        Choice::Routed => "a route is attached".to_owned(),
        Choice::Sniffed => "HTTP if a client's first bytes are, else bytes".to_owned(),
    }
}

/// What a match asks for.
pub fn matched(by: &RouteMatch) -> String {
    let RouteMatch { path, method, headers, query } = by;
    let method = method.iter().map(|method| format!("method {method}"));
    let headers = headers.iter().map(|it| format!("header {}{}", it.name, text(&it.value)));
    let query = query.iter().map(|it| format!("query {}{}", it.name, text(&it.value)));
    let all: Vec<_> =
        [of_path(path)].into_iter().chain(method).chain(headers).chain(query).collect();
    all.join(", ")
}

/// What a request lacks.
pub fn mismatch(mismatch: &Mismatch<'_>) -> String {
    match mismatch {
        Mismatch::Path(path) => format!("not {}", of_path(path)),
        Mismatch::Method(method) => format!("not method {method}"),
        Mismatch::Header(it) => format!("no header {}{}", it.name, text(&it.value)),
        Mismatch::Query(it) => format!("no query {}{}", it.name, text(&it.value)),
    }
}

/// Why one that is for the request too comes later.
pub fn criterion(criterion: Criterion) -> &'static str {
    match criterion {
        Criterion::Path => "its path is less specific",
        Criterion::Method => "it asks for no method",
        Criterion::Headers => "it asks for fewer headers",
        Criterion::Query => "it asks for fewer query parameters",
        Criterion::Age => "its route is younger",
        Criterion::Name => "its route comes later by name",
        Criterion::Rule => "its rule comes later in the route",
        Criterion::Match => "it comes later in the rule",
    }
}

fn of_path(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(exact) => format!("path {exact}"),
        PathMatch::Prefix(prefix) if prefix.is_empty() => "any path".to_owned(),
        PathMatch::Prefix(prefix) => format!("path under {prefix}"),
        PathMatch::Pattern(pattern) => format!("path ~ {}", pattern.as_str()),
        PathMatch::Grpc { service: None, method: None } => "any call".to_owned(),
        PathMatch::Grpc { service, method } => {
            let service = service.iter().map(|it| format!("service{}", text(it)));
            let method = method.iter().map(|it| format!("method{}", text(it)));
            service.chain(method).collect::<Vec<_>>().join(", ")
        }
    }
}

fn text(value: &TextMatch) -> String {
    match value {
        TextMatch::Exact(exact) => format!(" = {exact}"),
        TextMatch::Pattern(pattern) => format!(" ~ {}", pattern.as_str()),
    }
}

/// What a filter does.
pub fn filter(filter: &Filter) -> String {
    match filter {
        Filter::RequestHeaders(it) => format!("request headers: {}", headers(it)),
        Filter::ResponseHeaders(it) => format!("response headers: {}", headers(it)),
        Filter::Rewrite(it) => {
            let host = it.hostname.iter().map(|host| format!("host {host}"));
            let all: Vec<_> = host.chain(it.path.as_ref().map(modifier)).collect();
            format!("rewrite: {}", all.join(", "))
        }
        Filter::Redirect(it) => format!("redirect: {}", it.status.as_u16()),
        Filter::Mirror(it) => {
            let (numerator, denominator) = (it.share.numerator, it.share.denominator);
            format!("mirror: {numerator} of {denominator} to {}", target(&it.target))
        }
        Filter::Cors(it) => format!("CORS: origins {}", it.allow_origins.join(", ")),
    }
}

fn modifier(modifier: &PathModifier) -> String {
    match modifier {
        PathModifier::Full(full) => format!("path {full}"),
        PathModifier::Prefix(prefix) => format!("prefix {prefix}"),
    }
}

fn headers(HeaderModifier { set, add, remove }: &HeaderModifier) -> String {
    let with = |verb: &str, (name, value): &Header| {
        format!("{verb} {name}={}", String::from_utf8_lossy(value.as_bytes()))
    };
    let set = set.iter().map(|it| with("set", it));
    let add = add.iter().map(|it| with("add", it));
    let remove = remove.iter().map(|name| format!("remove {name}"));
    set.chain(add).chain(remove).collect::<Vec<_>>().join(", ")
}

/// Where a reference leads.
pub fn target(target: &mesh_common::model::BackendTarget) -> String {
    use mesh_common::model::BackendTarget::{Invalid, Service};
    match target {
        Service { name, port } => format!("{name}:{port}"),
        Invalid(reason) => format!("nowhere: {reason}"),
    }
}

/// How many endpoints there are.
pub fn endpoints(ready: usize, all: usize) -> String {
    match all {
        0 => "no endpoint known".to_owned(),
        _ => format!("{ready} of {all} endpoints ready"),
    }
}

/// How long things may take, and what is tried again.
pub fn bounds(rule: &RouteRule) -> Vec<String> {
    let request = rule.timeouts.request.map(|it| format!("request {}", duration(it)));
    let backend = rule.timeouts.backend_request.map(|it| format!("try {}", duration(it)));
    let retry = rule.retry.as_ref().map(retry);
    request.into_iter().chain(backend).chain(retry).collect()
}

fn retry(retry: &Retry) -> String {
    let codes: Vec<_> = retry.codes.iter().map(u16::to_string).collect();
    let codes = match codes.is_empty() {
        true => String::new(),
        false => format!(" after {} and", codes.join(", ")),
    };
    let (attempts, backoff) = (retry.attempts, duration(retry.backoff));
    format!("{attempts} retries{codes} after failed connections, {backoff} apart or more")
}

fn duration(duration: Duration) -> String {
    format!("{duration:?}")
}

/// For whom a route of that namespace is.
pub fn clients(route: &NamespacedName, service: &NamespacedName) -> String {
    match route.namespace == service.namespace {
        true => "all clients".to_owned(),
        false => format!("clients of namespace {} in place of others", route.namespace),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use http::{HeaderName, HeaderValue, Method};
    use mesh_common::model::{BackendTarget, HeaderMatch, Mirror, QueryMatch, Rewrite, Share};

    use super::*;

    #[test]
    fn matches_filters_and_bounds_are_readable() {
        let by = RouteMatch {
            path: PathMatch::Prefix("/a".into()),
            method: Some(Method::GET),
            headers: vec![HeaderMatch {
                name: HeaderName::from_static("canary"),
                value: TextMatch::Exact("1".into()),
            }],
            query: vec![QueryMatch {
                name: "v".into(),
                value: TextMatch::Pattern("[0-9]+".parse().expect("a pattern")),
            }],
        };
        let words = "path under /a, method GET, header canary = 1, query v ~ [0-9]+";
        assert_eq!(matched(&by), words);
        let header = (HeaderName::from_static("a"), HeaderValue::from_static("b"));
        let remove = vec![HeaderName::from_static("c")];
        let modifier = HeaderModifier { set: vec![header], remove, ..Default::default() };
        let name = NamespacedName::new("shop", "copy");
        let target = BackendTarget::Service { name, port: 80 };
        let share = Share { numerator: 1, denominator: NonZeroU32::MIN };
        let path = Some(PathModifier::Prefix("/b".into()));
        for (of, words) in [
            (Filter::RequestHeaders(modifier), "request headers: set a=b, remove c"),
            (Filter::Mirror(Mirror { target, share }), "mirror: 1 of 1 to shop/copy:80"),
            (Filter::Rewrite(Rewrite { hostname: None, path }), "rewrite: prefix /b"),
        ] {
            assert_eq!(filter(&of), words);
        }
        let rule = Retry { codes: vec![503], attempts: 2, backoff: Duration::from_millis(25) };
        let words = "2 retries after 503 and after failed connections, 25ms apart or more";
        assert_eq!(retry(&rule), words);
    }
}
