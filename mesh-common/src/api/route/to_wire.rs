//! From the model to messages: cannot fail.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};

use crate::{
    api::v1,
    model::{
        Backend, BackendTarget, Cors, Filter, Header, HeaderMatch, HeaderModifier, Mirror,
        PathMatch, PathModifier, QueryMatch, Redirect, RedirectScheme, Retry, Rewrite, Route,
        RouteKind, RouteMatch, RouteParent, RouteRule, TextMatch,
    },
};

impl From<&Route> for v1::Route {
    fn from(route: &Route) -> Self {
        Self {
            name: Some((&route.name).into()),
            kind: v1::RouteKind::from(route.kind).into(),
            created: route.created,
            parents: route.parents.iter().map(Into::into).collect(),
            hostnames: route.hostnames.iter().map(ToString::to_string).collect(),
            rules: route.rules.iter().map(Into::into).collect(),
        }
    }
}

impl From<RouteKind> for v1::RouteKind {
    fn from(kind: RouteKind) -> Self {
        match kind {
            RouteKind::Grpc => Self::Grpc,
            RouteKind::Http => Self::Http,
            RouteKind::Tls => Self::Tls,
            RouteKind::Tcp => Self::Tcp,
        }
    }
}

impl From<&RouteParent> for v1::RouteParent {
    fn from(parent: &RouteParent) -> Self {
        Self { service: Some((&parent.service).into()), port: parent.port.map(Into::into) }
    }
}

impl From<&RouteRule> for v1::RouteRule {
    fn from(rule: &RouteRule) -> Self {
        let timeout = |timeout: Option<Duration>| timeout.map_or(0, milliseconds);
        Self {
            name: rule.name.to_string(),
            matches: rule.matches.iter().map(Into::into).collect(),
            filters: rule.filters.iter().map(Into::into).collect(),
            backends: rule.backends.iter().map(Into::into).collect(),
            request_timeout_ms: timeout(rule.timeouts.request),
            backend_request_timeout_ms: timeout(rule.timeouts.backend_request),
            retry: rule.retry.as_ref().map(Into::into),
        }
    }
}

impl From<&RouteMatch> for v1::RouteMatch {
    fn from(wanted: &RouteMatch) -> Self {
        use v1::route_match::Path;
        let path = match &wanted.path {
            PathMatch::Exact(path) => Path::Exact(path.to_string()),
            PathMatch::Prefix(path) => Path::Prefix(path.to_string()),
            PathMatch::Pattern(pattern) => Path::Pattern(pattern.to_string()),
            PathMatch::Grpc { service, method } => Path::Grpc(v1::GrpcMethodMatch {
                service: service.as_ref().map(Into::into),
                method: method.as_ref().map(Into::into),
            }),
        };
        let header = |it: &HeaderMatch| named(it.name.as_str(), &it.value);
        let parameter = |it: &QueryMatch| named(&it.name, &it.value);
        Self {
            path: Some(path),
            method: wanted.method.as_ref().map(ToString::to_string).unwrap_or_default(),
            headers: wanted.headers.iter().map(header).collect(),
            query: wanted.query.iter().map(parameter).collect(),
        }
    }
}

fn named(name: &str, value: &TextMatch) -> v1::NamedTextMatch {
    v1::NamedTextMatch { name: name.to_owned(), value: Some(value.into()) }
}

impl From<&TextMatch> for v1::TextMatch {
    fn from(text: &TextMatch) -> Self {
        use v1::text_match::Text;
        let text = match text {
            TextMatch::Exact(text) => Text::Exact(text.to_string()),
            TextMatch::Pattern(pattern) => Text::Pattern(pattern.to_string()),
        };
        Self { text: Some(text) }
    }
}

impl From<&Filter> for v1::RouteFilter {
    fn from(filter: &Filter) -> Self {
        use v1::route_filter::Filter as Wire;
        let filter = match filter {
            Filter::RequestHeaders(it) => Wire::RequestHeaders(it.into()),
            Filter::ResponseHeaders(it) => Wire::ResponseHeaders(it.into()),
            Filter::Rewrite(it) => Wire::Rewrite(it.into()),
            Filter::Redirect(it) => Wire::Redirect(it.into()),
            Filter::Mirror(it) => Wire::Mirror(it.into()),
            Filter::Cors(it) => Wire::Cors(it.into()),
        };
        Self { filter: Some(filter) }
    }
}

