//! What routes do to requests and responses on their way. Pure.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, HOST, LOCATION, ORIGIN, TRANSFER_ENCODING, UPGRADE},
    uri::PathAndQuery,
};
use mesh_common::{
    matching::route::{path, redirect},
    model::{Filter, HeaderModifier, PathMatch, PathModifier, Redirect, Rewrite},
};

use super::message::{Request, Response};
use crate::http1::Framing;

mod cors;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Filters, and the origin of the request as they need it for the response.
pub(super) type OfResponse<'r> = (&'r [Filter], &'r Option<HeaderValue>);

/// Gives a request without an id one.
pub(super) fn identify(request: &mut Request) {
    if !request.headers.contains_key(REQUEST_ID) {
        let id = format!("{:032x}", fastrand::u128(..));
        if let Ok(id) = HeaderValue::from_maybe_shared(Bytes::from(id)) {
            request.headers.insert(REQUEST_ID, id);
        }
    }
}

/// Whose script sends a request.
pub(super) fn origin(request: &Request) -> Option<HeaderValue> {
    request.headers.get(ORIGIN).cloned()
}

/// Changes `request`, which was matched `by` that and came to `port`; what is returned is the
/// answer, where it is to go nowhere.
pub(super) fn change_request(
    filters: &[Filter],
    request: &mut Request,
    by: &PathMatch,
    port: u16,
) -> Option<Response> {
    for filter in filters {
        match filter {
            Filter::RequestHeaders(modifier) => {
                change(&mut request.headers, modifier);
                // Host is kept apart from the others.
                let host = modifier.set.iter().find(|(name, _)| *name == HOST);
                if let Some((_, value)) = host {
                    request.authority = Bytes::copy_from_slice(value.as_bytes());
                }
            }
            Filter::Rewrite(rewrite) => rewritten(request, rewrite, by),
            Filter::Redirect(redirect) => return redirected(redirect, request, by, port),
            Filter::Cors(cors) => {
                if let Some(response) = cors::preflight(cors, request) {
                    return Some(response);
                }
            }
            Filter::ResponseHeaders(_) | Filter::Mirror(_) => {}
        }
    }
    None
}

/// Changes `response`.
pub(super) fn change_response((filters, origin): OfResponse<'_>, response: &mut Response) {
    for filter in filters {
        match filter {
            Filter::ResponseHeaders(modifier) => change(&mut response.headers, modifier),
            Filter::Cors(cors) => {
                if let Some(origin) = origin {
                    cors::allow(cors, origin, &mut response.headers);
                }
            }
            Filter::RequestHeaders(_)
            | Filter::Rewrite(_)
            | Filter::Redirect(_)
            | Filter::Mirror(_) => {}
        }
    }
}

/// A response without a body.
fn empty(status: StatusCode) -> Response {
    Response {
        status,
        reason: Bytes::new(),
        headers: HeaderMap::new(),
        framing: Framing::Length(0),
        upgrade: None,
    }
}

fn change(headers: &mut HeaderMap, modifier: &HeaderModifier) {
    let HeaderModifier { set, add, remove } = modifier;
    for (name, value) in set.iter().filter(|(name, _)| may_change(name)) {
        headers.insert(name, value.clone());
    }
    for (name, value) in add.iter().filter(|(name, _)| may_change(name)) {
        let joined = joined(headers.get_all(name), value);
        headers.insert(name, joined.unwrap_or_else(|| value.clone()));
    }
    for name in remove.iter().filter(|name| may_change(name)) {
        headers.remove(name);
    }
}

/// Nobody may have a message read differently, nor say what is for a hop alone.
fn may_change(name: &HeaderName) -> bool {
    ![CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE].contains(name)
}

/// What is there and `added`, with commas between; `None` where nothing is there.
fn joined(
    there: http::header::GetAll<'_, HeaderValue>,
    added: &HeaderValue,
) -> Option<HeaderValue> {
    let mut there = there.iter();
    let mut joined = there.next()?.as_bytes().to_vec();
    for value in there.chain([added]) {
        joined.push(b',');
        joined.extend_from_slice(value.as_bytes());
    }
    HeaderValue::from_maybe_shared(Bytes::from(joined)).ok()
}

fn rewritten(request: &mut Request, rewrite: &Rewrite, by: &PathMatch) {
    if let Some(hostname) = &rewrite.hostname {
        request.authority = Bytes::copy_from_slice(hostname.as_bytes());
    }
    if let Some(target) = rewrite.path.as_ref().and_then(|it| rewritten_target(request, it, by)) {
        request.target = target;
    }
}

fn rewritten_target(
    request: &Request,
    modifier: &PathModifier,
    by: &PathMatch,
) -> Option<PathAndQuery> {
    let path = path::modified(request.target.path(), modifier, by);
    let target = match request.target.query() {
        Some(query) => [&*path, "?", query].concat(),
        None => path.into_owned(),
    };
    // What no path can hold was refused when the route was compiled.
    PathAndQuery::from_maybe_shared(Bytes::from(target)).ok()
}

fn redirected(
    redirect: &Redirect,
    request: &Request,
    by: &PathMatch,
    port: u16,
) -> Option<Response> {
    let asked = redirect::Asked {
        authority: str::from_utf8(&request.authority).unwrap_or_default(),
        path: request.target.path(),
        query: request.target.query(),
        port,
    };
    let location = redirect::location(redirect, by, asked);
    let mut response = empty(redirect.status);
    if let Ok(location) = HeaderValue::from_maybe_shared(Bytes::from(location)) {
        response.headers.insert(LOCATION, location);
    }
    Some(response)
}

#[cfg(test)]
mod tests;
