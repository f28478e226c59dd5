//! Routes by example, and the filed matches against a slow, obvious reader of the specification.

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::model::{HeaderMatch, PathMatch, QueryMatch, RouteParent, TextMatch, Timeouts};

mod explain;

fn service() -> NamespacedName {
    NamespacedName::new("shop", "web")
}

fn any_request() -> RouteMatch {
    let path = PathMatch::Prefix("".into());
    RouteMatch { path, method: None, headers: Vec::new(), query: Vec::new() }
}

fn on_path(path: PathMatch) -> RouteMatch {
    RouteMatch { path, ..any_request() }
}

fn exact(path: &str) -> PathMatch {
    PathMatch::Exact(path.into())
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.into())
}

fn pattern(text: &str) -> PathMatch {
    PathMatch::Pattern(text.parse().expect("a literal pattern"))
}

fn grpc(service: Option<&str>, method: Option<&str>) -> PathMatch {
    let text = |text: &str| TextMatch::Exact(text.into());
    PathMatch::Grpc { service: service.map(text), method: method.map(text) }
}

fn header(name: &'static str, value: &str) -> HeaderMatch {
    HeaderMatch { name: HeaderName::from_static(name), value: TextMatch::Exact(value.into()) }
}

fn parameter(name: &str, value: &str) -> QueryMatch {
    QueryMatch { name: name.into(), value: TextMatch::Exact(value.into()) }
}

/// A route of `shop` with a rule a match, for all ports of shop/web.
fn route(name: &str, created: i64, matches: Vec<RouteMatch>) -> Route {
    let rule = |(at, wanted): (usize, RouteMatch)| RouteRule {
        name: at.to_string().into(),
        matches: vec![wanted],
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
    };
    Route {
        name: NamespacedName::new("shop", name),
        kind: RouteKind::Http,
        created,
        parents: vec![RouteParent { service: service(), port: None }],
        hostnames: Vec::new(),
        rules: matches.into_iter().enumerate().map(rule).collect(),
    }
}

fn of_kind(kind: RouteKind, route: Route) -> Route {
    Route { kind, ..route }
}

fn attached(routes: Vec<Route>) -> Routes {
    let routes: Vec<_> = routes.into_iter().map(Arc::new).collect();
    Routes::attached(&routes, &service(), 80, "shop")
}

/// One request, owned.
#[derive(Clone, Debug)]
struct Asked {
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

impl Asked {
    fn get(target: &str) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        Self { method: Method::GET, path: path.into(), query, headers: HeaderMap::new() }
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.append(name, HeaderValue::from_static(value));
        self
    }

    fn request(&self) -> Request<'_> {
        let Self { method, path, query, headers } = self;
        Request { method, path, query: query.as_deref(), headers }
    }
}

/// `route/rule` of what is met.
fn met(routes: &Routes, asked: &Asked) -> Option<String> {
    let met = routes.find(asked.request())?;
    Some(format!("{}/{}", met.route.name.name, met.rule.name))
}

/// Which of `matches`, rules of one route, a request meets.
fn rule(matches: &[RouteMatch], asked: &Asked) -> Option<usize> {
    let routes = attached(vec![route("it", 0, matches.to_vec())]);
    routes.find(asked.request()).map(|met| met.rule.name.parse().expect("an index"))
}

#[test]
fn exact_goes_before_patterns_and_those_before_the_longest_prefix() {
    let matches =
        [prefix(""), prefix("/a"), prefix("/a/b"), pattern("/a/[bc]"), exact("/a/b")].map(on_path);
    for (path, expected) in [
        ("/a/b", 4),
        ("/a/c", 3),
        ("/a/b/", 2),
        ("/a/b/c", 2),
        ("/a/bc", 1),
        ("/a", 1),
        ("/ab", 0),
        ("/", 0),
    ] {
        assert_eq!(rule(&matches, &Asked::get(path)), Some(expected), "{path}");
    }
    assert_eq!(rule(&matches, &Asked::get("*")), None, "OPTIONS * names no path");
}

