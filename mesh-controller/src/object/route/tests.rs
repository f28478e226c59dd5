//! Routes as the specification has them, and what it does not allow.

use std::{path::Path, time::Duration};

use http::{Method, StatusCode};
use mesh_common::model::{
    Backend, BackendTarget, Filter, PathMatch, PathModifier, RedirectScheme, Retry, RouteMatch,
    TextMatch,
};

use super::*;
use crate::{object::Object, source::yaml};

fn read(kind: &str, version: &str, spec: &str) -> Result<Route, String> {
    let text = format!(
        "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\n\
         metadata: {{ name: r, namespace: shop, generation: 3, \
         creationTimestamp: 2026-01-01T00:00:00Z }}\nspec:\n{spec}"
    );
    let mut parsed = yaml::parse(&Path::new("route.yaml").into(), &text);
    match &*parsed.remove(0).object? {
        Object::Route(route) => Ok((**route).clone()),
        other => Err(format!("{other:?}")),
    }
}

/// An HTTPRoute with one rule, written on one line.
fn http(rule: &str) -> Route {
    let spec =
        format!("  parentRefs: [{{ group: '', kind: Service, name: web }}]\n  rules: [{rule}]\n");
    read("HTTPRoute", "v1", &spec).unwrap_or_else(|error| panic!("{error}\n{spec}"))
}

fn wanted(rule: &str) -> RouteMatch {
    let route = http(rule);
    assert_eq!(route.invalid, [], "{rule}");
    route.compiled.rules[0].matches[0].clone()
}

fn filter(filter: &str) -> Filter {
    let route = http(&format!("{{ filters: [{filter}] }}"));
    assert_eq!(route.invalid, [], "{filter}");
    route.compiled.rules[0].filters[0].clone()
}

#[test]
fn a_route_is_read_with_what_is_left_out() {
    let route = http("{}");
    assert_eq!((route.kind, route.generation), (Kind::HttpRoute, Some(3)));
    assert_eq!(route.compiled.created, 1_767_225_600);
    assert_eq!(route.parents[0].name, "web");
    let rule = &route.compiled.rules[0];
    assert_eq!((&*rule.name, rule.backends.len()), ("0", 0));
    let any = RouteMatch {
        path: PathMatch::Prefix("".into()),
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    };
    assert_eq!(rule.matches, std::slice::from_ref(&any));
    let defaulted = read("HTTPRoute", "v1beta1", "  hostnames: [a.example]\n").expect("read");
    assert_eq!(defaulted.compiled.rules[0].matches, [any]);
    assert_eq!(defaulted.compiled.hostnames, [], "a host is not asked for");
}

#[test]
fn matches_are_read() {
    for (value, path) in [
        ("{ value: / }", PathMatch::Prefix("".into())),
        ("{ value: /a/ }", PathMatch::Prefix("/a".into())),
        ("{ type: PathPrefix, value: /a }", PathMatch::Prefix("/a".into())),
        ("{ type: Exact, value: /a/ }", PathMatch::Exact("/a/".into())),
        (
            "{ type: RegularExpression, value: '/v[0-9]+' }",
            PathMatch::Pattern("/v[0-9]+".parse().expect("a pattern")),
        ),
    ] {
        assert_eq!(wanted(&format!("{{ matches: [{{ path: {value} }}] }}")).path, path);
    }
    let rest = wanted(
        "{ matches: [{ method: GET, headers: [{ name: X-A, value: '1' }, { name: x-a, value: '2' }], \
         queryParams: [{ type: RegularExpression, name: q, value: 'a+' }, { name: q, value: b }] }] }",
    );
    assert_eq!(rest.method, Some(Method::GET));
    let [header] = &rest.headers[..] else { panic!("the first of a name counts") };
    assert_eq!((header.name.as_str(), &header.value), ("x-a", &TextMatch::Exact("1".into())));
    let [parameter] = &rest.query[..] else { panic!("the first of a name counts") };
    assert!(parameter.value.matches("aa"));
}

