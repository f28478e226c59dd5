//! A node's status as one JSON object; fields keep name and meaning.

use std::collections::BTreeMap;

use mesh_common::api::v1;
use serde::Serialize;

use crate::output::timestamp;

/// The object, without line breaks.
///
/// # Errors
/// None that could happen: every field is a text, a number or a truth.
pub fn line(status: &v1::NodeStatus) -> serde_json::Result<String> {
    let controller = status.controller.clone().unwrap_or_default();
    serde_json::to_string(&Status {
        node: &status.node,
        version: &status.version,
        controller: Controller {
            address: &controller.address,
            connected: controller.connected,
            synced: controller.synced,
            last_error: &controller.last_error,
            resources: controller.resources,
        },
        pods: status.pods.iter().map(Pod::new).collect(),
        hooks: status.hooks.iter().map(Hook::new).collect(),
        certificates: status.certificates.iter().map(Certificate::new).collect(),
        counters: status.counters.iter().map(|(name, count)| (name.as_str(), *count)).collect(),
        plaintext: Plaintext::new(status.plaintext.unwrap_or_default()),
        problems: &status.problems,
    })
}

#[derive(Serialize)]
struct Status<'a> {
    node: &'a str,
    version: &'a str,
    controller: Controller<'a>,
    pods: Vec<Pod<'a>>,
    hooks: Vec<Hook<'a>>,
    certificates: Vec<Certificate<'a>>,
    counters: BTreeMap<&'a str, u64>,
    plaintext: Plaintext,
    problems: &'a [String],
}

#[derive(Serialize)]
struct Controller<'a> {
    address: &'a str,
    connected: bool,
    synced: bool,
    last_error: &'a str,
    resources: u32,
}

#[derive(Serialize)]
struct Pod<'a> {
    name: String,
    state: &'a str,
    reason: &'a str,
    connections: u32,
    unmeshed: u32,
    plaintext: u32,
    notes: &'a [String],
}

impl<'a> Pod<'a> {
    fn new(pod: &'a v1::PodStatus) -> Self {
        let name = pod.name.as_ref();
        Self {
            name: name.map(|it| format!("{}/{}", it.namespace, it.name)).unwrap_or_default(),
            state: &pod.state,
            reason: &pod.reason,
            connections: pod.connections,
            unmeshed: pod.unmeshed,
            plaintext: pod.plaintext,
            notes: &pod.notes,
        }
    }
}

#[derive(Serialize)]
struct Hook<'a> {
    name: &'a str,
    attached: bool,
    repairs: u64,
}

impl<'a> Hook<'a> {
    fn new(hook: &'a v1::HookStatus) -> Self {
        Self { name: &hook.name, attached: hook.attached, repairs: hook.repairs }
    }
}

#[derive(Serialize)]
struct Certificate<'a> {
    identity: &'a str,
    serial: &'a str,
    not_after: String,
}

impl<'a> Certificate<'a> {
    fn new(certificate: &'a v1::CertificateStatus) -> Self {
        let seconds = u64::try_from(certificate.not_after).unwrap_or_default();
        Self {
            identity: &certificate.identity,
            serial: &certificate.serial,
            not_after: timestamp(seconds.saturating_mul(1_000_000_000)),
        }
    }
}

/// Since the agent started.
#[derive(Serialize)]
struct Plaintext {
    connections: u64,
    total: u64,
    last: Option<String>,
}

impl Plaintext {
    fn new(status: v1::PlaintextStatus) -> Self {
        let seconds = u64::try_from(status.last).ok().filter(|seconds| *seconds > 0);
        Self {
            connections: status.connections,
            total: status.total,
            last: seconds.map(|seconds| timestamp(seconds.saturating_mul(1_000_000_000))),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A status with every part.
    pub fn status() -> v1::NodeStatus {
        let pod = |name: &str, state: &str, connections, reason: &str| v1::PodStatus {
            name: Some(v1::NamespacedName { namespace: "shop".into(), name: name.into() }),
            state: state.into(),
            reason: reason.into(),
            connections,
            unmeshed: connections,
            plaintext: 2 * connections,
            notes: (0..connections).map(|_| "interface net1 is not in the mesh".into()).collect(),
        };
        let hook =
            |name: &str, attached, repairs| v1::HookStatus { name: name.into(), attached, repairs };
        v1::NodeStatus {
            node: "node-1".into(),
            version: "0.1.0".into(),
            controller: Some(v1::ControllerStatus {
                address: "https://10.0.0.1:15012".into(),
                connected: true,
                synced: true,
                last_error: String::new(),
                resources: 12,
            }),
            pods: vec![
                pod("db", "failed", 0, "port 15001 is in use"),
                pod("web", "captured", 1, ""),
            ],
            hooks: vec![hook("connect4", true, 2), hook("inbound shop/web", false, 0)],
            certificates: vec![v1::CertificateStatus {
                identity: "spiffe://cluster.local/ns/shop/sa/web".into(),
                serial: "0a1b".into(),
                not_after: 1_767_312_000,
            }],
            counters: [("captured".to_owned(), 7)].into(),
            plaintext: Some(v1::PlaintextStatus { connections: 1, total: 4, last: 1_767_312_000 }),
            problems: vec!["kernel hook inbound shop/web is not attached".into()],
        }
    }

    #[test]
    fn fields_keep_their_names() {
        assert_eq!(
            line(&status()).expect("JSON"),
            "{\"node\":\"node-1\",\"version\":\"0.1.0\",\
             \"controller\":{\"address\":\"https://10.0.0.1:15012\",\"connected\":true,\
             \"synced\":true,\"last_error\":\"\",\"resources\":12},\
             \"pods\":[{\"name\":\"shop/db\",\"state\":\"failed\",\
             \"reason\":\"port 15001 is in use\",\"connections\":0,\"unmeshed\":0,\"plaintext\":0,\
             \"notes\":[]},\
             {\"name\":\"shop/web\",\"state\":\"captured\",\"reason\":\"\",\"connections\":1,\"unmeshed\":1,\"plaintext\":2,\
             \"notes\":[\"interface net1 is not in the mesh\"]}],\
             \"hooks\":[{\"name\":\"connect4\",\"attached\":true,\"repairs\":2},\
             {\"name\":\"inbound shop/web\",\"attached\":false,\"repairs\":0}],\
             \"certificates\":[{\"identity\":\"spiffe://cluster.local/ns/shop/sa/web\",\
             \"serial\":\"0a1b\",\"not_after\":\"2026-01-02T00:00:00Z\"}],\
             \"counters\":{\"captured\":7},\
             \"plaintext\":{\"connections\":1,\"total\":4,\"last\":\"2026-01-02T00:00:00Z\"},\
             \"problems\":[\"kernel hook inbound shop/web is not attached\"]}"
        );
    }
}
