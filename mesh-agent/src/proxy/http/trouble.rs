//! Why a request got no answer from a backend, and how the client is told.
//!
//! Codes are stable: they stand in the answer, the flow and the metric, and docs/errors.md explains
//! each.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};

use super::{
    message::{Request, Response},
    wire::Broken,
};
use crate::{
    http1::{Framing, Malformed},
    proxy::failure::Failure,
};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum Trouble {
    /// What the client sent cannot be read as HTTP.
    #[error("the request is malformed: {0}")]
    MalformedRequest(Malformed),
    /// The client went away.
    #[error("the client went away before the response ended")]
    ClientLeft,
    /// There are routes, and none is for this request.
    #[error("no rule of the routes of this Service is for this request")]
    NoRoute,
    /// The rule leads nowhere.
    #[error("the rule has no valid backend: {0}")]
    NoBackend(String),
    /// An extended CONNECT for what cannot be carried.
    #[error("no way for the protocol that was asked for: {0}")]
    NoProtocol(String),
    /// No connection to an endpoint.
    #[error(transparent)]
    NoConnection(Failure),
    /// The connection ended, or broke, before there was a response.
    #[error("the connection to the endpoint ended before a response: {0}")]
    NoResponse(String),
    /// What the server sent cannot be read as HTTP.
    #[error("the response is malformed: {0}")]
    MalformedResponse(String),
    /// The response broke off.
    #[error("the response broke off: {0}")]
    ResponseCut(String),
    /// A timeout of the rule.
    #[error("no whole response within {0}, which the rule allows a request")]
    RequestTimeout(Seconds),
    /// A timeout of the rule.
    #[error("no whole response within {0}, which the rule allows a backend")]
    BackendTimeout(Seconds),
}

/// A duration as people read it.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Seconds(pub(in crate::proxy) std::time::Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} s", self.0.as_secs_f64())
    }
}

/// The codes of gRPC that errors of ours have.
mod grpc {
    pub(super) const DEADLINE_EXCEEDED: u16 = 4;
    pub(super) const PERMISSION_DENIED: u16 = 7;
    pub(super) const UNIMPLEMENTED: u16 = 12;
    pub(super) const INTERNAL: u16 = 13;
    pub(super) const UNAVAILABLE: u16 = 14;
}

/// How one kind of trouble is told.
struct Told {
    code: &'static str,
    status: StatusCode,
    /// The error type of RFC 9209, section 2.3.
    error: &'static str,
    grpc: u16,
}

impl Trouble {
    /// What broke while a response was waited for.
    pub(super) fn before_response(broken: Broken) -> Self {
        match broken {
            Broken::Malformed(malformed) => Self::MalformedResponse(malformed.to_string()),
            Broken::Io(error) => {
                Self::revoked(&error).unwrap_or_else(|| Self::NoResponse(error.to_string()))
            }
        }
    }

    /// What broke within a response.
    pub(super) fn within_response(broken: Broken) -> Self {
        match broken {
            Broken::Malformed(malformed) => Self::ResponseCut(malformed.to_string()),
            Broken::Io(error) => {
                Self::revoked(&error).unwrap_or_else(|| Self::ResponseCut(error.to_string()))
            }
        }
    }

    fn revoked(error: &std::io::Error) -> Option<Self> {
        let is_revoked = error.kind() == std::io::ErrorKind::PermissionDenied;
        is_revoked.then(|| Self::NoConnection(Failure::Denied(error.to_string())))
    }