#[test]
fn then_a_method_most_headers_and_most_parameters() {
    let matches = [
        any_request(),
        RouteMatch { query: vec![parameter("q", "1")], ..any_request() },
        RouteMatch { query: vec![parameter("q", "1"), parameter("r", "2")], ..any_request() },
        RouteMatch { headers: vec![header("a", "1")], ..any_request() },
        RouteMatch { headers: vec![header("a", "1"), header("b", "2")], ..any_request() },
        RouteMatch { method: Some(Method::POST), ..any_request() },
    ];
    let all = Asked::get("/?q=1&r=2").with("a", "1").with("b", "2");
    assert_eq!(rule(&matches, &Asked { method: Method::POST, ..all.clone() }), Some(5));
    assert_eq!(rule(&matches, &all), Some(4));
    assert_eq!(rule(&matches, &Asked::get("/?q=1&r=2").with("a", "1")), Some(3));
    assert_eq!(rule(&matches, &Asked::get("/?q=1&r=2")), Some(2));
    assert_eq!(rule(&matches, &Asked::get("/?q=1&q=2")), Some(1));
    assert_eq!(rule(&matches, &Asked::get("/?q=2&q=1").with("a", "2")), Some(0));
}

#[test]
fn ties_go_to_the_oldest_route_then_to_the_name_then_to_the_first_rule() {
    let two = || vec![any_request(), any_request()];
    let routes = attached(vec![route("c", 1, two()), route("b", 2, two()), route("a", 2, two())]);
    assert_eq!(met(&routes, &Asked::get("/")).as_deref(), Some("c/0"));
    let routes = attached(vec![route("b", 2, two()), route("a", 2, two())]);
    assert_eq!(met(&routes, &Asked::get("/")).as_deref(), Some("a/0"));
}

#[test]
fn a_repeated_header_is_joined() {
    let matches = [RouteMatch { headers: vec![header("a", "1,2")], ..any_request() }];
    assert_eq!(rule(&matches, &Asked::get("/").with("a", "1").with("a", "2")), Some(0));
    assert_eq!(rule(&matches, &Asked::get("/").with("a", "1,2")), Some(0));
    assert_eq!(rule(&matches, &Asked::get("/").with("a", "1")), None);
}

#[test]
fn a_rule_without_matches_is_for_nothing_and_so_is_a_route_without_rules() {
    let mut empty = route("it", 0, vec![any_request()]);
    empty.rules[0].matches.clear();
    for routes in [attached(vec![empty]), attached(vec![route("it", 0, Vec::new())])] {
        assert!(!routes.is_empty(), "a request that no rule is for is refused");
        assert_eq!(met(&routes, &Asked::get("/")), None);
    }
}

#[test]
fn of_grpc_the_longest_service_then_the_longest_method() {
    let matches = [
        grpc(None, None),
        grpc(None, Some("Get")),
        grpc(Some("pkg.Svc"), None),
        grpc(Some("pkg.Svc"), Some("Get")),
    ];
    let route = of_kind(RouteKind::Grpc, route("it", 0, matches.map(on_path).into()));
    let routes = attached(vec![route]);
    for (path, expected) in [
        ("/pkg.Svc/Get", Some("it/3")),
        ("/pkg.Svc/Put", Some("it/2")),
        ("/pkg.Other/Get", Some("it/1")),
        ("/pkg.Other/Put", Some("it/0")),
        ("/pkg.Svc", None),
        ("/pkg.Svc/Get/more", None),
    ] {
        assert_eq!(met(&routes, &Asked::get(path)).as_deref(), expected, "{path}");
    }
}

#[test]
fn consumer_routes_take_the_place_of_producer_routes() {
    let producer = Arc::new(route("producer", 0, vec![on_path(exact("/only-here"))]));
    let consumer = Route { name: NamespacedName::new("desk", "consumer"), ..(*producer).clone() };
    let consumer =
        Route { rules: route("x", 0, vec![on_path(exact("/elsewhere"))]).rules, ..consumer };
    let routes = [producer, Arc::new(consumer)];
    let of = |client| Routes::attached(&routes, &service(), 80, client);
    assert_eq!(met(&of("shop"), &Asked::get("/only-here")).as_deref(), Some("producer/0"));
    assert_eq!(met(&of("other"), &Asked::get("/only-here")).as_deref(), Some("producer/0"));
    assert_eq!(met(&of("desk"), &Asked::get("/elsewhere")).as_deref(), Some("consumer/0"));
    assert_eq!(met(&of("desk"), &Asked::get("/only-here")), None);
}

