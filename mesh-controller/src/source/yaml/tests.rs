//! Every way in which a document can be bad, with what is said and where.

use super::*;
use crate::object::Object;

fn at(parsed: &Parsed) -> (usize, u64) {
    match parsed.place {
        Place::File { document, line, .. } => (document, line),
        Place::Cluster { .. } => panic!("{parsed:?} is in no file"),
    }
}

fn parsed(text: &str) -> Vec<Parsed> {
    parse(&Path::new("f.yaml").into(), text)
}

/// `document:line: complaint` of every bad document.
fn complaints(text: &str) -> Vec<String> {
    let complaint = |parsed: &Parsed| {
        let reason = parsed.object.as_ref().err()?;
        let (document, line) = at(parsed);
        Some(format!("{document}:{line}: {reason}"))
    };
    parsed(text).iter().filter_map(complaint).collect()
}

fn keys(text: &str) -> Vec<String> {
    let good = |parsed: &Parsed| parsed.object.as_ref().ok().map(|object| object.key().to_string());
    parsed(text).iter().filter_map(good).collect()
}

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n";

#[test]
fn documents_are_split_at_markers_only() {
    let text = format!(
        "\u{feff}%YAML 1.2\n---\n# a comment\n{POD}  annotations:\n    a: |\n      ---\n      \
         text\n---\n---\n# nothing\n--- # inline\n{POD}  namespace: b\n...\n\n---   \r\n{POD}  \
         namespace: c\n"
    );
    assert_eq!(keys(&text), ["Pod default/a", "Pod b/a", "Pod c/a"]);
    assert_eq!(complaints(&text), [] as [&str; 0]);
    let lines: Vec<_> = parsed(&text).iter().map(|parsed| at(parsed).1).collect();
    assert_eq!(lines, [4, 16, 24]);
}

#[test]
fn nothing_is_no_object() {
    for text in
        ["", "\n\n", "# only a comment\n", "---\n---\n", "null\n", "---\n~\n", "%YAML 1.2\n"]
    {
        assert_eq!(parsed(text), [], "{text:?}");
    }
}

#[test]
fn lists_hold_objects() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Node\n  \
                metadata: {name: a}\n- apiVersion: v1\n  kind: Wheel\n- apiVersion: v1\n  \
                kind: Node\n  metadata: {name: b}\n";
    assert_eq!(keys(text), ["Node a", "Node b"]);
    assert_eq!(
        complaints(text),
        ["1:8: kind: `Wheel` is not understood; understood are Namespace, Node, Pod, Service, \
          ServiceAccount, EndpointSlice, RuntimeClass, AuthorizationPolicy, PeerPolicy, \
          MeshConfig, HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, List"]
    );
    assert_eq!(keys("apiVersion: v1\nkind: List\nitems: []\n"), [] as [&str; 0]);
}

#[test]
fn what_is_no_object_is_refused() {
    for (text, expected) in [
        ("text\n", "1:1: no Kubernetes object: a mapping with `kind` is expected"),
        ("- a\n", "1:1: no Kubernetes object: a mapping with `kind` is expected"),
        ("a: 1\n", "1:1: kind: missing, or no text; every Kubernetes object has one"),
        ("kind: Pod\n", "1:1: apiVersion: missing, or no text; every Kubernetes object has one"),
        (
            "apiVersion: v2\nkind: Pod\n",
            "1:1: apiVersion: `v2` is not understood for Pod; write v1",
        ),
        ("apiVersion: v1\nkind: Pod\n", "1:1: metadata.name: missing; every object has a name"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: A_b\n",
            "1:4: metadata.name: `A_b` is no name: 1 to 253 lower-case letters, digits, dots and \
             dashes",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  namespace: a.b\n",
            "1:5: metadata.namespace: `a.b` is no namespace: 1 to 63 lower-case letters, digits \
             and dashes",
        ),
    ] {
        assert_eq!(complaints(text), [expected], "{text}");
    }
}

#[test]
fn what_is_no_yaml_is_refused_at_its_line() {
    for (text, line) in [("\n\na: [1\n", 8), ("a: b: c\n", 6), ("a: 1\na: 2\n", 7), ("a: *b\n", 6)]
    {
        let text = format!("{POD}---\n{text}");
        let complaints = complaints(&text);
        assert_eq!(complaints.len(), 1, "{text}: {complaints:?}");
        let expected = format!("2:{line}: not YAML: ");
        assert!(complaints[0].starts_with(&expected), "{text} {expected}: {}", complaints[0]);
        assert_eq!(keys(&text), ["Pod default/a"]);
    }
}

#[test]
fn bad_fields_are_named() {
    let cases = [
        ("status:\n  podIP: 10.0.0.256\n", "status.podIP: `10.0.0.256` is neither IPv4 nor IPv6"),
        (
            "status:\n  podIP: 127.0.0.1\n",
            "status.podIP: `127.0.0.1` is an unspecified, loopback or multicast address",
        ),
        (
            "status:\n  podIPs: [{ip: 10.0.0.1}, {ip: 10.0.0.2}]\n",
            "status.podIPs[1]: a second address of the same family",
        ),
        (
            "status:\n  podIP: 10.0.0.3\n  podIPs: [{ip: 10.0.0.1}]\n",
            "status.podIPs: the first entry is 10.0.0.1, but status.podIP is 10.0.0.3",
        ),
        (
            "spec:\n  containers: []\n  serviceAccountName: a/b\n",
            "spec.serviceAccountName: `a/b` is no Kubernetes name",
        ),
    ];
    for (more, expected) in cases {
        let complaints = complaints(&format!("{POD}{more}"));
        assert_eq!(complaints.len(), 1, "{more}");
        assert!(complaints[0].ends_with(expected), "{more}: {}", complaints[0]);
    }
}

