//! How a refused CONNECT says why: a status code and `Proxy-Status` (RFC 9209).

use std::net::SocketAddr;

use h2::Reason;
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::proxy::failure::Failure;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// The error that a policy's refusal is (RFC 9209, section 2.3.15).
const DENIED: &str = "http_request_denied";
/// Why a caller is told no more than this: a header is not a log.
const DETAIL_BYTES: usize = 512;

/// The error code of a stream that is reset because its connection lost its right. HTTP/2 has
/// none for that; others than nodemesh take an unknown code for any reset (RFC 9113, section 7).
/// The upper half is `nm`.
pub(in crate::proxy) fn revoked() -> Reason {
    Reason::from(0x6e6d_0001)
}

/// The answer to a CONNECT that failed so.
pub(in crate::proxy) fn to_response(failure: &Failure) -> Response<()> {
    let (status, error) = match failure {
        Failure::Denied(_) => (StatusCode::FORBIDDEN, DENIED),
        Failure::NotOurs(_) => (StatusCode::BAD_REQUEST, "destination_not_found"),
        Failure::BadAuthority(_) => (StatusCode::BAD_REQUEST, "http_request_error"),
        Failure::NotConnect(_) => (StatusCode::METHOD_NOT_ALLOWED, "http_request_error"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "destination_unavailable"),
    };
    let mut response = Response::new(());
    *response.status_mut() = status;
    let value = format!("nodemesh; error={error}; details=\"{}\"", quote(&failure.to_string()));
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(PROXY_STATUS, value);
    }
    response
}

/// What the far proxy's answer means for the connection to `address`.
pub(in crate::proxy) fn to_failure<B>(response: &Response<B>, address: SocketAddr) -> Failure {
    let status = response.headers().get(PROXY_STATUS).and_then(|value| value.to_str().ok());
    let details = status.and_then(details).unwrap_or_else(|| {
        // ztunnel gives no reason but in its own log.
        let answer = response.status();
        format!("the proxy of {address} answered CONNECT with {answer}; its own log says why")
    });
    match response.status() {
        StatusCode::FORBIDDEN if status.is_some_and(says_denied) => Failure::Denied(details),
        // ztunnel says 401 where a policy refuses (docs/interop.md).
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Refused(details),
        StatusCode::SERVICE_UNAVAILABLE => Failure::Upstream(details),
        _ => Failure::Rejected(details),
    }
}

/// The characters that a quoted string of RFC 9651 may hold, escaped.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for character in text.chars().take(DETAIL_BYTES) {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            _ => quoted.push('?'),
        }
    }
    quoted
}

/// Whether the `error` parameter of a Proxy-Status field says that a policy refused.
fn says_denied(field: &str) -> bool {
    // Before the details, which are a text.
    let parameters = field.split("details=").next().unwrap_or_default().split(';');
    parameters.filter_map(|it| it.trim().strip_prefix("error=")).any(|error| error == DENIED)
}

/// The `details` parameter of a Proxy-Status field.
fn details(field: &str) -> Option<String> {
    let (_, rest) = field.split_once("details=\"")?;
    let mut text = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return Some(text),
            '\\' => text.push(characters.next()?),
            character => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_arrives_with_its_reason() {
        let address = "10.0.0.1:80".parse().expect("a literal");
        let failure = Failure::Denied("denied by \"x\\y\"".into());
        let response = to_response(&failure);
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        let Failure::Denied(reason) = to_failure(&response, address) else { panic!("not denied") };
        assert_eq!(reason, failure.to_string());
    }

    #[test]
    fn only_a_word_of_a_policy_is_a_denial() {
        let address = "10.0.0.1:80".parse().expect("a literal");
        let answer = |status: StatusCode, field: &'static str| {
            let mut response = Response::new(());
            *response.status_mut() = status;
            response.headers_mut().insert(PROXY_STATUS, HeaderValue::from_static(field));
            to_failure(&response, address)
        };
        let denied = answer(StatusCode::FORBIDDEN, "x; error=http_request_denied");
        assert!(matches!(denied, Failure::Denied(_)), "{denied}");
        for (status, field) in [
            (StatusCode::FORBIDDEN, "x; details=\"; error=http_request_denied\""),
            (StatusCode::FORBIDDEN, "x; error=http_request_error"),
            (StatusCode::UNAUTHORIZED, "x; error=http_request_denied"),
        ] {
            let refused = answer(status, field);
            assert!(matches!(refused, Failure::Refused(_)), "{status} {field}");
            assert!(refused.is_denial());
        }
    }

    #[test]
    fn an_answer_without_details_names_the_status() {
        let address = "10.0.0.1:80".parse().expect("a literal");
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        response
            .headers_mut()
            .insert(PROXY_STATUS, HeaderValue::from_static("x; details=\"unterminated"));
        let failure = to_failure(&response, address).to_string();
        assert!(failure.contains("401"), "{failure}");
    }
}
