//! The manifests have no field that Kubernetes does not know: what a type of its own drops when it
//! reads one is a mistake that only some API servers complain of.

use std::{fs, path::Path};

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{ConfigMap, Namespace, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let typed: T = serde_json::from_value(object.clone()).expect("of its type");
    serde_json::to_value(typed).expect("JSON")
}

fn through_its_type(object: &Value) -> Value {
    match object["kind"].as_str().unwrap_or_default() {
        "ClusterRole" => through::<ClusterRole>(object),
        "ClusterRoleBinding" => through::<ClusterRoleBinding>(object),
        "ConfigMap" => through::<ConfigMap>(object),
        "DaemonSet" => through::<DaemonSet>(object),
        "Deployment" => through::<Deployment>(object),
        "Namespace" => through::<Namespace>(object),
        "NetworkPolicy" => through::<NetworkPolicy>(object),
        "PodDisruptionBudget" => through::<PodDisruptionBudget>(object),
        "Role" => through::<Role>(object),
        "RoleBinding" => through::<RoleBinding>(object),
        "Service" => through::<Service>(object),
        "ServiceAccount" => through::<ServiceAccount>(object),
        kind => panic!("{kind}: add it here"),
    }
}

/// The fields of `written` that `kept` has not, or otherwise.
fn lost(path: &str, written: &Value, kept: &Value) -> Vec<String> {
    match (written, kept) {
        (Value::Object(written), Value::Object(kept)) => written
            .iter()
            .flat_map(|(key, value)| {
                lost(&format!("{path}.{key}"), value, kept.get(key).unwrap_or(&Value::Null))
            })
            .collect(),
        (Value::Array(written), Value::Array(kept)) if written.len() == kept.len() => {
            let items = written.iter().zip(kept).enumerate();
            items
                .flat_map(|(at, (one, other))| lost(&format!("{path}[{at}]"), one, other))
                .collect()
        }
        // Empty maps and lists need not be written: `emptyDir: {}` is, since it says something.
        _ if written == kept => Vec::new(),
        _ => vec![path.to_owned()],
    }
}

fn lost_of(yaml: &str) -> Vec<String> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(yaml).expect("YAML");
    let objects = objects.iter().filter(|it| !it.is_null());
    objects
        .flat_map(|object| {
            let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
            lost(&name.replace('"', ""), object, &through_its_type(object))
        })
        .collect()
}

#[test]
fn the_manifests_say_nothing_that_kubernetes_does_not_know() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let mut files = ["networkpolicy.yaml", "services.yaml"]
        .map(|file| deploy.join("examples").join(file))
        .to_vec();
    for entry in fs::read_dir(deploy.join("base")).expect("a folder") {
        let path = entry.expect("an entry").path();
        if !path.ends_with("kustomization.yaml") {
            files.push(path);
        }
    }
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let yaml = fs::read_to_string(&file).expect("read");
        assert_eq!(lost_of(&yaml), [] as [&str; 0], "{}", file.display());
    }
}

#[test]
fn a_misspelt_field_is_found() {
    let yaml =
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{prot: 1, port: 2}]}\n";
    assert_eq!(lost_of(yaml), ["Service a.spec.ports[0].prot"]);
}