#[test]
fn services_and_slices_are_checked() {
    let service = |spec: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{{spec}}}\n")
    };
    let slice = |rest: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: a}}\n{rest}\n"
        )
    };
    for (text, expected) in [
        (service(""), "spec.clusterIP: missing; write the address, or `None`"),
        (service("clusterIP: x"), "spec.clusterIP: `x` is neither IPv4 nor IPv6"),
        (service("clusterIP: 10.0.0.1, ports: [{port: 0}]"), "spec.ports[0].port: 0 is not within"),
        (
            service("clusterIP: 10.0.0.1, ports: [{port: 1}, {port: 2}]"),
            "spec.ports[0].name: missing; each port of several needs a name",
        ),
        (
            service("clusterIP: 10.0.0.1, ports: [{name: a, port: 1}, {name: a, port: 2}]"),
            "spec.ports[1]: an earlier port has the same name or number",
        ),
        (slice("addressType: IPv5"), "addressType: `IPv5` is none of IPv4, IPv6, FQDN"),
        (
            slice("addressType: IPv6\nendpoints: [{addresses: [10.0.0.1]}]"),
            "endpoints[0].addresses[0]: `10.0.0.1` is not of the slice's addressType",
        ),
        (
            slice("addressType: IPv4\nendpoints: [{addresses: []}]"),
            "endpoints[0].addresses: missing; one address is needed",
        ),
        (
            slice("addressType: IPv4\nports: [{port: 70000}]\nendpoints: []"),
            "ports[0].port: 70000 is not within 1 to 65535",
        ),
    ] {
        let complaints = complaints(&text);
        assert_eq!(complaints.len(), 1, "{text}: {complaints:?}");
        assert!(complaints[0].contains(expected), "{text}: {}", complaints[0]);
    }
}

#[test]
fn policies_are_checked() {
    for (spec, expected) in [
        ("{typo: 1}", "unknown field `typo`"),
        ("{action: AUDIT}", "unknown variant `AUDIT`"),
        ("{selector: {matchLabels: {}}}", "leave out `selector`"),
        ("{selector: {matchExpressions: []}}", "unknown field `matchExpressions`"),
        ("{rules: [{from: [{}]}]}", "spec.rules[0].from[0]: an empty source"),
        ("{rules: [{from: []}]}", "spec.rules[0].from: an empty list; leave the field out"),
        ("{rules: [{from: [{principals: []}]}]}", "from[0].principals: an empty list"),
        ("{rules: [{from: [{principals: [frontend]}]}]}", "from[0].principals[0]: "),
        ("{rules: [{from: [{namespaces: ['a/b']}]}]}", "namespaces[0]: `a/b` is no namespace"),
        ("{rules: [{to: [{}]}]}", "spec.rules[0].to[0]: an empty operation"),
        ("{rules: [{to: [{ports: [0]}]}]}", "to[0].ports[0]: 0 is not within 1 to 65535"),
        ("{rules: [{to: [{ports: ['80']}]}]}", "to[0].ports[0]: invalid type"),
        ("{rules: [{name: a}, {name: a}]}", "spec.rules[1].name: an earlier rule is called `a`"),
        ("{rules: [{name: '1'}, {}]}", "spec.rules[1].name: an earlier rule is called `1`"),
    ] {
        let text = format!(
            "apiVersion: nodemesh.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: a}}\n\
             spec: {spec}\n"
        );
        let complaints = complaints(&text);
        assert_eq!(complaints.len(), 1, "{spec}: {complaints:?}");
        assert!(complaints[0].contains(expected), "{spec}: {}", complaints[0]);
    }
}

#[test]
fn principals_may_leave_out_the_scheme() {
    let text = "apiVersion: nodemesh.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: a}\n\
                spec: {rules: [{from: [{principals: [cluster.local/ns/a/sa/b, \
                'spiffe://cluster.local/ns/a/sa/b']}]}]}\n";
    let parsed = parsed(text);
    let Ok(object) = &parsed[0].object else { panic!("{:?}", parsed[0]) };
    let Object::AuthorizationPolicy(policy) = &**object else { panic!("{object:?}") };
    let principals = &policy.compiled.rules[0].from[0].principals;
    assert_eq!(principals[0], principals[1]);
}

#[test]
fn bombs_are_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = level - 1;
        let aliases = vec![format!("*a{before}"); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let deep = format!("a: {}1{}\n", "[".repeat(5000), "]".repeat(5000));
    let wide = format!("a: [{}1]\n", "1, ".repeat(NODES));
    for text in [bomb, deep, wide] {
        let complaints = complaints(&text);
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].contains("not YAML: "), "{}", complaints[0]);
    }
}

proptest::proptest! {
    #[test]
    fn never_panics(text in "([a-z:{}\\[\\]&*!|>'\"%#\\-\n \t]|\\PC){0,200}") {
        parsed(&text);
    }
}
