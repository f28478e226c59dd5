//! What does not fit is named with its path and line.

use k8s_openapi::api::core::v1::{Pod, Service};
use serde::de::DeserializeOwned;

use super::*;

fn node(yaml: &str) -> Node {
    serde_saphyr::from_str(yaml).expect("YAML")
}

fn complaint<T: DeserializeOwned + fmt::Debug>(yaml: &str) -> (String, u64) {
    let error = node(yaml).read::<T>().expect_err("does not fit");
    (error.to_string(), error.line.expect("a line"))
}

#[test]
fn lines_are_those_of_the_keys_and_items() {
    let node = node("a:\n  b:\n  - x\n  - c: 1\n    d:\n      e: 2\n");
    for (path, line) in [
        ("", 1),
        ("a", 1),
        ("a.b", 2),
        ("a.b[0]", 3),
        ("a.b[1]", 4),
        ("a.b[1].d.e", 6),
        ("a.b[1].missing", 4),
        ("a.b[7]", 2),
        ("other", 1),
    ] {
        assert_eq!(node.line_of(path), line, "{path}");
    }
}

#[test]
fn unknown_fields_are_errors() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: a\n    \
               ports:\n    - containerPort: 1\n      typo: 2\n";
    assert_eq!(
        complaint::<Pod>(pod),
        (
            "spec.containers[0].ports[0].typo: no such field; remove it or correct its name".into(),
            10
        )
    );
    let top = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspecs: {}\n";
    assert_eq!(
        complaint::<Pod>(top),
        ("specs: no such field; remove it or correct its name".into(), 5)
    );
}

#[test]
fn wrong_types_are_errors() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    version: 1\n";
    let (text, line) = complaint::<Pod>(pod);
    assert!(text.starts_with("metadata.labels.version: invalid type: integer `1`"), "{text}");
    assert_eq!(line, 5);

    let service = "apiVersion: v1\nkind: Service\nspec:\n  ports:\n  - port: 80\n  - port: many\n";
    let (text, line) = complaint::<Service>(service);
    assert!(text.starts_with("spec.ports[1].port: invalid type: string \"many\""), "{text}");
    assert_eq!(line, 6);
}

#[test]
fn numbers_and_names_of_ports_both_fit() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {creationTimestamp: null}\nspec:\n  \
                   ports:\n  - {port: 80, targetPort: 8080}\n  - {port: 81, targetPort: http}\n";
    let service: Service = node(service).read().expect("fits");
    assert_eq!(service.spec.and_then(|spec| spec.ports).map(|ports| ports.len()), Some(2));
}
