use std::{path::Path, sync::Arc};

use kube_cel::Validator;
use proptest::prelude::*;
use serde_json::Map;

use super::*;
use crate::{object::limits, source::yaml};

mod structural;

#[test]
fn the_files_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds");
    for (name, yaml) in files().expect("YAML") {
        let there = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert!(there == yaml, "deploy/crds/{name} is not what the types say: cargo xtask crds");
    }
}

#[test]
fn the_schemas_keep_all_that_the_types_say() {
    for (kind, spec) in [
        ("AuthorizationPolicy", schema::<PolicySpec>()),
        ("PeerPolicy", schema::<PeerPolicySpec>()),
        ("MeshConfig", schema::<MeshConfigSpec>()),
    ] {
        // What k8s-openapi's type of a schema has no field for would be lost silently.
        let (root, status) = (with_floats(root(kind)), schema::<Status>());
        assert_eq!(root["properties"]["spec"], with_floats(spec), "{kind}");
        assert_eq!(root["properties"]["status"], with_floats(status), "{kind}");
        structural::check_form(&root);
    }
}

/// k8s-openapi has some numbers of a schema as floats.
fn with_floats(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(list) => list.into_iter().map(with_floats).collect(),
        Value::Object(map) => {
            let map = map.into_iter().map(|(key, value)| (key, with_floats(value)));
            Value::Object(map.collect())
        }
        value => value,
    }
}

