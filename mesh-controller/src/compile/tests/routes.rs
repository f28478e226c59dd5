//! Routes next to the Services that they name.

use mesh_common::model::{BackendTarget, Route, RouteKind};

use super::*;

const SERVICES: &str = "
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: a, port: 80}, {name: b, port: 90}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: shop}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: outside, namespace: shop}
spec: {type: ExternalName, externalName: a.example}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: other}
spec: {clusterIP: 10.96.0.2, ports: [{port: 80}]}
";

fn route(kind: &str, name: &str, parents: &str, rules: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    let version = if matches!(kind, "TLSRoute" | "TCPRoute") { "v1alpha2" } else { "v1" };
    format!(
        "\n---\napiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: {namespace}, generation: 7}}\n\
         spec: {{parentRefs: [{parents}], rules: [{rules}]}}\n"
    )
}

fn parent(rest: &str) -> String {
    format!("{{group: '', kind: Service, {rest}}}")
}

impl Compiled {
    fn route(&self, name: &str) -> Option<&Route> {
        self.resources.values().find_map(|resource| match resource {
            Resource::Route(route) if route.name.to_string() == name => Some(route),
            _ => None,
        })
    }

    /// `Type=Status Reason` of a route at each of its parents.
    fn conditions(&self, name: &str) -> Vec<Vec<String>> {
        let of = self.routes.iter().find(|(key, _)| key.name.to_string() == name);
        let text = |it: &ParentCondition| format!("{}={} {}", it.type_, it.status, it.reason);
        let parent = |it: &ParentStatus| it.conditions.iter().map(text).collect();
        of.map(|(_, parents)| parents.iter().map(parent).collect()).unwrap_or_default()
    }
}

const GOOD: [&str; 2] = ["Accepted=true Accepted", "ResolvedRefs=true ResolvedRefs"];

#[test]
fn parents_are_services_with_virtual_addresses() {
    for (written, expected) in [
        ("name: web", Ok(("shop/web", None))),
        ("name: web, port: 80", Ok(("shop/web", Some(80)))),
        ("name: web, namespace: other, port: 80", Ok(("other/web", Some(80)))),
        ("name: web, port: 81", Err("NoMatchingParent")),
        ("name: none", Err("NoMatchingParent")),
        ("name: headless", Err("NoMatchingParent")),
        ("name: outside", Err("NoMatchingParent")),
        ("name: web, sectionName: a", Err("UnsupportedValue")),
    ] {
        let yaml = format!("{SERVICES}{}", route("HTTPRoute", "shop/r", &parent(written), "{}"));
        let compiled = compiled(&yaml);
        let conditions = compiled.conditions("shop/r").remove(0);
        match expected {
            Ok((service, port)) => {
                assert_eq!(conditions, GOOD, "{written}");
                let parents = &compiled.route("shop/r").expect(written).parents;
                assert_eq!((&*parents[0].service.to_string(), parents[0].port), (service, port));
                assert_eq!(compiled.problems(), [] as [&str; 0]);
            }
            Err(reason) => {
                assert_eq!(conditions[0], format!("Accepted=false {reason}"), "{written}");
                assert_eq!(compiled.route("shop/r"), None, "{written}");
                assert_eq!(compiled.problems().len(), 1, "{written}");
            }
        }
    }
}

#[test]
fn gateways_are_no_business_of_ours() {
    let mixed = format!("{{name: gateway}}, {}", parent("name: web"));
    let yaml = format!(
        "{SERVICES}{}{}",
        route("HTTPRoute", "shop/both", &mixed, "{}"),
        route("HTTPRoute", "shop/gateway", "{name: gateway}", "{}")
    );
    let compiled = compiled(&yaml);
    assert_eq!(compiled.conditions("shop/both"), [GOOD]);
    assert_eq!(compiled.conditions("shop/gateway"), [] as [Vec<String>; 0]);
    assert_eq!(compiled.route("shop/gateway"), None);
}

