//! From messages to the model: parses, so that what comes out needs no further checks.

use std::{num::NonZeroU32, time::Duration};

use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::{
    api::{
        InvalidResource,
        from_wire::{all, port, required},
        v1,
    },
    model::{
        Backend, BackendTarget, Cors, Filter, Header, HeaderMatch, HeaderModifier, Mirror,
        PathMatch, PathModifier, QueryMatch, Redirect, RedirectScheme, Retry, Rewrite, Route,
        RouteKind, RouteMatch, RouteParent, RouteRule, Share, TextMatch, Timeouts,
    },
};

impl TryFrom<v1::Route> for Route {
    type Error = InvalidResource;

    fn try_from(route: v1::Route) -> Result<Self, InvalidResource> {
        Ok(Self {
            kind: route.kind().try_into()?,
            name: required(route.name, "name")?,
            created: route.created,
            parents: all(route.parents)?,
            hostnames: route.hostnames.into_iter().map(Into::into).collect(),
            rules: all(route.rules)?,
        })
    }
}

impl TryFrom<v1::RouteKind> for RouteKind {
    type Error = InvalidResource;

    fn try_from(kind: v1::RouteKind) -> Result<Self, InvalidResource> {
        match kind {
            v1::RouteKind::Grpc => Ok(Self::Grpc),
            v1::RouteKind::Http => Ok(Self::Http),
            v1::RouteKind::Tls => Ok(Self::Tls),
            v1::RouteKind::Tcp => Ok(Self::Tcp),
            v1::RouteKind::Unspecified => Err(InvalidResource::Unknown("kind")),
        }
    }
}

impl TryFrom<v1::RouteParent> for RouteParent {
    type Error = InvalidResource;

    fn try_from(parent: v1::RouteParent) -> Result<Self, InvalidResource> {
        let port = parent.port.map(port).transpose()?;
        Ok(Self { service: required(parent.service, "service")?, port })
    }
}

impl TryFrom<v1::RouteRule> for RouteRule {
    type Error = InvalidResource;

    fn try_from(rule: v1::RouteRule) -> Result<Self, InvalidResource> {
        let timeout = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
        Ok(Self {
            name: rule.name.into(),
            matches: all(rule.matches)?,
            filters: all(rule.filters)?,
            backends: all(rule.backends)?,
            timeouts: Timeouts {
                request: timeout(rule.request_timeout_ms),
                backend_request: timeout(rule.backend_request_timeout_ms),
            },
            retry: rule.retry.map(TryInto::try_into).transpose()?,
        })
    }
}

impl TryFrom<v1::RouteMatch> for RouteMatch {
    type Error = InvalidResource;

    fn try_from(wanted: v1::RouteMatch) -> Result<Self, InvalidResource> {
        use v1::route_match::Path;
        let path = match wanted.path {
            Some(Path::Exact(path)) => PathMatch::Exact(path.into()),
            Some(Path::Prefix(path)) => PathMatch::Prefix(path.into()),
            Some(Path::Pattern(pattern)) => PathMatch::Pattern(pattern.parse()?),
            Some(Path::Grpc(it)) => PathMatch::Grpc {
                service: it.service.map(TryInto::try_into).transpose()?,
                method: it.method.map(TryInto::try_into).transpose()?,
            },
            None => return Err(InvalidResource::Unknown("path")),
        };
        let headers = wanted.headers.into_iter().map(|it| {
            Ok(HeaderMatch { name: header_name(&it.name)?, value: required(it.value, "value")? })
        });
        let query = wanted
            .query
            .into_iter()
            .map(|it| Ok(QueryMatch { name: it.name.into(), value: required(it.value, "value")? }));
        Ok(Self {
            path,
            method: match wanted.method.as_str() {
                "" => None,
                text => Some(method(text)?),
            },
            headers: headers.collect::<Result<_, InvalidResource>>()?,
            query: query.collect::<Result<_, InvalidResource>>()?,
        })
    }
}

impl TryFrom<v1::TextMatch> for TextMatch {
    type Error = InvalidResource;

    fn try_from(text: v1::TextMatch) -> Result<Self, InvalidResource> {
        use v1::text_match::Text;
        match text.text {
            Some(Text::Exact(text)) => Ok(Self::Exact(text.into())),
            Some(Text::Pattern(pattern)) => Ok(Self::Pattern(pattern.parse()?)),
            None => Err(InvalidResource::Unknown("text")),
        }
    }
}

impl TryFrom<v1::RouteFilter> for Filter {
    type Error = InvalidResource;

    fn try_from(filter: v1::RouteFilter) -> Result<Self, InvalidResource> {
        use v1::route_filter::Filter as Wire;
        Ok(match filter.filter.ok_or(InvalidResource::Unknown("filter"))? {
            Wire::RequestHeaders(it) => Self::RequestHeaders(it.try_into()?),
            Wire::ResponseHeaders(it) => Self::ResponseHeaders(it.try_into()?),
            Wire::Rewrite(it) => Self::Rewrite(Rewrite {
                hostname: it.hostname.map(Into::into),
                path: it.path.map(TryInto::try_into).transpose()?,
            }),
            Wire::Redirect(it) => Self::Redirect(it.try_into()?),
            Wire::Mirror(it) => Self::Mirror(it.try_into()?),
            Wire::Cors(it) => Self::Cors(it.try_into()?),
        })
    }
}

impl TryFrom<v1::HeaderModifier> for HeaderModifier {
    type Error = InvalidResource;

