//! The columns of built-in kinds, as the real server's printers have them.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{Cell, Column, Columns, age, jsonpath::Path};

/// The columns after the name.
pub fn columns(group: &str, kind: &str) -> Columns {
    match (group, kind) {
        ("", "ConfigMap") => vec![computed("Data", "string", data), age()],
        ("", "Endpoints") => vec![computed("Endpoints", "string", endpoints), age()],
        ("" | "events.k8s.io", "Event") => vec![
            computed("Last Seen", "string", last_seen),
            path("Type", ".type"),
            path("Reason", ".reason"),
            computed("Object", "string", event_object),
            computed("Message", "string", event_message),
        ],
        ("", "Namespace") => vec![path("Status", ".status.phase"), age()],
        ("", "Node") => vec![
            computed("Status", "string", node_status),
            computed("Roles", "string", node_roles),
            age(),
            path("Version", ".status.nodeInfo.kubeletVersion"),
            wide(computed("Internal-IP", "string", node_address)),
            wide(path("OS-Image", ".status.nodeInfo.osImage")),
            wide(path("Kernel-Version", ".status.nodeInfo.kernelVersion")),
            wide(path("Container-Runtime", ".status.nodeInfo.containerRuntimeVersion")),
        ],
        ("", "Pod") => vec![
            computed("Ready", "string", pod_ready),
            computed("Status", "string", pod_status),
            computed("Restarts", "string", pod_restarts),
            age(),
            wide(computed("IP", "string", |pod| or_none(&pod["status"]["podIP"]))),
            wide(computed("Node", "string", |pod| or_none(&pod["spec"]["nodeName"]))),
            wide(computed("Nominated Node", "string", |_| "<none>".into())),
            wide(computed("Readiness Gates", "string", |_| "<none>".into())),
        ],
        ("", "Secret") => {
            vec![path("Type", ".type"), computed("Data", "integer", data_count), age()]
        }
        ("", "ServiceAccount") => {
            let secrets = |account: &Value| count(&account["secrets"]).into();
            vec![computed("Secrets", "integer", secrets), age()]
        }
        ("", "Service") => vec![
            path("Type", ".spec.type"),
            computed("Cluster-IP", "string", |service| or_none(&service["spec"]["clusterIP"])),
            computed("External-IP", "string", external_ip),
            computed("Port(s)", "string", ports),
            age(),
            wide(computed("Selector", "string", |service| labels(&service["spec"]["selector"]))),
        ],
        ("apps", "DaemonSet") => vec![
            number("Desired", ".status.desiredNumberScheduled"),
            number("Current", ".status.currentNumberScheduled"),
            number("Ready", ".status.numberReady"),
            number("Up-to-date", ".status.updatedNumberScheduled"),
            number("Available", ".status.numberAvailable"),
            computed("Node Selector", "string", |set| {
                labels(&set["spec"]["template"]["spec"]["nodeSelector"])
            }),
            age(),
        ],
        ("apps", "Deployment") => vec![
            computed("Ready", "string", ready_replicas),
            number("Up-to-date", ".status.updatedReplicas"),
            number("Available", ".status.availableReplicas"),
            age(),
        ],
        ("apps", "StatefulSet") => vec![computed("Ready", "string", ready_replicas), age()],
        ("apps", "ReplicaSet") => vec![
            number("Desired", ".spec.replicas"),
            number("Current", ".status.replicas"),
            number("Ready", ".status.readyReplicas"),
            age(),
        ],
        ("batch", "Job") => vec![computed("Completions", "string", completions), age()],
        ("coordination.k8s.io", "Lease") => vec![path("Holder", ".spec.holderIdentity"), age()],
        ("discovery.k8s.io", "EndpointSlice") => vec![
            path("AddressType", ".addressType"),
            computed("Ports", "string", |slice| {
                joined(&slice["ports"], |port| text(&port["port"]))
            }),
            computed("Endpoints", "string", |slice| {
                joined(&slice["endpoints"], |one| text(&one["addresses"][0]))
            }),
            age(),
        ],
        ("networking.k8s.io", "NetworkPolicy") => vec![
            computed("Pod-Selector", "string", |policy| {
                labels(&policy["spec"]["podSelector"]["matchLabels"])
            }),
            age(),
        ],
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            vec![computed("Role", "string", role), age()]
        }
        ("rbac.authorization.k8s.io", _) | ("apiextensions.k8s.io", _) => {
            vec![path("Created At", ".metadata.creationTimestamp")]
        }
        ("admissionregistration.k8s.io", _) => {
            let webhooks = |of: &Value| count(&of["webhooks"]).into();
            vec![computed("Webhooks", "integer", webhooks), age()]
        }
        ("apiregistration.k8s.io", _) => vec![
            computed("Service", "string", api_service),
            path("Available", r#".status.conditions[?(@.type=="Available")].status"#),
            age(),
        ],
        _ => vec![age()],
    }
}

