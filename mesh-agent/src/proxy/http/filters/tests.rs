//! Filters by example.

use std::time::Duration;

use http::{Method, header::ORIGIN};
use mesh_common::model::{Cors, RedirectScheme};

use super::*;
use crate::proxy::http::message::Version;

fn request(
    method: Method,
    target: &'static str,
    headers: &[(&'static str, &'static str)],
) -> Request {
    let headers = headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    Request {
        version: Version::Http1,
        method,
        target: PathAndQuery::from_static(target),
        authority: Bytes::from_static(b"web:8080"),
        headers: headers.collect(),
        framing: Framing::None,
        upgrade: None,
    }
}

fn get(target: &'static str, headers: &[(&'static str, &'static str)]) -> Request {
    request(Method::GET, target, headers)
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.into())
}

fn header(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_static(value))
}

#[test]
fn headers_are_set_added_and_removed() {
    let mut request = get("/", &[("a", "1"), ("b", "1"), ("c", "1")]);
    let modifier = HeaderModifier {
        set: vec![header("a", "2"), header("new", "2"), header("host", "other")],
        add: vec![header("b", "2"), header("d", "2"), header("content-length", "7")],
        remove: vec![HeaderName::from_static("c")],
    };
    let filters = [Filter::RequestHeaders(modifier)];
    assert!(change_request(&filters, &mut request, &prefix(""), 80).is_none());
    let mut seen: Vec<_> = request
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
        .collect();
    seen.sort();
    assert_eq!(seen, ["a: 2", "b: 1,2", "d: 2", "new: 2"]);
    assert_eq!(request.authority, "other");
}

#[test]
fn host_and_path_are_rewritten_and_the_query_stays() {
    let mut request = get("/old/x?a=1", &[]);
    let path = Some(PathModifier::Prefix("/new".into()));
    let filters = [Filter::Rewrite(Rewrite { hostname: Some("other".into()), path })];
    change_request(&filters, &mut request, &prefix("/old"), 80);
    assert_eq!((request.target.as_str(), &request.authority[..]), ("/new/x?a=1", &b"other"[..]));
}

#[test]
fn a_redirect_is_the_answer() {
    let redirect = Redirect {
        scheme: Some(RedirectScheme::Https),
        hostname: None,
        path: None,
        port: None,
        status: StatusCode::PERMANENT_REDIRECT,
    };
    let filters = [Filter::Redirect(redirect)];
    let answer = change_request(&filters, &mut get("/x?a=1", &[]), &prefix(""), 8080);
    let answer = answer.expect("an answer");
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["location"]),
        (308, &HeaderValue::from_static("https://web/x?a=1"))
    );
}

fn cors() -> Cors {
    Cors {
        allow_origins: vec!["https://*.example.com".into(), "http://one".into()],
        allow_credentials: false,
        allow_methods: Some(vec![Method::GET, Method::PUT]),
        allow_headers: None,
        expose_headers: None,
        max_age: Duration::from_secs(5),
    }
}

fn asked(cors: Cors, origin: &'static str) -> HeaderMap {
    let asks = [
        ("origin", origin),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-mine"),
    ];
    let mut request = request(Method::OPTIONS, "/", &asks);
    let answer = change_request(&[Filter::Cors(cors)], &mut request, &prefix(""), 80);
    answer.expect("a preflight is answered").headers
}

#[test]
fn a_browser_that_asks_is_told_what_may_be() {
    let told = asked(cors(), "https://a.example.com");
    assert_eq!(told["access-control-allow-origin"], "https://a.example.com");
    assert_eq!(told["access-control-allow-methods"], "GET, PUT");
    assert_eq!(told["access-control-allow-headers"], "*");
    assert_eq!(told["access-control-max-age"], "5");
    assert_eq!(told["vary"], "origin");
    for stranger in ["https://example.com", "http://a.example.com", "http://one.org"] {
        assert!(asked(cors(), stranger).is_empty(), "{stranger}");
    }
}

#[test]
fn credentials_never_go_with_any() {
    let any = Cors {
        allow_origins: vec!["*".into()],
        allow_credentials: true,
        allow_methods: None,
        ..cors()
    };
    let told = asked(any.clone(), "http://two");
    assert_eq!(told["access-control-allow-origin"], "http://two");
    assert_eq!(told["access-control-allow-credentials"], "true");
    assert_eq!(told["access-control-allow-methods"], "PUT");
    assert_eq!(told["access-control-allow-headers"], "x-mine");
    let open = Cors { allow_credentials: false, ..any };
    assert_eq!(asked(open, "http://two")["access-control-allow-origin"], "*");
}

#[test]
fn a_response_says_what_a_script_may_read() {
    let filters = [Filter::Cors(Cors {
        expose_headers: Some(vec![
            HeaderValue::from_static("x-a"),
            HeaderValue::from_static("x-b"),
        ]),
        ..cors()
    })];
    let origin = get("/", &[("origin", "http://one")]).headers.get(ORIGIN).cloned();
    let mut response = empty(StatusCode::OK);
    change_response((&filters, &origin), &mut response);
    assert_eq!(response.headers["access-control-allow-origin"], "http://one");
    assert_eq!(response.headers["access-control-expose-headers"], "x-a, x-b");
    let mut response = empty(StatusCode::OK);
    change_response((&filters, &None), &mut response);
    assert!(response.headers.is_empty());
}

#[test]
fn a_request_without_an_id_gets_one() {
    let (mut with, mut without) = (get("/", &[("x-request-id", "mine")]), get("/", &[]));
    identify(&mut with);
    identify(&mut without);
    assert_eq!(with.headers["x-request-id"], "mine");
    assert_eq!(without.headers["x-request-id"].len(), 32);
}