impl From<&HeaderModifier> for v1::HeaderModifier {
    fn from(modifier: &HeaderModifier) -> Self {
        let field = |(name, value): &Header| v1::HeaderField {
            name: name.to_string(),
            value: value.as_bytes().to_vec().into(),
        };
        Self {
            set: modifier.set.iter().map(field).collect(),
            add: modifier.add.iter().map(field).collect(),
            remove: modifier.remove.iter().map(HeaderName::to_string).collect(),
        }
    }
}

impl From<&Rewrite> for v1::Rewrite {
    fn from(rewrite: &Rewrite) -> Self {
        Self { hostname: text(&rewrite.hostname), path: rewrite.path.as_ref().map(Into::into) }
    }
}

impl From<&PathModifier> for v1::PathModifier {
    fn from(modifier: &PathModifier) -> Self {
        use v1::path_modifier::Path;
        let path = match modifier {
            PathModifier::Full(path) => Path::Full(path.to_string()),
            PathModifier::Prefix(path) => Path::Prefix(path.to_string()),
        };
        Self { path: Some(path) }
    }
}

impl From<&Redirect> for v1::Redirect {
    fn from(redirect: &Redirect) -> Self {
        use v1::redirect::Scheme;
        let scheme = match redirect.scheme {
            None => Scheme::Unspecified,
            Some(RedirectScheme::Http) => Scheme::Http,
            Some(RedirectScheme::Https) => Scheme::Https,
        };
        Self {
            scheme: scheme.into(),
            hostname: text(&redirect.hostname),
            path: redirect.path.as_ref().map(Into::into),
            port: redirect.port.map(Into::into),
            status: redirect.status.as_u16().into(),
        }
    }
}

impl From<&Mirror> for v1::Mirror {
    fn from(mirror: &Mirror) -> Self {
        Self {
            target: Some((&mirror.target).into()),
            numerator: mirror.share.numerator,
            denominator: mirror.share.denominator.get(),
        }
    }
}

impl From<&Cors> for v1::Cors {
    fn from(cors: &Cors) -> Self {
        let headers = |it: &Vec<HeaderName>| names(it.iter().map(ToString::to_string));
        let value = |it: &HeaderValue| String::from_utf8_lossy(it.as_bytes()).into_owned();
        Self {
            allow_origins: cors.allow_origins.iter().map(ToString::to_string).collect(),
            allow_credentials: cors.allow_credentials,
            allow_methods: cors
                .allow_methods
                .as_ref()
                .map(|it| names(it.iter().map(ToString::to_string))),
            allow_headers: cors.allow_headers.as_ref().map(headers),
            expose_headers: cors.expose_headers.as_ref().map(|it| names(it.iter().map(value))),
            max_age_seconds: cors.max_age.as_secs(),
        }
    }
}

fn names(names: impl Iterator<Item = String>) -> v1::cors::Names {
    v1::cors::Names { names: names.collect() }
}

impl From<&Backend> for v1::RouteBackend {
    fn from(backend: &Backend) -> Self {
        Self {
            target: Some((&backend.target).into()),
            weight: backend.weight,
            filters: backend.filters.iter().map(Into::into).collect(),
        }
    }
}

impl From<&BackendTarget> for v1::RouteTarget {
    fn from(target: &BackendTarget) -> Self {
        use v1::route_target::Target;
        let target = match target {
            BackendTarget::Service { name, port } => {
                Target::Service(v1::ServiceTarget { name: Some(name.into()), port: (*port).into() })
            }
            BackendTarget::Invalid(reason) => Target::Invalid(reason.to_string()),
        };
        Self { target: Some(target) }
    }
}

impl From<&Retry> for v1::RouteRetry {
    fn from(retry: &Retry) -> Self {
        Self {
            codes: retry.codes.iter().map(|code| (*code).into()).collect(),
            attempts: retry.attempts,
            backoff_ms: milliseconds(retry.backoff),
        }
    }
}

fn text(text: &Option<Arc<str>>) -> Option<String> {
    text.as_deref().map(str::to_owned)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
