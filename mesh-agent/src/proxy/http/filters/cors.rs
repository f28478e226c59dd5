//! Cross-origin resource sharing: what scripts of other origins may do
//! (<https://fetch.spec.whatwg.org/#http-cors-protocol>).

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
        ORIGIN, VARY,
    },
};
use mesh_common::model::Cors;

use super::empty;
use crate::proxy::http::message::{Request, Response};

/// The answer to a browser that asks before it calls; `None` where `request` is none of those. An
/// origin that is not allowed is answered as well, without permission.
pub(super) fn preflight(cors: &Cors, request: &Request) -> Option<Response> {
    let headers = &request.headers;
    let asked_method = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    let origin = headers.get(ORIGIN).filter(|_| request.method == Method::OPTIONS)?;
    let mut response = empty(StatusCode::NO_CONTENT);
    response.framing = crate::http1::Framing::None;
    if !allow_origin(cors, origin, &mut response.headers) {
        return Some(response);
    }
    let methods = cors.allow_methods.as_ref().map(|them| list(them.iter().map(Method::as_str)));
    let asked_headers = headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
    let names = cors.allow_headers.as_ref().map(|names| list(names.iter().map(HeaderName::as_str)));
    let to = &mut response.headers;
    insert(
        to,
        ACCESS_CONTROL_ALLOW_METHODS,
        methods.unwrap_or_else(|| any(cors, Some(asked_method))),
    );
    insert(to, ACCESS_CONTROL_ALLOW_HEADERS, names.unwrap_or_else(|| any(cors, asked_headers)));
    to.insert(ACCESS_CONTROL_MAX_AGE, cors.max_age.as_secs().into());
    Some(response)
}

/// Says in the headers of a response what a script of `origin` may read.
pub(super) fn allow(cors: &Cors, origin: &HeaderValue, headers: &mut HeaderMap) {
    if !allow_origin(cors, origin, headers) {
        return;
    }
    let exposed = match &cors.expose_headers {
        Some(names) => list(names.iter().filter_map(|name| name.to_str().ok())),
        // Nobody asks for any of them, so with credentials, where `*` is a name like others, there
        // is nothing to say.
        None => any(cors, None),
    };
    insert(headers, ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
}

/// Says whether scripts of `origin` may read the answer, and whether they may.
fn allow_origin(cors: &Cors, origin: &HeaderValue, headers: &mut HeaderMap) -> bool {
    let Some(text) = origin.to_str().ok() else { return false };
    let is_any = cors.allow_origins.iter().any(|allowed| **allowed == *"*");
    if !is_any && !cors.allow_origins.iter().any(|allowed| is_origin(allowed, text)) {
        return false;
    }
    if is_any && !cors.allow_credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    } else {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.append(VARY, HeaderValue::from_name(ORIGIN));
    }
    if cors.allow_credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    true
}

/// `https://*.example.com` stands for every name below, and not for the name itself.
fn is_origin(allowed: &str, origin: &str) -> bool {
    match allowed.split_once("*") {
        Some((before, after)) => origin
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(|middle| !middle.is_empty() && !middle.contains(['/', ':'])),
        None => allowed.eq_ignore_ascii_case(origin),
    }
}

/// Any that there is: `*`, which means nothing with credentials, and then what was `asked` for.
fn any(cors: &Cors, asked: Option<&HeaderValue>) -> Option<HeaderValue> {
    if cors.allow_credentials { asked.cloned() } else { Some(HeaderValue::from_static("*")) }
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> Option<HeaderValue> {
    let names: Vec<_> = names.collect();
    HeaderValue::try_from(names.join(", ")).ok().filter(|list| !list.is_empty())
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    if let Some(value) = value {
        headers.insert(name, value);
    }
}