/// The schema of a kind.
fn root(kind: &str) -> Value {
    let definition = definitions().into_iter().find(|it| it.spec.names.kind == kind);
    let definition = serde_json::to_value(definition.expect("one of ours")).expect("JSON");
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn object(kind: &str, spec: Value) -> Value {
    let name = if kind == "MeshConfig" { "default" } else { "web" };
    json!({
        "apiVersion": "nodemesh.dev/v1alpha1",
        "kind": kind,
        "metadata": { "name": name },
        "spec": spec,
    })
}

/// Why an API server would refuse `object`, if it would.
fn of_server(object: &Value) -> Result<(), String> {
    let root = root(object["kind"].as_str().expect("a kind"));
    structural::check(&root, object, "")?;
    Validator::new().validate(&root, object, None).map_err(|errors| errors.to_string())
}

/// Why the controller refuses `object`, if it does.
fn of_controller(object: &Value) -> Result<(), String> {
    let file: Arc<Path> = Path::new("object.yaml").into();
    let mut parsed = yaml::parse(&file, &object.to_string());
    assert_eq!(parsed.len(), 1);
    parsed.remove(0).object.map(drop)
}

#[track_caller]
fn agree(object: &Value, expected: bool) {
    let (server, controller) = (of_server(object), of_controller(object));
    assert_eq!(server.is_ok(), controller.is_ok(), "{object}: {server:?}, {controller:?}");
    assert_eq!(server.is_ok(), expected, "{object}: {server:?}");
}

#[test]
fn server_and_controller_agree_on_edges() {
    let policy = |spec| object("AuthorizationPolicy", spec);
    let rules = |rules: Value| policy(json!({ "rules": rules }));
    let from = |source: Value| rules(json!([{ "from": [source] }]));
    let peer = |spec| object("PeerPolicy", spec);
    let many = |count: usize| vec![json!({ "to": [{ "ports": [80] }] }); count];
    let selector = |labels: Value| policy(json!({ "selector": { "matchLabels": labels } }));
    let service = json!({ "kind": "Service", "name": "web" });
    let mut called_otherwise = object("MeshConfig", json!({}));
    called_otherwise["metadata"]["name"] = "other".into();
    let mut without_spec = policy(json!({}));
    without_spec.as_object_mut().expect("a map").remove("spec");
    let mut with_status = policy(json!({}));
    with_status["status"] = json!({ "conditions": [], "workloads": 3 });
    for (object, expected) in [
        (with_status, true),
        (without_spec, false),
        (called_otherwise, false),
        (object("MeshConfig", json!({ "peer": { "mode": "STRICT" } })), true),
        (object("MeshConfig", json!({ "peer": { "mode": "strict" } })), false),
        (policy(json!({ "action": "AUDIT" })), false),
        (policy(json!({ "unknown": 1 })), false),
        (policy(json!({ "targetRef": service })), true),
        (policy(json!({ "targetRef": { "kind": "Pod", "name": "web" } })), false),
        (policy(json!({ "targetRef": { "kind": "Service", "name": "We.b" } })), false),
        (
            policy(json!({ "targetRef": service, "selector": { "matchLabels": { "a": "b" } } })),
            false,
        ),
        (selector(json!({})), false),
        (selector(json!({ "a": "" })), true),
        (selector(json!({ "a": "-b" })), false),
        (selector(json!({ "a": "b".repeat(63) })), true),
        (selector(json!({ "a": "b".repeat(64) })), false),
        (rules(json!(many(limits::RULES))), true),
        (rules(json!(many(limits::RULES + 1))), false),
        (rules(json!([{ "name": "a" }, { "name": "b" }])), true),
        (rules(json!([{ "name": "a" }, { "name": "a" }])), false),
        (rules(json!([{ "name": "" }])), false),
        (rules(json!([{ "name": "é".repeat(63) }])), true),
        (rules(json!([{ "name": "a".repeat(64) }])), false),
        (rules(json!([{ "from": [] }])), false),
        (rules(json!([{ "from": [{}] }])), false),
        (rules(json!([{ "to": [{}] }])), false),
        (rules(json!([{ "to": [{ "ports": [] }] }])), false),
        (rules(json!([{ "to": [{ "ports": [0] }] }])), false),
        (rules(json!([{ "to": [{ "notPorts": [65535] }] }])), true),
        (rules(json!([{ "to": [{ "ports": [65536] }] }])), false),
        (rules(json!([{ "to": [{ "ports": ["80"] }] }])), false),
        (from(json!({ "namespaces": ["a".repeat(63)] })), true),
        (from(json!({ "namespaces": ["a".repeat(64)] })), false),
        (from(json!({ "namespaces": ["a.b"] })), false),
        (from(json!({ "namespaces": vec!["a"; limits::VALUES] })), true),
        (from(json!({ "namespaces": vec!["a"; limits::VALUES + 1] })), false),
        (from(json!({ "serviceAccounts": ["shop/a.b"] })), true),
        (from(json!({ "serviceAccounts": ["shop"] })), false),
        (from(json!({ "serviceAccounts": [format!("{}/a", "b".repeat(64))] })), false),
        (from(json!({ "ipBlocks": ["10.0.0.0/8", "2001:db8::1"] })), true),
        (from(json!({ "ipBlocks": ["all"] })), false),
        (from(json!({ "notPrincipals": ["*", "*/sa/web", "td/ns/a/sa/b"] })), true),
        (from(json!({ "principals": ["spiffe://td/ns/a*"] })), false),
        (from(json!({ "principals": ["http://td/ns/a/sa/b"] })), false),
        (peer(json!({})), false),
        (peer(json!({ "mode": "STRICT", "ports": [] })), true),
        (peer(json!({ "mode": "STRICT", "ports": [{ "port": 1 }] })), false),
        (
            peer(json!({ "mode": "STRICT", "ports": [
                { "port": 1, "mode": "STRICT" }, { "port": 1, "mode": "PERMISSIVE" },
            ] })),
            false,
        ),
    ] {
        agree(&object, expected);
    }
}

/// What a schema cannot say, or says too dearly: the object is stored, and its status says why it
/// is not in use.
#[test]
fn what_only_the_controller_refuses() {
    let from =
        |source: Value| object("AuthorizationPolicy", json!({ "rules": [{ "from": [source] }] }));
    let unnamed = json!({ "rules": [{}, { "name": "0" }] });
    let label = json!({ "selector": { "matchLabels": { "a b": "c" } } });
    for object in [
        // The name of the first rule is its index.
        object("AuthorizationPolicy", unnamed),
        // A rule on the keys of a map has no bound on what it costs.
        object("AuthorizationPolicy", label),
        // Arithmetic.
        from(json!({ "ipBlocks": ["10.0.0.1/8"] })),
        from(json!({ "ipBlocks": ["10.0.0.0/33"] })),
        from(json!({ "ipBlocks": ["1.2.3"] })),
        // A part of a text has no length of its own.
        from(json!({ "serviceAccounts": [format!("a/{}", "b".repeat(254))] })),
    ] {
        of_server(&object).expect("the schema lets it through");
        of_controller(&object).expect_err("it makes no sense");
    }
}

#[test]
fn null_is_for_files_alone() {
    let spec = json!({ "selector": null });
    of_controller(&object("AuthorizationPolicy", spec.clone())).expect("as if left out");
    of_server(&object("AuthorizationPolicy", spec)).expect_err("an API server wants it left out");
}

/// A text that is often nearly right.
fn text() -> impl Strategy<Value = Value> {
    prop_oneof![
        "(spiffe://)?(\\*|td|a\\.b|\\*/)(/ns/|/sa/|/)?[a-z*.-]{0,3}(/sa/|/\\*|/)?[a-z*-]{0,3}",
        "[a-z0-9.-]{0,3}/[a-z0-9.-]{0,4}",
        "[a-zA-Z0-9._-]{0,4}",
    ]
    .prop_map(Value::from)
}

fn source() -> impl Strategy<Value = Value> {
    let field = prop::sample::select(vec![
        "principals",
        "notPrincipals",
        "namespaces",
        "notNamespaces",
        "serviceAccounts",
        "notServiceAccounts",
        "unknown",
    ]);
    prop::collection::vec((field, prop::collection::vec(text(), 0..3)), 0..3).prop_map(|fields| {
        let fields = fields.into_iter().map(|(name, values)| (name.to_owned(), values.into()));
        Value::Object(fields.collect::<Map<_, _>>())
    })
}

proptest! {
    #[test]
    fn server_and_controller_agree(
        sources in prop::collection::vec(source(), 0..3),
        label in text(),
        port in prop_oneof![Just(0), Just(65_536), 1..65_536_i64],
    ) {
        let spec = json!({
            "selector": { "matchLabels": { "app": label } },
            "rules": [{ "from": sources, "to": [{ "ports": [port] }] }],
        });
        let object = object("AuthorizationPolicy", spec);
        let (server, controller) = (of_server(&object), of_controller(&object));
        prop_assert_eq!(server.is_ok(), controller.is_ok(), "{}: {:?}, {:?}", object, server, controller);
    }

    #[test]
    fn server_and_controller_agree_on_texts(value in text(), field in 0..3_usize) {
        let field = ["principals", "namespaces", "serviceAccounts"][field];
        let spec = json!({ "rules": [{ "from": [{ field: [value] }] }] });
        let object = object("AuthorizationPolicy", spec);
        let (server, controller) = (of_server(&object), of_controller(&object));
        prop_assert_eq!(server.is_ok(), controller.is_ok(), "{}: {:?}, {:?}", object, server, controller);
    }
}
