//! What is filled in: the defaults of built-in kinds that clients of ours look at.

use serde_json::{Value, json};

use crate::{registry::Resource, store::Locked};

/// Completes an object of a built-in kind.
pub fn complete(store: &Locked<'_>, resource: &Resource, object: &mut Value, old: Option<&Value>) {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Namespace") => namespace(object),
        ("", "Pod") => pod(object),
        ("", "Service") => service(store, object, old),
        ("", "Secret") => {
            set(object, "type", "Opaque");
            decode_texts(object);
        }
        ("apps", "Deployment") => {
            set(&mut object["spec"], "replicas", 1);
            set(&mut object["spec"], "revisionHistoryLimit", 10);
            set(&mut object["spec"], "progressDeadlineSeconds", 600);
            let rolling = json!({ "maxSurge": "25%", "maxUnavailable": "25%" });
            set(
                &mut object["spec"],
                "strategy",
                json!({ "type": "RollingUpdate", "rollingUpdate": rolling }),
            );
            pod_spec(&mut object["spec"]["template"]["spec"]);
        }
        ("apps", "DaemonSet") => {
            set(&mut object["spec"], "revisionHistoryLimit", 10);
            let rolling = json!({ "maxSurge": 0, "maxUnavailable": 1 });
            set(
                &mut object["spec"],
                "updateStrategy",
                json!({ "type": "RollingUpdate", "rollingUpdate": rolling }),
            );
            pod_spec(&mut object["spec"]["template"]["spec"]);
        }
        ("apps", "StatefulSet" | "ReplicaSet") => {
            set(&mut object["spec"], "replicas", 1);
            pod_spec(&mut object["spec"]["template"]["spec"]);
        }
        ("batch", "Job") => {
            set(&mut object["spec"], "backoffLimit", 6);
            set(&mut object["spec"], "completions", 1);
            set(&mut object["spec"], "parallelism", 1);
            pod_spec(&mut object["spec"]["template"]["spec"]);
        }
        ("networking.k8s.io", "NetworkPolicy") if object["spec"]["policyTypes"].is_null() => {
            let mut types = vec!["Ingress"];
            if !object["spec"]["egress"].is_null() {
                types.push("Egress");
            }
            object["spec"]["policyTypes"] = types.into();
        }
        _ => {}
    }
}

/// Sets a field that is absent.
fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    if object[field].is_null() {
        object[field] = value.into();
    }
}

fn namespace(object: &mut Value) {
    // A namespace that is being deleted has lost its finalizers on purpose.
    if object["metadata"]["deletionTimestamp"].is_null() {
        set(object, "spec", json!({ "finalizers": ["kubernetes"] }));
        set(&mut object["spec"], "finalizers", json!(["kubernetes"]));
    }
    if object["status"]["phase"].is_null() {
        object["status"]["phase"] = "Active".into();
    }
    let name = object["metadata"]["name"].clone();
    object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
}

fn pod(object: &mut Value) {
    pod_spec(&mut object["spec"]);
    set(&mut object["spec"], "serviceAccountName", "default");
    let account = object["spec"]["serviceAccountName"].clone();
    set(&mut object["spec"], "serviceAccount", account);
    set(&mut object["spec"], "enableServiceLinks", true);
    if object["status"]["phase"].is_null() {
        object["status"]["phase"] = "Pending".into();
        set(&mut object["status"], "qosClass", "BestEffort");
    }
}

fn pod_spec(spec: &mut Value) {
    set(spec, "restartPolicy", "Always");
    set(spec, "dnsPolicy", "ClusterFirst");
    set(spec, "schedulerName", "default-scheduler");
    set(spec, "terminationGracePeriodSeconds", 30);
    set(spec, "securityContext", json!({}));
    for list in ["initContainers", "containers"] {
        items(spec, list).for_each(container_of);
    }
}

fn container_of(container: &mut Value) {
    let image = container["image"].as_str().unwrap_or_default();
    let latest = image.ends_with(":latest") || !image.rsplit('/').next().is_some_and(is_tagged);
    set(container, "imagePullPolicy", if latest { "Always" } else { "IfNotPresent" });
    set(container, "resources", json!({}));
    set(container, "terminationMessagePath", "/dev/termination-log");
    set(container, "terminationMessagePolicy", "File");
    for port in items(container, "ports") {
        set(port, "protocol", "TCP");
    }
}

fn items<'v>(object: &'v mut Value, field: &str) -> impl Iterator<Item = &'v mut Value> {
    let list = object.get_mut(field).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter(|item| item.is_object())
}

fn is_tagged(image: &str) -> bool {
    image.contains([':', '@'])
}

/// Services get an address out of 10.96.0.0/16, kubeadm's default, the lowest that is free.
fn service(store: &Locked<'_>, object: &mut Value, old: Option<&Value>) {
    let spec = &mut object["spec"];
    set(spec, "type", "ClusterIP");
    set(spec, "sessionAffinity", "None");
    for port in items(spec, "ports") {
        set(port, "protocol", "TCP");
        let number = port["port"].clone();
        set(port, "targetPort", number);
    }
    if spec["type"] == "ExternalName" {
        return;
    }
    set(spec, "internalTrafficPolicy", "Cluster");
    if spec["clusterIP"].as_str().is_none_or(str::is_empty) {
        let kept = old.map(|old| old["spec"]["clusterIP"].clone());
        spec["clusterIP"] =
            kept.filter(Value::is_string).unwrap_or_else(|| free_address(store).into());
    }
    let address = spec["clusterIP"].clone();
    let is_v6 = address.as_str().is_some_and(|address| address.contains(':'));
    set(spec, "clusterIPs", json!([address]));
    set(spec, "ipFamilies", json!([if is_v6 { "IPv6" } else { "IPv4" }]));
    set(spec, "ipFamilyPolicy", "SingleStack");
    if object["status"].is_null() {
        object["status"] = json!({ "loadBalancer": {} });
    }
}

fn free_address(store: &Locked<'_>) -> String {
    let services = store.list("services", None);
    let taken: Vec<_> =
        services.iter().filter_map(|(_, one)| one["spec"]["clusterIP"].as_str()).collect();
    // .1 is the API server's own.
    let all = (2..u16::MAX).map(|host| format!("10.96.{}.{}", host >> 8, host & 0xff));
    let mut free = all.filter(|address| !taken.contains(&address.as_str()));
    free.next().unwrap_or_else(|| "None".to_owned())
}

/// `stringData` is for writing alone: it ends up in `data`.
fn decode_texts(secret: &mut Value) {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let Some(texts) = secret.as_object_mut().and_then(|fields| fields.remove("stringData")) else {
        return;
    };
    for (key, text) in texts.as_object().into_iter().flatten() {
        let text = text.as_str().unwrap_or_default();
        secret["data"][key] = BASE64_STANDARD.encode(text).into();
    }
}