#[test]
fn one_kind_has_a_port_among_the_clients_of_a_namespace() {
    let at = |kind: &str, name: &str, port: &str| {
        let parent = parent(&format!("name: web, namespace: shop{port}"));
        route(
            kind,
            name,
            &parent,
            if kind == "HTTPRoute" || kind == "GRPCRoute" { "{}" } else { "{backendRefs: []}" },
        )
    };
    let yaml = [
        SERVICES.to_owned(),
        at("GRPCRoute", "shop/grpc", ", port: 80"),
        at("HTTPRoute", "shop/http", ", port: 80"),
        at("HTTPRoute", "shop/http-all", ""),
        at("TLSRoute", "shop/tls", ", port: 90"),
        at("TCPRoute", "shop/tcp", ""),
        at("TCPRoute", "desk/tcp", ""),
    ];
    let compiled = compiled(&yaml.concat());
    let is_accepted = |name| compiled.conditions(name)[0][0].clone();
    assert_eq!(is_accepted("shop/grpc"), "Accepted=true Accepted");
    assert_eq!(is_accepted("shop/http"), "Accepted=false Conflicted");
    assert_eq!(is_accepted("shop/http-all"), "Accepted=true Accepted", "it has port 90");
    assert_eq!(is_accepted("shop/tls"), "Accepted=false Conflicted");
    assert_eq!(is_accepted("shop/tcp"), "Accepted=false Conflicted");
    assert_eq!(is_accepted("desk/tcp"), "Accepted=true Accepted", "for its own clients alone");
    assert_eq!(compiled.route("shop/http"), None);
    assert_eq!(compiled.route("desk/tcp").map(|it| it.kind), Some(RouteKind::Tcp));
}

#[test]
fn backends_that_are_not_there_are_told_and_answer_for_their_share() {
    let mirror =
        "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: gone, port: 1}}}]";
    for (rule, expected) in [
        ("backendRefs: [{name: web, port: 90}]", "ResolvedRefs=true ResolvedRefs"),
        (
            "backendRefs: [{name: web, namespace: other, port: 80}]",
            "ResolvedRefs=true ResolvedRefs",
        ),
        ("backendRefs: [{name: headless, port: 80}]", "ResolvedRefs=true ResolvedRefs"),
        ("backendRefs: [{name: gone, port: 80}]", "ResolvedRefs=false BackendNotFound"),
        ("backendRefs: [{name: gone, port: 80, weight: 0}]", "ResolvedRefs=false BackendNotFound"),
        ("backendRefs: [{name: web, port: 81}]", "ResolvedRefs=false BackendNotFound"),
        ("backendRefs: [{name: outside, port: 80}]", "ResolvedRefs=false InvalidKind"),
        ("backendRefs: [{name: web, kind: Bucket, port: 80}]", "ResolvedRefs=false InvalidKind"),
        (mirror, "ResolvedRefs=false BackendNotFound"),
    ] {
        let rules = format!("{{{rule}}}");
        let yaml =
            format!("{SERVICES}{}", route("HTTPRoute", "shop/r", &parent("name: web"), &rules));
        let compiled = compiled(&yaml);
        assert_eq!(compiled.conditions("shop/r"), [["Accepted=true Accepted", expected]], "{rule}");
        let backends = &compiled.route("shop/r").expect("attached").rules[0].backends;
        let is_valid = backends.iter().all(|it| matches!(it.target, BackendTarget::Service { .. }));
        assert_eq!(is_valid, expected.contains("true") || rule == mirror, "{rule}");
    }
}

#[test]
fn a_wrong_rule_is_told_and_all_wrong_is_not_accepted() {
    let bad = "{matches: [{path: {type: RegularExpression, value: '('}}, {}]}";
    for (rules, expected) in [
        (format!("{bad}, {{}}"), vec![GOOD[0], GOOD[1], "PartiallyInvalid=true UnsupportedValue"]),
        (bad.to_owned(), vec!["Accepted=false UnsupportedValue", GOOD[1]]),
    ] {
        let yaml =
            format!("{SERVICES}{}", route("HTTPRoute", "shop/r", &parent("name: web"), &rules));
        let compiled = compiled(&yaml);
        assert_eq!(compiled.conditions("shop/r"), [expected], "{rules}");
        let rule = &compiled.route("shop/r").expect("it answers with 500").rules[0];
        assert!(matches!(rule.backends[0].target, BackendTarget::Invalid(_)));
    }
}
