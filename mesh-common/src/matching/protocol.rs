//! Which protocol a port of a Service speaks, and what says so.
//!
//! `appProtocol` first, then what stands before the first dash of the port's name, as the field
//! does (Istio's and Kubernetes' own values), then ports whose servers speak first or whose protocol
//! is no HTTP. What nobody declares is found out by looking.

use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};

use crate::model::ServicePort;

/// What is known of a port beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP of any version; the client's first bytes say which.
    Http,
    /// HTTP/2 without TLS, towards the endpoint in any case.
    Http2,
    /// Bytes: TLS, a database, or whatever else is not looked into.
    Opaque,
}

/// What says which protocol a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declaration {
    /// `appProtocol`.
    AppProtocol,
    /// What stands before the first dash of the port's name.
    Name,
    /// The number, which is that of a protocol that is not HTTP.
    Number,
}

/// How the protocol of a connection to a port is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The Service declares it.
    Declared(Protocol, Declaration),
    /// A route for requests is attached, so it is HTTP.
    Routed,
    /// By the first bytes of each client.
    Sniffed,
}

/// Ports that are never looked into where nothing is declared: SMTP, MySQL, PostgreSQL, Redis,
/// Elasticsearch between its nodes, memcached. Linkerd's list of opaque ports is the same, but for
/// 587, and 4444 and 5432 which come with a version of it.
const OPAQUE_PORTS: [u16; 7] = [25, 587, 3306, 5432, 6379, 9300, 11211];

/// How the protocol of connections to `port` is chosen, to which a route for requests `is_routed`.
pub fn choose(port: &ServicePort, is_routed: impl FnOnce() -> bool) -> Choice {
    match declaration(port) {
        Some((protocol, by)) => Choice::Declared(protocol, by),
        None if is_routed() => Choice::Routed,
        None => Choice::Sniffed,
    }
}

/// What `port` is declared to speak; `None` where that is to be found out.
pub fn declared(port: &ServicePort) -> Option<Protocol> {
    declaration(port).map(|(protocol, _)| protocol)
}

/// Whether a request with these headers is a call of gRPC, whose errors are told in another way.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = content_type.and_then(|it| it.strip_prefix(b"application/grpc"));
    // Not `application/grpc-web`.
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

fn declaration(port: &ServicePort) -> Option<(Protocol, Declaration)> {
    if let Some(protocol) = &port.app_protocol {
        return Some((app_protocol(protocol), Declaration::AppProtocol));
    }
    let by_name = named(prefix(&port.name)).map(|it| (it, Declaration::Name));
    let by_number = || OPAQUE_PORTS.contains(&port.port);
    by_name.or_else(|| by_number().then_some((Protocol::Opaque, Declaration::Number)))
}

/// What stands before a name's first dash; `grpc-web` has one itself.
fn prefix(name: &str) -> &str {
    const GRPC_WEB: &str = "grpc-web";
    match name.get(..GRPC_WEB.len()) {
        Some(first) if first.eq_ignore_ascii_case(GRPC_WEB) => first,
        _ => name.split('-').next().unwrap_or_default(),
    }
}

/// Whoever writes an `appProtocol` has said what it is: one that is not known here is not HTTP.
fn app_protocol(protocol: &str) -> Protocol {
    // Those of Kubernetes itself (KEP-3726); then any vendor's prefix is left out.
    match protocol.to_ascii_lowercase().as_str() {
        "kubernetes.io/h2c" => Protocol::Http2,
        "kubernetes.io/ws" => Protocol::Http,
        other => named(other.rsplit('/').next().unwrap_or(other)).unwrap_or(Protocol::Opaque),
    }
}

/// What a name stands for; `None` where it stands for no protocol.
fn named(name: &str) -> Option<Protocol> {
    let known = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    // What speaks gRPC to browsers takes either version.
    if known(&["http", "http1", "ws", "grpc-web"]) {
        Some(Protocol::Http)
    } else if known(&["http2", "h2c", "grpc"]) {
        Some(Protocol::Http2)
    } else if known(&[
        "tcp",
        "tls",
        "https",
        "wss",
        "mysql",
        "redis",
        "mongo",
        "postgresql",
        "kafka",
    ]) {
        Some(Protocol::Opaque)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(port: u16, name: &str, app_protocol: Option<&str>) -> Option<Protocol> {
        let app_protocol = app_protocol.map(Into::into);
        declared(&ServicePort { port, name: name.into(), app_protocol })
    }

    #[test]
    fn app_protocol_goes_before_the_name_and_the_name_before_the_number() {
        use Protocol::{Http, Http2, Opaque};
        for (number, name, app_protocol, expected) in [
            (80, "main", None, None),
            (80, "", None, None),
            (80, "http", None, Some(Http)),
            (80, "http-web", None, Some(Http)),
            (80, "HTTP-web", None, Some(Http)),
            (80, "httpx", None, None),
            (80, "http2", None, Some(Http2)),
            (80, "http2-web", None, Some(Http2)),
            (80, "grpc", None, Some(Http2)),
            (80, "grpc-web", None, Some(Http)),
            (80, "grpc-web-main", None, Some(Http)),
            (80, "tcp-http", None, Some(Opaque)),
            (443, "https", None, Some(Opaque)),
            (443, "tls-web", None, Some(Opaque)),
            (6379, "main", None, Some(Opaque)),
            (6379, "http", None, Some(Http)),
            (6379, "main", Some("http"), Some(Http)),
            (80, "http", Some("tcp"), Some(Opaque)),
            (80, "http", Some("example.com/mine"), Some(Opaque)),
            (80, "tcp", Some("kubernetes.io/h2c"), Some(Http2)),
            (80, "tcp", Some("kubernetes.io/ws"), Some(Http)),
            (80, "tcp", Some("kubernetes.io/wss"), Some(Opaque)),
            (80, "tcp", Some("grpc"), Some(Http2)),
            (80, "tcp", Some("HTTP"), Some(Http)),
            (80, "http", Some("https"), Some(Opaque)),
        ] {
            assert_eq!(
                port(number, name, app_protocol),
                expected,
                "{number} {name} {app_protocol:?}"
            );
        }
    }

    #[test]
    fn where_nothing_is_declared_a_route_says_that_it_is_http() {
        let port = |app_protocol: Option<&str>, number| ServicePort {
            port: number,
            name: "main".into(),
            app_protocol: app_protocol.map(Into::into),
        };
        assert_eq!(choose(&port(None, 80), || true), Choice::Routed);
        assert_eq!(choose(&port(None, 80), || false), Choice::Sniffed);
        let by_number = Choice::Declared(Protocol::Opaque, Declaration::Number);
        assert_eq!(choose(&port(None, 25), || true), by_number);
        let declared = Choice::Declared(Protocol::Http, Declaration::AppProtocol);
        assert_eq!(choose(&port(Some("http"), 80), || false), declared);
    }

    #[test]
    fn calls_of_grpc_say_so() {
        for (content_type, expected) in [
            (Some("application/grpc"), true),
            (Some("application/grpc+proto"), true),
            (Some("application/grpc;charset=utf-8"), true),
            (Some("application/grpc-web"), false),
            (Some("application/json"), false),
            (None, false),
        ] {
            let value = content_type.map(HeaderValue::from_static);
            let headers = value.into_iter().map(|value| (CONTENT_TYPE, value)).collect();
            assert_eq!(is_grpc(&headers), expected, "{content_type:?}");
        }
    }
}
