//! Routes survive the way over the wire, and what is not understood of one is refused.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::{
    api::{InvalidResource, v1},
    model::*,
};

/// A route with everything that a route can have.
fn everything() -> Route {
    let text = |text: &str| TextMatch::Exact(text.into());
    let pattern = |text: &str| TextMatch::Pattern(text.parse().expect("a pattern"));
    let target = BackendTarget::Service { name: NamespacedName::new("other", "web"), port: 8080 };
    let name = |text: &'static str| HeaderName::from_static(text);
    let modifier = HeaderModifier {
        set: vec![(name("x-set"), HeaderValue::from_static("1"))],
        add: vec![(name("x-add"), HeaderValue::from_bytes(b"\xff").expect("a value"))],
        remove: vec![name("x-gone")],
    };
    let share = Share { numerator: 1, denominator: 3.try_into().expect("not zero") };
    let invalid = BackendTarget::Invalid("no such Service".into());
    let matched = |path| RouteMatch {
        path,
        method: Some(Method::PATCH),
        headers: vec![HeaderMatch { name: name("x-a"), value: pattern("a+") }],
        query: vec![QueryMatch { name: "Q".into(), value: text("1") }],
    };
    Route {
        name: NamespacedName::new("shop", "all"),
        kind: RouteKind::Http,
        created: -7,
        parents: [None, Some(80)]
            .map(|port| RouteParent { service: NamespacedName::new("shop", "web"), port })
            .into(),
        hostnames: vec!["*.example.com".into()],
        rules: vec![RouteRule {
            name: "first".into(),
            matches: vec![
                matched(PathMatch::Exact("/a".into())),
                matched(PathMatch::Prefix("".into())),
                matched(PathMatch::Pattern("/v[0-9]+".parse().expect("a pattern"))),
                matched(PathMatch::Grpc { service: Some(text("a.B")), method: None }),
                matched(PathMatch::Grpc { service: None, method: Some(pattern("Get.*")) }),
            ],
            filters: vec![
                Filter::RequestHeaders(modifier.clone()),
                Filter::ResponseHeaders(modifier.clone()),
                Filter::Rewrite(Rewrite {
                    hostname: Some("b".into()),
                    path: Some(PathModifier::Full("/".into())),
                }),
                Filter::Rewrite(Rewrite::default()),
                Filter::Redirect(Redirect {
                    scheme: Some(RedirectScheme::Https),
                    hostname: None,
                    path: Some(PathModifier::Prefix("".into())),
                    port: Some(8443),
                    status: StatusCode::PERMANENT_REDIRECT,
                }),
                Filter::Mirror(Mirror { target: target.clone(), share }),
                Filter::Cors(Cors {
                    allow_origins: vec!["https://*.example.com".into()],
                    allow_credentials: true,
                    allow_methods: Some(vec![Method::GET]),
                    allow_headers: None,
                    expose_headers: Some(vec![HeaderValue::from_static("x-a")]),
                    max_age: Duration::from_secs(5),
                }),
            ],
            backends: vec![
                Backend { target, weight: 9, filters: vec![Filter::RequestHeaders(modifier)] },
                Backend { target: invalid, weight: 0, filters: Vec::new() },
            ],
            timeouts: Timeouts {
                request: Some(Duration::from_millis(1500)),
                backend_request: None,
            },
            retry: Some(Retry {
                codes: vec![500, 503],
                attempts: 2,
                backoff: Duration::from_millis(25),
            }),
        }],
    }
}

#[test]
fn every_part_of_a_route_survives_the_round_trip() {
    for kind in RouteKind::ALL {
        let route = Resource::Route(Route { kind, ..everything() });
        let wire = v1::resource::Resource::from(&route);
        assert_eq!(Resource::try_from(wire), Ok(route.clone()));
        let key = v1::ResourceKey::from(&route.key());
        assert_eq!(ResourceKey::try_from(key), Ok(route.key()));
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    let changed = |change: fn(&mut v1::Route)| {
        let mut wire = v1::Route::from(&everything());
        change(&mut wire);
        Route::try_from(wire).expect_err("refused")
    };
    let unknown = InvalidResource::Unknown;
    assert_eq!(changed(|it| it.kind = 99), unknown("kind"));
    assert_eq!(changed(|it| it.rules[0].matches[0].path = None), unknown("path"));
    assert_eq!(changed(|it| it.rules[0].filters[0].filter = None), unknown("filter"));
    assert_eq!(
        changed(|it| it.rules[0].backends[0].target = None),
        InvalidResource::Missing("target")
    );
    let bad = changed(|it| {
        it.rules[0].matches[0].path = Some(v1::route_match::Path::Pattern("(".into()));
    });
    assert!(matches!(bad, InvalidResource::Pattern(_)), "{bad}");
}