    /// The stable code.
    pub(in crate::proxy) fn code(&self) -> &'static str {
        self.told().code
    }

    /// Whether somebody decided this, rather than something being broken.
    pub(in crate::proxy) fn is_denial(&self) -> bool {
        match self {
            Self::MalformedRequest(_) => true,
            Self::NoConnection(failure) => failure.is_denial(),
            _ => false,
        }
    }

    /// The answer to a request that met this; `request` is `None` where it could not be read.
    pub(in crate::proxy) fn answer(&self, request: Option<&RequestKind>) -> Response {
        let told = self.told();
        let mut headers = HeaderMap::new();
        let details = self.details();
        let status =
            format!("nodemesh; error={}; details=\"{}: {details}\"", told.error, told.code);
        if let Ok(value) = HeaderValue::try_from(status) {
            headers.insert(PROXY_STATUS, value);
        }
        let mut response = Response {
            status: told.status,
            reason: bytes::Bytes::new(),
            headers,
            framing: Framing::Length(0),
            upgrade: None,
        };
        if request.is_some_and(|request| request.is_grpc) {
            response.status = StatusCode::OK;
            let headers = &mut response.headers;
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(GRPC_STATUS, told.grpc.into());
            if let Ok(message) =
                HeaderValue::try_from(format!("nodemesh: {}: {details}", told.code))
            {
                headers.insert(GRPC_MESSAGE, message);
            }
        }
        response
    }

    /// What the client may know: of a denial no more than that. Header values are without `"`.
    fn details(&self) -> &'static str {
        match self {
            Self::MalformedRequest(Malformed::TooLarge) => "the head of the request is too large",
            Self::MalformedRequest(_) => "the request is malformed",
            Self::ClientLeft => "the client went away",
            Self::NoRoute => "no rule of the routes of this Service is for this request",
            Self::NoBackend(_) => "the rule has no valid backend",
            Self::NoProtocol(_) => "the protocol that was asked for cannot be carried",
            Self::NoConnection(Failure::Denied(_)) => "denied by policy",
            Self::NoConnection(Failure::NoEndpoint) => "the Service has no ready endpoint",
            Self::NoConnection(_) => "cannot connect to an endpoint",
            Self::NoResponse(_) => "the endpoint closed the connection without a response",
            Self::MalformedResponse(_) => "the response of the endpoint is malformed",
            Self::ResponseCut(_) => "the response of the endpoint broke off",
            Self::RequestTimeout(_) => "the request took longer than the rule allows",
            Self::BackendTimeout(_) => "the endpoint took longer than the rule allows",
        }
    }

    fn told(&self) -> Told {
        let told = |code, status, error, grpc| Told { code, status, error, grpc };
        match self {
            Self::MalformedRequest(malformed) => {
                let code = match malformed {
                    Malformed::TooLarge => "request_head_too_large",
                    Malformed::Version => "version_not_supported",
                    _ => "malformed_request",
                };
                told(code, malformed.status(), "http_request_error", grpc::INTERNAL)
            }
            // Nobody is there to read it; the status is what nginx logs for it, if not its number.
            Self::ClientLeft => {
                told("client_left", StatusCode::BAD_REQUEST, "http_request_error", grpc::INTERNAL)
            }
            Self::NoRoute => {
                let status = StatusCode::NOT_FOUND;
                told("no_route", status, "destination_not_found", grpc::UNIMPLEMENTED)
            }
            Self::NoBackend(_) => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                told("no_backend", status, "destination_not_found", grpc::UNAVAILABLE)
            }
            Self::NoProtocol(_) => {
                // RFC 9220, section 3.
                let status = StatusCode::NOT_IMPLEMENTED;
                told("protocol_not_supported", status, "http_upgrade_failed", grpc::UNIMPLEMENTED)
            }
            Self::NoConnection(failure) => of_failure(failure),
            Self::NoResponse(_) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                told("no_response", status, "connection_terminated", grpc::UNAVAILABLE)
            }
            Self::MalformedResponse(_) => {
                let status = StatusCode::BAD_GATEWAY;
                told("malformed_response", status, "http_protocol_error", grpc::INTERNAL)
            }
            Self::ResponseCut(_) => {
                let status = StatusCode::BAD_GATEWAY;
                told("response_cut", status, "http_response_incomplete", grpc::UNAVAILABLE)
            }
            Self::RequestTimeout(_) => {
                let status = StatusCode::GATEWAY_TIMEOUT;
                told("request_timeout", status, "http_response_timeout", grpc::DEADLINE_EXCEEDED)
            }
            Self::BackendTimeout(_) => {
                let status = StatusCode::GATEWAY_TIMEOUT;
                told("backend_timeout", status, "http_response_timeout", grpc::DEADLINE_EXCEEDED)
            }
        }
    }
}

/// What of a request decides how it is answered.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct RequestKind {
    is_grpc: bool,
}

impl From<&Request> for RequestKind {
    fn from(request: &Request) -> Self {
        Self { is_grpc: request.is_grpc() }
    }
}

fn of_failure(failure: &Failure) -> Told {
    let unavailable = |code, error| {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Told { code, status, error, grpc: grpc::UNAVAILABLE }
    };
    match failure {
        Failure::Denied(_) => Told {
            code: "denied",
            status: StatusCode::FORBIDDEN,
            error: "http_request_denied",
            grpc: grpc::PERMISSION_DENIED,
        },
        Failure::NoEndpoint => unavailable("no_endpoint", "destination_unavailable"),
        Failure::Connect { .. } => unavailable("connect_failed", "destination_unavailable"),
        Failure::NoIdentity(_) | Failure::NoCertificate(_) => {
            unavailable("no_identity", "proxy_configuration_error")
        }
        _ => unavailable("tunnel_failed", "destination_unavailable"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_not_told_which_policy_refused_it() {
        let trouble = Trouble::NoConnection(Failure::Denied("policy shop/secret".into()));
        let answer = trouble.answer(None);
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        let expected = "nodemesh; error=http_request_denied; details=\"denied: denied by policy\"";
        assert_eq!(answer.headers["proxy-status"], expected);
        assert!(trouble.to_string().contains("shop/secret"));
    }

    #[test]
    fn errors_of_grpc_are_statuses_of_grpc() {
        let answer = Trouble::NoRoute.answer(Some(&RequestKind { is_grpc: true }));
        assert_eq!(
            (answer.status, &answer.headers["grpc-status"]),
            (StatusCode::OK, &"12".parse().expect("digits"))
        );
        let answer = Trouble::RequestTimeout(Seconds(std::time::Duration::from_millis(500)));
        assert_eq!(answer.answer(Some(&RequestKind { is_grpc: false })).status, 504);
        assert_eq!(answer.answer(Some(&RequestKind { is_grpc: true })).headers["grpc-status"], "4");
        assert!(answer.to_string().contains("0.5 s"));
    }
}