    fn try_from(modifier: v1::HeaderModifier) -> Result<Self, InvalidResource> {
        let fields = |list: Vec<v1::HeaderField>| {
            let field = |it: v1::HeaderField| -> Result<Header, InvalidResource> {
                let value = HeaderValue::from_bytes(&it.value);
                let value = value.map_err(|_| InvalidResource::Value("value"))?;
                Ok((header_name(&it.name)?, value))
            };
            list.into_iter().map(field).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            set: fields(modifier.set)?,
            add: fields(modifier.add)?,
            remove: header_names(&modifier.remove)?,
        })
    }
}

impl TryFrom<v1::PathModifier> for PathModifier {
    type Error = InvalidResource;

    fn try_from(modifier: v1::PathModifier) -> Result<Self, InvalidResource> {
        use v1::path_modifier::Path;
        match modifier.path {
            Some(Path::Full(path)) => Ok(Self::Full(path.into())),
            Some(Path::Prefix(path)) => Ok(Self::Prefix(path.into())),
            None => Err(InvalidResource::Unknown("path")),
        }
    }
}

impl TryFrom<v1::Redirect> for Redirect {
    type Error = InvalidResource;

    fn try_from(redirect: v1::Redirect) -> Result<Self, InvalidResource> {
        use v1::redirect::Scheme;
        let status = u16::try_from(redirect.status).ok();
        let status = status.and_then(|code| StatusCode::from_u16(code).ok());
        Ok(Self {
            scheme: match Scheme::try_from(redirect.scheme) {
                Ok(Scheme::Unspecified) => None,
                Ok(Scheme::Http) => Some(RedirectScheme::Http),
                Ok(Scheme::Https) => Some(RedirectScheme::Https),
                Err(_) => return Err(InvalidResource::Unknown("scheme")),
            },
            hostname: redirect.hostname.map(Into::into),
            path: redirect.path.map(TryInto::try_into).transpose()?,
            port: redirect.port.map(port).transpose()?,
            status: status
                .filter(StatusCode::is_redirection)
                .ok_or(InvalidResource::Value("status"))?,
        })
    }
}

impl TryFrom<v1::Mirror> for Mirror {
    type Error = InvalidResource;

    fn try_from(mirror: v1::Mirror) -> Result<Self, InvalidResource> {
        let denominator =
            NonZeroU32::new(mirror.denominator).ok_or(InvalidResource::Value("denominator"))?;
        Ok(Self {
            target: required(mirror.target, "target")?,
            share: Share { numerator: mirror.numerator, denominator },
        })
    }
}

impl TryFrom<v1::Cors> for Cors {
    type Error = InvalidResource;

    fn try_from(cors: v1::Cors) -> Result<Self, InvalidResource> {
        let methods =
            |it: v1::cors::Names| it.names.iter().map(|it| method(it)).collect::<Result<_, _>>();
        let headers = |it: v1::cors::Names| header_names(&it.names);
        let values = |it: v1::cors::Names| {
            let value = |it: &String| HeaderValue::from_str(it);
            let values = it.names.iter().map(value).collect::<Result<_, _>>();
            values.map_err(|_| InvalidResource::Value("expose_headers"))
        };
        Ok(Self {
            allow_origins: cors.allow_origins.into_iter().map(Into::into).collect(),
            allow_credentials: cors.allow_credentials,
            allow_methods: cors.allow_methods.map(methods).transpose()?,
            allow_headers: cors.allow_headers.map(headers).transpose()?,
            expose_headers: cors.expose_headers.map(values).transpose()?,
            max_age: Duration::from_secs(cors.max_age_seconds),
        })
    }
}

impl TryFrom<v1::RouteBackend> for Backend {
    type Error = InvalidResource;

    fn try_from(backend: v1::RouteBackend) -> Result<Self, InvalidResource> {
        Ok(Self {
            target: required(backend.target, "target")?,
            weight: backend.weight,
            filters: all(backend.filters)?,
        })
    }
}

impl TryFrom<v1::RouteTarget> for BackendTarget {
    type Error = InvalidResource;

    fn try_from(target: v1::RouteTarget) -> Result<Self, InvalidResource> {
        use v1::route_target::Target;
        match target.target {
            Some(Target::Service(it)) => {
                Ok(Self::Service { name: required(it.name, "name")?, port: port(it.port)? })
            }
            Some(Target::Invalid(reason)) => Ok(Self::Invalid(reason.into())),
            None => Err(InvalidResource::Unknown("target")),
        }
    }
}

impl TryFrom<v1::RouteRetry> for Retry {
    type Error = InvalidResource;

    fn try_from(retry: v1::RouteRetry) -> Result<Self, InvalidResource> {
        let code = |code: u32| u16::try_from(code).map_err(|_| InvalidResource::Value("codes"));
        Ok(Self {
            codes: retry.codes.into_iter().map(code).collect::<Result<_, _>>()?,
            attempts: retry.attempts,
            backoff: Duration::from_millis(retry.backoff_ms),
        })
    }
}

fn method(text: &str) -> Result<Method, InvalidResource> {
    Method::from_bytes(text.as_bytes()).map_err(|_| InvalidResource::Value("method"))
}

fn header_name(text: &str) -> Result<HeaderName, InvalidResource> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| InvalidResource::Value("name"))
}

fn header_names(list: &[String]) -> Result<Vec<HeaderName>, InvalidResource> {
    list.iter().map(|text| header_name(text)).collect()
}