#[test]
fn grpc_and_streams_are_read() {
    let spec = "  rules:\n  - matches: [{ method: { service: a.B } }, { method: { type: \
                RegularExpression, method: 'Get.*' } }]\n  - name: all\n";
    let route = read("GRPCRoute", "v1", spec).expect("read");
    let matches = &route.compiled.rules[0].matches;
    let service = Some(TextMatch::Exact("a.B".into()));
    assert_eq!(matches[0].path, PathMatch::Grpc { service, method: None });
    assert!(
        matches!(&matches[1].path, PathMatch::Grpc { service: None, method: Some(it) } if it.matches("GetIt"))
    );
    let all = &route.compiled.rules[1];
    let any = PathMatch::Grpc { service: None, method: None };
    assert_eq!((&*all.name, &all.matches[0].path), ("all", &any));
    for version in ["v1", "v1alpha3", "v1alpha2"] {
        let spec =
            "  hostnames: ['*.a.example']\n  rules: [{ backendRefs: [{ name: b, port: 1 }] }]\n";
        let route = read("TLSRoute", version, spec).expect("read").compiled;
        assert_eq!((route.kind, &*route.hostnames[0]), (RouteKind::Tls, "*.a.example"));
        assert_eq!((route.rules[0].matches.len(), route.rules[0].backends.len()), (0, 1));
    }
    let spec = "  rules: [{ backendRefs: [{ name: b, port: 1, weight: 0 }] }]\n";
    for version in ["v1", "v1alpha2"] {
        let route = read("TCPRoute", version, spec).expect("read").compiled;
        assert_eq!((route.kind, route.rules[0].backends[0].weight), (RouteKind::Tcp, 0));
    }
}

#[test]
fn backends_are_read_and_what_is_no_service_leads_nowhere() {
    let route = http(
        "{ backendRefs: [{ name: a, port: 80 }, { name: b, namespace: other, port: 81, weight: 9, \
         filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { remove: [X-A] } }] }, \
         { name: c }, { name: d, kind: Bucket, group: example.com, port: 1 }, { name: e, port: 0 }] }",
    );
    let to = |name: &str, namespace: &str, port, weight| Backend {
        target: BackendTarget::Service { name: NamespacedName::new(namespace, name), port },
        weight,
        filters: Vec::new(),
    };
    let backends = &route.compiled.rules[0].backends;
    assert_eq!(backends[0], to("a", "shop", 80, 1));
    assert_eq!(Backend { filters: Vec::new(), ..backends[1].clone() }, to("b", "other", 81, 9));
    assert_eq!(backends[1].filters.len(), 1);
    assert!(backends[2..].iter().all(|it| matches!(it.target, BackendTarget::Invalid(_))));
    let reasons: Vec<_> = route.bad_references.iter().map(|it| it.reason).collect();
    assert_eq!(reasons, ["BackendNotFound", "InvalidKind", "BackendNotFound"]);
    assert_eq!(route.invalid, [], "the rule itself is fine");
}

