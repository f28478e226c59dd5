//! What a route does to requests and responses on their way.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::{BackendTarget, Header};

/// One thing that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Changes headers of the request.
    RequestHeaders(HeaderModifier),
    /// Changes headers of the response.
    ResponseHeaders(HeaderModifier),
    /// Changes host and path of the request.
    Rewrite(Rewrite),
    /// Answers with a redirect.
    Redirect(Redirect),
    /// Sends a copy of the request elsewhere, whose answer nobody sees.
    Mirror(Mirror),
    /// Answers what browsers ask before they call another origin, and says what that may read.
    Cors(Cors),
}

/// Changes of headers, made in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    /// Replaced or, where they are not there, added.
    pub set: Vec<Header>,
    /// Joined to what is there with a comma.
    pub add: Vec<Header>,
    /// Taken away.
    pub remove: Vec<HeaderName>,
}

/// Another host, another path, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The new host.
    pub hostname: Option<Arc<str>>,
    /// The new path.
    pub path: Option<PathModifier>,
}

/// What a path becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathModifier {
    /// This, whatever it was.
    Full(Arc<str>),
    /// The prefix that the rule matched becomes this.
    Prefix(Arc<str>),
}

/// Where a redirect leads; what is `None` stays as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The scheme.
    pub scheme: Option<RedirectScheme>,
    /// The host.
    pub hostname: Option<Arc<str>>,
    /// The path.
    pub path: Option<PathModifier>,
    /// The port.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// The schemes that a redirect may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectScheme {
    /// `http`, whose port is 80.
    Http,
    /// `https`, whose port is 443.
    Https,
}

/// A copy for somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// For whom.
    pub target: BackendTarget,
    /// Of how many requests.
    pub share: Share,
}

/// `numerator` of every `denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// How many; more than there are is all of them.
    pub numerator: u32,
    /// Of how many, never 0.
    pub denominator: std::num::NonZeroU32,
}

/// What scripts of other origins may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Origins, `*` for any, or `https://*.example.com` for the names below one.
    pub allow_origins: Vec<Arc<str>>,
    /// Whether they may bring cookies and the like along.
    pub allow_credentials: bool,
    /// The methods; `None` for any.
    pub allow_methods: Option<Vec<Method>>,
    /// The request headers; `None` for any.
    pub allow_headers: Option<Vec<HeaderName>>,
    /// The response headers they may read; `None` for any.
    pub expose_headers: Option<Vec<HeaderValue>>,
    /// How long a browser may remember the answer, whole seconds.
    pub max_age: Duration,
}