#[test]
fn parents_are_told_apart_by_port_and_kinds_do_not_mix() {
    let mut narrow = route("narrow", 0, vec![any_request()]);
    narrow.parents[0].port = Some(8080);
    let grpc = of_kind(RouteKind::Grpc, route("grpc", 9, vec![on_path(grpc(None, None))]));
    let http = route("http", 0, vec![on_path(exact("/http"))]);
    let routes = [narrow, grpc, http].map(Arc::new);
    let at = |port| Routes::attached(&routes, &service(), port, "shop");
    assert_eq!(at(80).kind(), Some(RouteKind::Grpc));
    assert_eq!(met(&at(80), &Asked::get("/http")), None, "the HTTPRoute is out of use");
    let other = NamespacedName::new("shop", "other");
    assert!(Routes::attached(&routes, &other, 80, "shop").is_empty());
    let only_narrow = &routes[..1];
    assert!(Routes::attached(only_narrow, &service(), 80, "shop").is_empty());
    assert!(!Routes::attached(only_narrow, &service(), 8080, "shop").is_empty());
}

/// What the specification says of `routes`, as [`met`] has it.
fn specified(routes: &[Route], asked: &Asked) -> Option<String> {
    let met = reference::find(routes, asked.request())?;
    Some(format!("{}/{}", met.route.name.name, met.rule.name))
}

fn any_path() -> impl Strategy<Value = String> {
    let element = prop_oneof![Just("a"), Just("b"), Just("ab"), Just("")];
    prop::collection::vec(element, 0..4).prop_map(|elements| format!("/{}", elements.join("/")))
}

fn any_value() -> impl Strategy<Value = TextMatch> {
    prop_oneof![
        Just(TextMatch::Exact("1".into())),
        Just(TextMatch::Exact("2".into())),
        Just(TextMatch::Exact("1,2".into())),
        Just(TextMatch::Pattern("[12]".parse().expect("a literal pattern"))),
    ]
}

fn any_match() -> impl Strategy<Value = RouteMatch> {
    let path = prop_oneof![
        any_path().prop_map(|path| exact(&path)),
        any_path().prop_map(|path| prefix(path.trim_end_matches('/'))),
        prop_oneof![Just("/a.*"), Just("/[ab]"), Just(".*b")].prop_map(pattern),
    ];
    let names = prop::sample::subsequence(vec!["x", "y"], 0..=2);
    let headers = (names.clone(), any_value()).prop_map(|(names, value)| {
        let header = |name| HeaderMatch { value: value.clone(), ..header(name, "") };
        names.into_iter().map(header).collect()
    });
    let query = (names, any_value()).prop_map(|(names, value)| {
        let parameter = |name| QueryMatch { value: value.clone(), ..parameter(name, "") };
        names.into_iter().map(parameter).collect()
    });
    let method = prop::option::of(prop_oneof![Just(Method::GET), Just(Method::POST)]);
    (path, method, headers, query).prop_map(|(path, method, headers, query)| RouteMatch {
        path,
        method,
        headers,
        query,
    })
}

fn any_routes() -> impl Strategy<Value = Vec<Route>> {
    let rules = prop::collection::vec(prop::collection::vec(any_match(), 1..3), 1..4);
    let routes = prop::collection::vec((0..2_i64, rules), 1..6);
    routes.prop_map(|routes| {
        let one = |(at, (created, rules)): (usize, (i64, Vec<Vec<RouteMatch>>))| {
            let mut route = route(&format!("r{at}"), created, vec![any_request(); rules.len()]);
            for (rule, matches) in route.rules.iter_mut().zip(rules) {
                rule.matches = matches;
            }
            route
        };
        routes.into_iter().enumerate().map(one).collect()
    })
}

fn any_asked() -> impl Strategy<Value = Asked> {
    let method = prop_oneof![Just(Method::GET), Just(Method::POST), Just(Method::PUT)];
    let query = prop::option::of(prop_oneof![
        Just("x=1"),
        Just("x=2&y=1"),
        Just("y=2&x=1&y=1"),
        Just("z=1")
    ]);
    let name = prop_oneof![Just("x"), Just("y")];
    let value = prop_oneof![Just("1"), Just("2"), Just("3")];
    let headers = prop::collection::vec((name, value), 0..4);
    (method, any_path(), query, headers).prop_map(|(method, path, query, headers)| {
        let asked = Asked { method, path, query: query.map(Into::into), headers: HeaderMap::new() };
        headers.into_iter().fold(asked, |asked, (name, value)| asked.with(name, value))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn filed_matches_agree_with_the_specification(
        routes in any_routes(),
        asked in prop::collection::vec(any_asked(), 1..8),
    ) {
        let filed = attached(routes.clone());
        for asked in &asked {
            prop_assert_eq!(met(&filed, asked), specified(&routes, asked), "{:?}", asked);
        }
    }
}
