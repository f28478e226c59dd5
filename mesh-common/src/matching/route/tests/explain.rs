//! What is said of the matches that do not decide.

use super::*;
use crate::matching::route::{
    accept::{accepts, mismatches},
    precedence::precedence,
    table::At,
};

/// Each match of one-match rules as `route/rule` and what came of it.
fn explained(routes: &Routes, asked: &Asked) -> Vec<(String, String)> {
    let words = |it: Considered<'_>| {
        let name = format!("{}/{}", it.met.route.name.name, it.met.rule.name);
        let outcome = match it.outcome {
            Outcome::Decides => "decides".to_owned(),
            Outcome::Later(criterion) => format!("{criterion:?}"),
            Outcome::Mismatches(of) => of.iter().map(kind).collect::<Vec<_>>().join(" "),
        };
        (name, outcome)
    };
    routes.explain(asked.request()).into_iter().map(words).collect()
}

fn kind(mismatch: &Mismatch<'_>) -> &'static str {
    match mismatch {
        Mismatch::Path(_) => "path",
        Mismatch::Method(_) => "method",
        Mismatch::Header(_) => "header",
        Mismatch::Query(_) => "query",
    }
}

#[test]
fn every_match_says_why_it_does_not_decide() {
    let get = RouteMatch { method: Some(Method::GET), ..on_path(prefix("/a")) };
    let canary = RouteMatch { headers: vec![header("canary", "1")], ..get.clone() };
    let version = RouteMatch { query: vec![parameter("v", "2")], ..get.clone() };
    let put = RouteMatch { method: Some(Method::PUT), ..canary.clone() };
    let first = route("a", 1, vec![get.clone(), canary, version, put, on_path(prefix("/a"))]);
    let routes = [first, route("b", 2, vec![get.clone()]), route("c", 1, vec![get.clone(), get])];
    let asked = Asked::get("/a/b");
    let expected = [
        ("a/1", "header"),
        ("a/3", "method header"),
        ("a/2", "query"),
        ("a/0", "decides"),
        ("c/0", "Name"),
        ("c/1", "Name"),
        ("b/0", "Age"),
        ("a/4", "Method"),
    ];
    let told = explained(&attached(routes.to_vec()), &asked);
    let told: Vec<_> = told.iter().map(|(name, why)| (name.as_str(), why.as_str())).collect();
    assert_eq!(told, expected);
    let told = explained(&attached(routes.to_vec()), &Asked::get("/"));
    assert!(told.iter().all(|(_, why)| why.contains("path")), "{told:?}");
}

#[test]
fn a_client_is_told_which_routes_are_not_for_it() {
    let of = |namespace: &str, kind| {
        let route = of_kind(kind, route("it", 0, vec![any_request()]));
        Arc::new(Route { name: NamespacedName::new(namespace, "it"), ..route })
    };
    let (http, grpc) = (RouteKind::Http, RouteKind::Grpc);
    let routes = [of("shop", http), of("shop", grpc), of("desk", http), of("lab", grpc)];
    let told = |client| -> Vec<Standing> {
        standings(&routes, &service(), 80, client).into_iter().map(|(_, it)| it).collect()
    };
    use Standing::{Holds, OtherClients, Outranked, Replaced};
    assert_eq!(told("shop"), [Outranked(grpc), Holds, OtherClients, OtherClients]);
    assert_eq!(told("else"), told("shop"));
    assert_eq!(told("desk"), [Replaced, Replaced, Holds, OtherClients]);
    assert_eq!(told("lab"), [Replaced, Replaced, OtherClients, Holds]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_explained_is_what_is_found(routes in any_routes(), asked in any_asked()) {
        let filed = attached(routes);
        let told = filed.explain(asked.request());
        let decides = told.iter().find(|it| it.outcome == Outcome::Decides);
        prop_assert_eq!(decides.map(|it| it.met), filed.find(asked.request()));
        for it in &told {
            let accepted = accepts(it.met.by, asked.request());
            prop_assert_eq!(accepted, mismatches(it.met.by, asked.request()).is_empty());
            prop_assert_eq!(accepted, !matches!(it.outcome, Outcome::Mismatches(_)));
        }
        // The order of precedence and what is said to make it are written down twice.
        let all: Vec<At> = filed.table.ranked().collect();
        for pair in all.windows(2) {
            let [first, second] = [pair[0], pair[1]].map(|at| precedence(&filed.routes, at));
            prop_assert!(first < second);
            let told = first.differs_from(&second);
            let same_path = filed.met(pair[0]).by.path == filed.met(pair[1]).by.path;
            prop_assert!(!(same_path && told == Criterion::Path), "{told:?}");
        }
    }
}
