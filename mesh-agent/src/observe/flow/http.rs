//! What a flow says of a request.

use std::sync::Arc;

use http::{Method, StatusCode};
use mesh_common::{api::v1, model::NamespacedName};

/// A request and its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpFlow {
    /// What the client speaks.
    pub protocol: HttpProtocol,
    /// The method; `None` where the request could not be read.
    pub method: Option<Method>,
    /// The path, without the query, as the client sent it.
    pub path: Box<str>,
    /// The status of the response; `None` where there was none.
    pub status: Option<StatusCode>,
    /// The status of the call, where it was one of gRPC and told.
    pub grpc_status: Option<u16>,
    /// The route whose rule decided.
    pub route: Option<NamespacedName>,
    /// The rule, by its name or its index.
    pub rule: Option<Arc<str>>,
    /// The Service whose endpoints it was for. Metrics tell it; a flow has the endpoint's pod.
    pub backend: Option<NamespacedName>,
    /// How often it was sent again because the rule asks for that.
    pub retries: u32,
    /// The code of the error, where the proxy made one.
    pub code: Option<&'static str>,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpProtocol {
    /// HTTP/1.1, or HTTP/1.0.
    Http1,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
}

impl HttpFlow {
    /// A request of which nothing else is known.
    pub fn new(protocol: HttpProtocol) -> Self {
        Self {
            protocol,
            method: None,
            path: "".into(),
            status: None,
            grpc_status: None,
            route: None,
            rule: None,
            backend: None,
            retries: 0,
            code: None,
        }
    }
}

impl HttpProtocol {
    /// The name in metrics and flows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Grpc => "gRPC",
        }
    }
}

impl From<&HttpFlow> for v1::HttpFlow {
    fn from(flow: &HttpFlow) -> Self {
        Self {
            protocol: flow.protocol.as_str().to_owned(),
            method: flow.method.as_ref().map(ToString::to_string).unwrap_or_default(),
            path: flow.path.to_string(),
            status: flow.status.map_or(0, |status| status.as_u16().into()),
            grpc_status: flow.grpc_status.map(Into::into),
            route: flow.route.as_ref().map(Into::into),
            rule: flow.rule.as_deref().unwrap_or_default().to_owned(),
            retries: flow.retries,
            code: flow.code.unwrap_or_default().to_owned(),
        }
    }
}