/// What custom resources without columns of their own have.
pub fn age() -> Column {
    let cell = |object: &Value| {
        age::since(&object["metadata"]["creationTimestamp"], OffsetDateTime::now_utc()).into()
    };
    computed("Age", "string", cell)
}

fn computed(name: &str, kind: &str, cell: fn(&Value) -> Value) -> Column {
    Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        priority: 0,
        description: String::new(),
        cell: Cell::Computed(cell),
    }
}

fn path(name: &str, text: &str) -> Column {
    Column { cell: Cell::Path(parsed(text)), ..computed(name, "string", |_| Value::Null) }
}

fn number(name: &str, text: &str) -> Column {
    Column { cell: Cell::Count(parsed(text)), ..computed(name, "integer", |_| Value::Null) }
}

fn parsed(text: &str) -> Path {
    Path::parse(text).expect("the paths of this file are well formed, see its test")
}

fn wide(column: Column) -> Column {
    Column { priority: 1, ..column }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        _ => 0,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn or_none(value: &Value) -> Value {
    match value.as_str() {
        Some(text) if !text.is_empty() => text.into(),
        _ => "<none>".into(),
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The texts of a list with commas, `<none>`, or three of them and how many more.
fn joined(list: &Value, of: impl Fn(&Value) -> String) -> Value {
    let texts: Vec<_> = items(list).iter().map(of).filter(|text| !text.is_empty()).collect();
    match &texts[..] {
        [] => "<none>".into(),
        [a, b, c, more @ ..] if !more.is_empty() => {
            format!("{a},{b},{c} + {} more...", more.len()).into()
        }
        few => few.join(",").into(),
    }
}

fn labels(map: &Value) -> Value {
    let pairs: Vec<_> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",").into() }
}

fn data(map: &Value) -> Value {
    (count(&map["data"]) + count(&map["binaryData"])).to_string().into()
}

fn data_count(secret: &Value) -> Value {
    count(&secret["data"]).into()
}

fn endpoints(of: &Value) -> Value {
    let mut addresses = Vec::new();
    for subset in items(&of["subsets"]) {
        for address in items(&subset["addresses"]) {
            for port in items(&subset["ports"]) {
                let address = format!("{}:{}", text(&address["ip"]), text(&port["port"]));
                addresses.push(Value::String(address));
            }
        }
    }
    joined(&addresses.into(), text)
}

fn last_seen(event: &Value) -> Value {
    let times = ["lastTimestamp", "deprecatedLastTimestamp", "eventTime"];
    let moment = times.iter().map(|field| &event[field]).find(|moment| moment.is_string());
    let moment = moment.unwrap_or(&event["metadata"]["creationTimestamp"]);
    age::since(moment, OffsetDateTime::now_utc()).into()
}

fn event_object(event: &Value) -> Value {
    let of =
        if event["regarding"].is_null() { &event["involvedObject"] } else { &event["regarding"] };
    format!("{}/{}", text(&of["kind"]).to_lowercase(), text(&of["name"])).into()
}

fn event_message(event: &Value) -> Value {
    let message = if event["note"].is_null() { &event["message"] } else { &event["note"] };
    text(message).trim().into()
}

fn condition<'v>(object: &'v Value, kind: &str) -> Option<&'v str> {
    let mut of_kind =
        items(&object["status"]["conditions"]).iter().filter(|one| one["type"] == kind);
    of_kind.next()?["status"].as_str()
}

