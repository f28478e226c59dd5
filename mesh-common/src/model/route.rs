//! HTTP and gRPC routes as compiled: names are resolved, numbers are parsed, patterns are ready.
//!
//! The terms and the rules are the Gateway API's (`gateway.networking.k8s.io`), for Services as
//! parents. Rules of TLSRoutes and TCPRoutes have backends alone: they are for whole connections.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method};

use super::{NamespacedName, Pattern};

mod filter;

pub use filter::{
    Cors, Filter, HeaderModifier, Mirror, PathModifier, Redirect, RedirectScheme, Rewrite, Share,
};

/// Where requests to Services go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Namespace and name.
    pub name: NamespacedName,
    /// Which kind it is.
    pub kind: RouteKind,
    /// When it was created, seconds since the Unix epoch: of two that match alike the older wins.
    pub created: i64,
    /// The Services whose requests it is for.
    pub parents: Vec<RouteParent>,
    /// Server names that a TLSRoute is for, `*.` before some; none for every one.
    pub hostnames: Vec<Arc<str>>,
    /// The rules, in the order they were written.
    pub rules: Vec<RouteRule>,
}

/// The kinds of [`Route`]. On one port of a Service the first of them goes before the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// A GRPCRoute.
    Grpc,
    /// An HTTPRoute.
    Http,
    /// A TLSRoute.
    Tls,
    /// A TCPRoute.
    Tcp,
}

impl RouteKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Grpc, Self::Http, Self::Tls, Self::Tcp];

    /// As written in `kind:`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
        }
    }

    /// Whether it is for requests, and not for whole connections.
    pub fn is_for_requests(self) -> bool {
        matches!(self, Self::Grpc | Self::Http)
    }
}

impl Route {
    /// The Services that its rules lead to, and that get copies.
    pub fn targets(&self) -> impl Iterator<Item = &NamespacedName> {
        self.rules.iter().flat_map(|rule| {
            let backends = rule.backends.iter().map(|backend| &backend.target);
            let mirrors = rule.filters.iter().filter_map(|filter| match filter {
                Filter::Mirror(mirror) => Some(&mirror.target),
                _ => None,
            });
            backends.chain(mirrors).filter_map(|target| match target {
                BackendTarget::Service { name, .. } => Some(name),
                BackendTarget::Invalid(_) => None,
            })
        })
    }
}

/// A Service whose requests a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteParent {
    /// The Service.
    pub service: NamespacedName,
    /// The port of the Service; `None` for all.
    pub port: Option<u16>,
}

/// What becomes of requests that any of `matches` matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRule {
    /// The rule's name, or its index in the route: what flows call it.
    pub name: Arc<str>,
    /// What it is for; a rule without any is for nothing.
    pub matches: Vec<RouteMatch>,
    /// What is done to request and response.
    pub filters: Vec<Filter>,
    /// Where the requests go.
    pub backends: Vec<Backend>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Whether and when a request is sent once more.
    pub retry: Option<Retry>,
}

/// A request that has all of this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// The method; `None` for any.
    pub method: Option<Method>,
    /// Headers, each name at most once.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters, each name at most once.
    pub query: Vec<QueryMatch>,
}

/// A path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// This path and no other.
    Exact(Arc<str>),
    /// Paths that begin with these elements, written without a slash at the end: `/` is empty.
    Prefix(Arc<str>),
    /// Paths that match.
    Pattern(Pattern),
    /// `/service/method`, as gRPC has it.
    Grpc {
        /// The service with its package; `None` for any.
        service: Option<TextMatch>,
        /// The method; `None` for any.
        method: Option<TextMatch>,
    },
}

/// A text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextMatch {
    /// This text and no other; capitals matter.
    Exact(Arc<str>),
    /// Texts that match.
    Pattern(Pattern),
}

impl TextMatch {
    /// Whether `text` is meant.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *text,
            Self::Pattern(pattern) => pattern.matches(text),
        }
    }

    /// How many bytes were written: what makes one match more specific than another.
    pub fn written(&self) -> usize {
        match self {
            Self::Exact(exact) => exact.len(),
            Self::Pattern(pattern) => pattern.as_str().len(),
        }
    }
}

/// A header of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Its name.
    pub name: HeaderName,
    /// Its value; that of a repeated header is joined with commas.
    pub value: TextMatch,
}

/// A query parameter of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatch {
    /// Its name, decoded.
    pub name: Arc<str>,
    /// The value of the first parameter of that name, decoded.
    pub value: TextMatch,
}

/// Where a share of a rule's requests goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where to.
    pub target: BackendTarget,
    /// Its share, in proportion to the sum of all.
    pub weight: u32,
    /// What is done to its requests and responses besides.
    pub filters: Vec<Filter>,
}

/// Where requests may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendTarget {
    /// A port of a Service.
    Service {
        /// The Service.
        name: NamespacedName,
        /// The port of the Service.
        port: u16,
    },
    /// Nowhere: the reference is not valid, and its share is answered with an error.
    Invalid(Arc<str>),
}

/// How long things may take; `None` for as long as they like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the request's first byte until the response's last, retries included.
    pub request: Option<Duration>,
    /// The same for one try.
    pub backend_request: Option<Duration>,
}

/// When a request is sent once more. Where this stands, it is after failed connections too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The answers after which it is.
    pub codes: Vec<u16>,
    /// How often at most, the first try not counted.
    pub attempts: u32,
    /// How long to wait before, at least.
    pub backoff: Duration,
}

/// A header and what it shall be.
pub type Header = (HeaderName, HeaderValue);
