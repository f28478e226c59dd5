//! How long it takes to find a request's rule where a Service has thousands of routes.

use std::{hint::black_box, sync::Arc, time::Instant};

use http::{HeaderMap, Method};
use mesh_common::{
    matching::route::{Request, Routes},
    model::{
        HeaderMatch, NamespacedName, PathMatch, Route, RouteKind, RouteMatch, RouteParent,
        RouteRule, TextMatch, Timeouts,
    },
};

/// Requests a shape and number of routes.
const REQUESTS: usize = 200_000;
const FEW: usize = 10;
/// Requests whose time is taken together: a clock takes longer than a search.
const BATCH: usize = 100;

/// A route's match, and the path and header of a request for it.
type Shape = fn(usize) -> (RouteMatch, String, Option<String>);

/// Prints a line of JSON a shape: what routes ask for, and nanoseconds with few and with `count`.
pub fn run(count: usize) {
    let shapes: [(&str, Shape); 4] = [
        ("path", |at| (asking(PathMatch::Exact(path(at).into())), path(at), None)),
        ("prefix", |at| {
            (asking(PathMatch::Prefix(path(at).into())), format!("{}/x/y/z", path(at)), None)
        }),
        ("header, one path", |at| {
            let value = format!("value-{at}");
            let header = HeaderMatch {
                name: http::HeaderName::from_static("x-version"),
                value: TextMatch::Exact(value.as_str().into()),
            };
            let wanted =
                RouteMatch { headers: vec![header], ..asking(PathMatch::Prefix("".into())) };
            (wanted, "/".to_owned(), Some(value))
        }),
        ("gRPC method", |at| {
            let exact = |text: String| Some(TextMatch::Exact(text.into()));
            let service = exact(format!("shop.Service{at}"));
            let method = exact("Get".to_owned());
            let wanted = asking(PathMatch::Grpc { service, method });
            (wanted, format!("/shop.Service{at}/Get"), None)
        }),
    ];
    for (name, shape) in shapes {
        let [few, many] = [FEW, count].map(|routes| median_ns(routes, shape));
        let seen = serde_json::json!({
            "routes": [FEW, count], "ask_for": name, "p50_ns": [few, many], "more_ns": many - few,
        });
        println!("{seen}");
    }
}

fn median_ns(count: usize, shape: Shape) -> f64 {
    let asked: Vec<_> = (0..count).map(shape).collect();
    let routes: Vec<_> = asked.iter().enumerate().map(|(at, it)| route(at, &it.0)).collect();
    let routes = Routes::attached(&routes, &web(), 80, "shop");
    let requests: Vec<_> = asked
        .iter()
        .map(|(_, path, header)| {
            let mut headers = HeaderMap::new();
            headers.insert("user-agent", http::HeaderValue::from_static("bench"));
            if let Some(value) = header.as_ref().and_then(|it| it.parse().ok()) {
                headers.insert("x-version", value);
            }
            (path.as_str(), headers)
        })
        .collect();
    let mut nanos: Vec<u128> = (0..REQUESTS / BATCH)
        .map(|batch| {
            let started = Instant::now();
            for one in 0..BATCH {
                let (path, headers) = &requests[(batch * BATCH + one) * 7919 % requests.len()];
                let request = Request { method: &Method::POST, path, query: None, headers };
                black_box(routes.find(black_box(request)).is_some());
            }
            started.elapsed().as_nanos()
        })
        .collect();
    nanos.sort_unstable();
    nanos[nanos.len() / 2] as f64 / BATCH as f64
}

fn path(at: usize) -> String {
    format!("/api/v1/item-{at}")
}

fn asking(path: PathMatch) -> RouteMatch {
    RouteMatch { path, method: None, headers: Vec::new(), query: Vec::new() }
}

fn web() -> NamespacedName {
    NamespacedName::new("shop", "web")
}

fn route(at: usize, by: &RouteMatch) -> Arc<Route> {
    let rule = RouteRule {
        name: "0".into(),
        matches: vec![by.clone()],
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
    };
    let kind = match by.path {
        PathMatch::Grpc { .. } => RouteKind::Grpc,
        _ => RouteKind::Http,
    };
    Arc::new(Route {
        name: NamespacedName::new("shop", &at.to_string()),
        kind,
        created: 0,
        parents: vec![RouteParent { service: web(), port: None }],
        hostnames: Vec::new(),
        rules: vec![rule],
    })
}