fn node_status(node: &Value) -> Value {
    let ready = match condition(node, "Ready") {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    match node["spec"]["unschedulable"].as_bool() {
        Some(true) => format!("{ready},SchedulingDisabled").into(),
        _ => ready.into(),
    }
}

fn node_roles(node: &Value) -> Value {
    let labels = node["metadata"]["labels"].as_object();
    let roles: Vec<_> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    if roles.is_empty() { "<none>".into() } else { roles.join(",").into() }
}

fn node_address(node: &Value) -> Value {
    let mut internal =
        items(&node["status"]["addresses"]).iter().filter(|one| one["type"] == "InternalIP");
    internal.next().map_or("<none>".into(), |address| address["address"].clone())
}

fn pod_ready(pod: &Value) -> Value {
    let ready =
        items(&pod["status"]["containerStatuses"]).iter().filter(|one| one["ready"] == true);
    format!("{}/{}", ready.count(), count(&pod["spec"]["containers"])).into()
}

fn pod_status(pod: &Value) -> Value {
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return "Terminating".into();
    }
    match pod["status"]["reason"].as_str() {
        Some(reason) => reason.into(),
        None => pod["status"]["phase"].clone(),
    }
}

fn pod_restarts(pod: &Value) -> Value {
    let counts = items(&pod["status"]["containerStatuses"]).iter();
    let sum: u64 = counts.filter_map(|one| one["restartCount"].as_u64()).sum();
    sum.to_string().into()
}

fn external_ip(service: &Value) -> Value {
    let spec = &service["spec"];
    match spec["type"].as_str() {
        Some("ExternalName") => or_none(&spec["externalName"]),
        Some("LoadBalancer") => {
            match joined(&service["status"]["loadBalancer"]["ingress"], |one| text(&one["ip"])) {
                none if none == "<none>" => "<pending>".into(),
                some => some,
            }
        }
        _ => joined(&spec["externalIPs"], text),
    }
}

fn ports(service: &Value) -> Value {
    let texts: Vec<_> = items(&service["spec"]["ports"])
        .iter()
        .map(|port| {
            let number = text(&port["port"]);
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            match port["nodePort"].as_u64() {
                Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
                _ => format!("{number}/{protocol}"),
            }
        })
        .collect();
    if texts.is_empty() { "<none>".into() } else { texts.join(",").into() }
}

fn ready_replicas(of: &Value) -> Value {
    let ready = of["status"]["readyReplicas"].as_u64().unwrap_or(0);
    format!("{ready}/{}", of["spec"]["replicas"].as_u64().unwrap_or(0)).into()
}

fn completions(job: &Value) -> Value {
    let done = job["status"]["succeeded"].as_u64().unwrap_or(0);
    format!("{done}/{}", job["spec"]["completions"].as_u64().unwrap_or(1)).into()
}

fn role(binding: &Value) -> Value {
    let role = &binding["roleRef"];
    format!("{}/{}", text(&role["kind"]), text(&role["name"])).into()
}

fn api_service(of: &Value) -> Value {
    match &of["spec"]["service"] {
        Value::Object(service) => {
            json!(format!("{}/{}", text(&service["namespace"]), text(&service["name"])))
        }
        _ => "Local".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(group: &str, kind: &str, object: &Value) -> Vec<Value> {
        columns(group, kind).iter().map(|column| column.value(object)).collect()
    }

    #[test]
    fn every_kind_has_columns_also_for_an_empty_object() {
        for resource in crate::builtin::resources() {
            for column in &resource.columns {
                column.value(&json!({}));
            }
        }
    }

    #[test]
    fn a_pod_and_a_service() {
        let pod = json!({
            "metadata": {},
            "spec": { "nodeName": "node-1", "containers": [{}, {}] },
            "status": { "phase": "Running", "containerStatuses": [{ "ready": true, "restartCount": 2 }] },
        });
        let of_pod = cells("", "Pod", &pod);
        assert_eq!(of_pod[..3], ["1/2", "Running", "2"]);
        assert_eq!(of_pod[4..6], ["<none>", "node-1"]);
        let service = json!({ "spec": {
            "type": "ClusterIP", "clusterIP": "10.96.0.1",
            "ports": [{ "port": 80 }, { "port": 53, "protocol": "UDP", "nodePort": 30053 }],
        } });
        let of_service = cells("", "Service", &service);
        assert_eq!(of_service[..4], ["ClusterIP", "10.96.0.1", "<none>", "80/TCP,53:30053/UDP"]);
    }
}