#[test]
fn filters_are_read() {
    let headers = filter(
        "{ type: ResponseHeaderModifier, responseHeaderModifier: { set: [{ name: X-A, value: a }], \
         add: [{ name: x-b, value: b }], remove: [x-c] } }",
    );
    let Filter::ResponseHeaders(headers) = headers else { panic!("{headers:?}") };
    assert_eq!((headers.set[0].0.as_str(), headers.remove[0].as_str()), ("x-a", "x-c"));

    let redirect = filter("{ type: RequestRedirect, requestRedirect: {} }");
    let Filter::Redirect(redirect) = redirect else { panic!("{redirect:?}") };
    assert_eq!((redirect.status, redirect.scheme), (StatusCode::FOUND, None));
    for status in [301, 302, 303, 307, 308] {
        let redirect = filter(&format!(
            "{{ type: RequestRedirect, requestRedirect: {{ scheme: https, hostname: a.example, \
             port: 8443, statusCode: {status}, \
             path: {{ type: ReplacePrefixMatch, replacePrefixMatch: /b }} }} }}"
        ));
        let Filter::Redirect(redirect) = redirect else { panic!("{redirect:?}") };
        assert_eq!(redirect.status.as_u16(), status);
        assert_eq!((redirect.scheme, redirect.port), (Some(RedirectScheme::Https), Some(8443)));
        assert_eq!(redirect.path, Some(PathModifier::Prefix("/b".into())));
    }
    let mirror = |share: &str| {
        let text = format!(
            "{{ type: RequestMirror, requestMirror: {{ backendRef: {{ name: m, port: 1 }}{share} }} }}"
        );
        let Filter::Mirror(mirror) = filter(&text) else { panic!("{text}") };
        (mirror.share.numerator, mirror.share.denominator.get())
    };
    assert_eq!(mirror(""), (100, 100));
    assert_eq!(mirror(", percent: 5"), (5, 100));
    assert_eq!(mirror(", fraction: { numerator: 1, denominator: 3 }"), (1, 3));

    let cors = filter("{ type: CORS, cors: { allowOrigins: ['*'], allowMethods: ['*'] } }");
    let Filter::Cors(cors) = cors else { panic!("{cors:?}") };
    assert_eq!((cors.allow_methods, cors.max_age), (None, Duration::from_secs(5)));
    assert_eq!(cors.allow_headers, Some(Vec::new()), "none are allowed");
}

#[test]
fn times_and_retries_are_read() {
    let rule = |text: &str| http(text).compiled.rules[0].clone();
    let timeouts = rule("{ timeouts: { request: 1m, backendRequest: 500ms } }").timeouts;
    assert_eq!(timeouts.request, Some(Duration::from_secs(60)));
    assert_eq!(timeouts.backend_request, Some(Duration::from_millis(500)));
    assert_eq!(rule("{ timeouts: { request: 0s } }").timeouts.request, None);
    assert_eq!(rule("{}").retry, None);
    let retry = Retry { codes: vec![500, 503], attempts: 3, backoff: Duration::from_millis(100) };
    let text = "{ retry: { codes: [500, 503], attempts: 3, backoff: 100ms } }";
    assert_eq!(rule(text).retry, Some(retry));
    assert_eq!(rule("{ retry: {} }").retry.map(|it| it.attempts), Some(1));
}

#[test]
fn a_rule_that_is_wrong_answers_with_an_error_and_the_others_go_on() {
    let prefix = "type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /x } }";
    let rewrite = "{ type: URLRewrite, urlRewrite: { hostname: a.example } }";
    let redirect = "{ type: RequestRedirect, requestRedirect: {} }";
    for (rule, reason, says) in [
        ("matches: [{ path: { type: RegularExpression, value: '(' } }]".to_owned(), UNSUPPORTED, "unclosed group"),
        ("matches: [{ headers: [{ type: RegularExpression, name: a, value: '[' }] }]".into(), UNSUPPORTED, "headers[0].value"),
        ("matches: [{ headers: [{ name: 'a b', value: c }] }]".into(), UNSUPPORTED, "no name of a header"),
        ("matches: [{ path: { value: a } }]".into(), UNSUPPORTED, "begin with a slash"),
        ("matches: [{ path: { value: /a//b } }]".into(), UNSUPPORTED, "`//`"),
        ("matches: [{ path: { type: Exact, value: /a/.. } }]".into(), UNSUPPORTED, "`/..`"),
        ("matches: [{ path: { type: Glob, value: /a } }]".into(), UNSUPPORTED, "`Glob`"),
        ("matches: [{ method: BREW }]".into(), UNSUPPORTED, "`BREW`"),
        (format!("filters: [{redirect}, {rewrite}]"), INCOMPATIBLE, "beside URLRewrite"),
        (format!("filters: [{rewrite}, {rewrite}]"), INCOMPATIBLE, "a second URLRewrite"),
        (format!("filters: [{redirect}], backendRefs: [{{ name: a, port: 1 }}]"), INCOMPATIBLE, "beside RequestRedirect"),
        (format!("matches: [{{ path: {{ type: Exact, value: /a }} }}], filters: [{{ {prefix} }}]"), UNSUPPORTED, "PathPrefix"),
        (format!("matches: [{{}}, {{}}], filters: [{{ {prefix} }}]"), UNSUPPORTED, "exactly one"),
        ("filters: [{ type: ExtensionRef, extensionRef: { name: a } }]".into(), UNSUPPORTED, "`ExtensionRef`"),
        ("filters: [{ type: URLRewrite }]".into(), UNSUPPORTED, "without what"),
        ("filters: [{ type: RequestRedirect, requestRedirect: { statusCode: 304 } }]".into(), UNSUPPORTED, "statusCode"),
        ("filters: [{ type: RequestRedirect, requestRedirect: { scheme: ftp } }]".into(), UNSUPPORTED, "`ftp`"),
        ("filters: [{ type: URLRewrite, urlRewrite: { path: { type: ReplaceFullPath, replaceFullPath: \"/a b\" } } }]".into(), UNSUPPORTED, "no path"),
        ("filters: [{ type: RequestMirror, requestMirror: { backendRef: { name: a, port: 1 }, percent: 101 } }]".into(), UNSUPPORTED, "101 of 100"),
        (format!("backendRefs: [{{ name: a, port: 1, filters: [{rewrite}] }}]"), UNSUPPORTED, "not understood here"),
        ("backendRefs: [{ name: a, port: 1, weight: -1 }]".into(), UNSUPPORTED, "negative"),
        ("timeouts: { request: 1.5s }".into(), UNSUPPORTED, "no duration"),
        ("timeouts: { request: 1s, backendRequest: 2s }".into(), UNSUPPORTED, "longer than"),
        ("retry: { codes: [200] }".into(), UNSUPPORTED, "400 to 599"),
        ("sessionPersistence: {}".into(), UNSUPPORTED, "sessionPersistence"),
    ] {
        let good = "matches: [{ path: { value: /good } }]";
        let route = http(&format!("{{ {rule} }}, {{ {good} }}"));
        let [invalid] = &route.invalid[..] else { panic!("{rule}: {:?}", route.invalid) };
        assert_eq!(invalid.reason, reason, "{rule}");
        assert!(invalid.message.contains(says), "{rule}: {}", invalid.message);
        assert!(invalid.message.starts_with("spec.rules[0]."), "{}", invalid.message);
        let [bad, good] = &route.compiled.rules[..] else { panic!("{rule}") };
        assert!(matches!(bad.backends[..], [Backend { target: BackendTarget::Invalid(_), weight: 1, .. }]));
        assert_eq!((bad.filters.len(), good.backends.len()), (0, 0), "{rule}");
        assert!(!route.is_invalid() && http(&format!("{{ {rule} }}")).is_invalid(), "{rule}");
    }
}

#[test]
fn matches_of_a_wrong_rule_that_are_understood_stay_its_own() {
    let route = http(
        "{ matches: [{ path: { value: /a } }, { path: { type: RegularExpression, value: ( } }] }",
    );
    let paths: Vec<_> = route.compiled.rules[0].matches.iter().map(|it| it.path.clone()).collect();
    assert_eq!(paths, [PathMatch::Prefix("/a".into())]);
}

#[test]
fn what_is_no_route_at_all_is_refused() {
    let rules = |count: usize| format!("  rules: [{}]\n", vec!["{}"; count].join(", "));
    for (kind, version, spec, says) in [
        ("HTTPRoute", "v2", rules(1), "write gateway.networking.k8s.io/v1 or"),
        ("HTTPRoute", "v1", rules(17), "17 entries, more than 16"),
        ("HTTPRoute", "v1", "  rules: [{ matchs: [] }]\n".into(), "matchs"),
        ("HTTPRoute", "v1", "  rules: [{ matches: 3 }]\n".into(), "spec.rules[0].matches"),
        ("GRPCRoute", "v1", "  rules: [{ timeouts: {} }]\n".into(), "timeouts"),
    ] {
        let error = read(kind, version, &spec).expect_err(says);
        assert!(error.contains(says), "{error}");
    }
}
