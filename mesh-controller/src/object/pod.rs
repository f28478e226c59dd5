//! Pods.

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::core::v1;
use mesh_common::model::NamespacedName;

use super::{FieldError, Labels, Obstacle, addresses, fields, probes};

/// A Pod: where it runs and who it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Namespace and name.
    pub name: NamespacedName,
    /// `metadata.uid`, or `namespace/name` where a file has none.
    pub uid: Arc<str>,
    /// The uid by which its node knows it: `uid`, but of a static pod the hash of its manifest.
    pub node_uid: Arc<str>,
    /// When it was made, seconds since the Unix epoch, where known.
    pub created: Option<i64>,
    /// Its labels.
    pub labels: Labels,
    /// `spec.nodeName`.
    pub node: Option<Arc<str>>,
    /// `spec.serviceAccountName`, or `default`.
    pub service_account: Arc<str>,
    /// Its addresses, each family at most once, the first one preferred.
    pub addresses: Vec<IpAddr>,
    /// Whether it uses its node's network namespace.
    pub host_network: bool,
    /// Ports that its probes and lifecycle hooks name, sorted.
    pub probe_ports: Vec<u16>,
    /// The TCP ports that its containers declare.
    pub ports: Vec<ContainerPort>,
    /// Whether it has run to its end, so that its address may be another's by now.
    pub finished: bool,
    /// Whether something else than an agent of ours says that it takes HBONE on port 15008.
    pub speaks_hbone: bool,
    /// Whether it is being deleted: another pod with its address has it.
    pub deleting: bool,
    /// Why it cannot be in the mesh, where it shows that itself.
    pub obstacle: Option<Obstacle>,
    /// The RuntimeClass that it names, which decides over that, too.
    pub runtime_class: Option<Box<str>>,
}

/// A port that a container declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// Its number.
    pub number: u16,
    /// What Services may call it.
    pub name: Option<Box<str>>,
}

/// What Istio's CNI plugin writes on a pod whose traffic it has led to the node's ztunnel.
const AMBIENT_REDIRECTION: (&str, &str) = ("ambient.istio.io/redirection", "enabled");
/// What a pod says of itself that takes HBONE without Istio's help. Istio's control plane tells
/// peers by the same two (`setTunnelProtocol` in its `ambient/workloads.go`).
const TUNNEL: (&str, &str) = ("networking.istio.io/tunnel", "http");

impl TryFrom<v1::Pod> for Pod {
    type Error = FieldError;

    fn try_from(pod: v1::Pod) -> Result<Self, FieldError> {
        let name = fields::named(&pod.metadata)?;
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let probe_ports = probes::ports(&spec);
        let ports = container_ports(&spec);
        let obstacle = Obstacle::of(&pod.metadata, &spec);
        let account = spec.service_account_name.filter(|account| !account.is_empty());
        let account = account.as_deref().unwrap_or("default");
        let node = spec.node_name.filter(|node| !node.is_empty());
        for (field, text) in
            [("spec.serviceAccountName", Some(account)), ("spec.nodeName", node.as_deref())]
        {
            if let Some(text) = text.filter(|text| !fields::is_name(text)) {
                return Err(FieldError::new(field, format!("`{text}` is no Kubernetes name")));
            }
        }
        let labels = pod.metadata.labels.unwrap_or_default();
        let annotations = pod.metadata.annotations.unwrap_or_default();
        let uid: Arc<str> = match pod.metadata.uid {
            Some(uid) if !uid.is_empty() => uid.into(),
            _ => name.to_string().into(),
        };
        Ok(Self {
            node_uid: manifest_hash(&annotations).map_or_else(|| uid.clone(), Into::into),
            speaks_hbone: has(&annotations, AMBIENT_REDIRECTION) || has(&labels, TUNNEL),
            obstacle,
            runtime_class: spec.runtime_class_name.filter(|it| !it.is_empty()).map(Into::into),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            uid,
            name,
            created: pod.metadata.creation_timestamp.map(|time| time.0.as_second()),
            labels,
            node: node.map(Into::into),
            service_account: account.into(),
            addresses: pod_addresses(status.pod_ip.as_deref(), status.pod_ips.as_deref())?,
            host_network: spec.host_network.unwrap_or(false),
            probe_ports,
            ports,
            finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        })
    }
}

fn container_ports(spec: &v1::PodSpec) -> Vec<ContainerPort> {
    // Sidecars are initContainers.
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let ports = ports.filter(|port| fields::is_tcp(port.protocol.as_deref()));
    let ports = ports.filter_map(|port| {
        let name = port.name.as_deref().map(Into::into);
        Some(ContainerPort { number: u16::try_from(port.container_port).ok()?, name })
    });
    ports.collect()
}

/// The hash of a static pod's manifest, by which its kubelet calls its cgroups. Only that of a pod
/// which a kubelet mirrors, and which cannot be the uid that the API server gave to another pod.
fn manifest_hash(annotations: &Labels) -> Option<&str> {
    let hash = annotations.get("kubernetes.io/config.hash")?;
    let is_mirrored = annotations.contains_key("kubernetes.io/config.mirror");
    // MD5 in hexadecimal; the API server's are UUIDs with dashes.
    let is_hash = hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_mirrored && is_hash).then_some(hash)
}

fn has(of: &Labels, (key, value): (&str, &str)) -> bool {
    of.get(key).is_some_and(|said| said == value)
}

/// `podIPs` holds `podIP` as its first entry, where both are written.
fn pod_addresses(
    pod_ip: Option<&str>,
    pod_ips: Option<&[v1::PodIP]>,
) -> Result<Vec<IpAddr>, FieldError> {
    let first = pod_ip.filter(|text| !text.is_empty());
    let first = first.map(|text| fields::address("status.podIP", text)).transpose()?;
    let all = addresses(
        "status.podIPs",
        pod_ips.unwrap_or_default().iter().map(|entry| entry.ip.as_str()),
    )?;
    match (first, all.first()) {
        (Some(first), None) => Ok(vec![first]),
        (Some(first), Some(head)) if first != *head => Err(FieldError::new(
            "status.podIPs",
            format!("the first entry is {head}, but status.podIP is {first}"),
        )),
        _ => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_pod_is_known_to_its_node_by_the_hash_of_its_manifest() {
        let hash = "0f3c2d1e0f3c2d1e0f3c2d1e0f3c2d1e";
        let node_uid = |annotations: serde_json::Value| {
            let pod: v1::Pod = serde_json::from_value(serde_json::json!({
                "metadata": {"name": "a", "namespace": "b", "uid": "u1", "annotations": annotations},
            }))
            .expect("a pod");
            let pod = Pod::try_from(pod).expect("a good one");
            assert_eq!(&*pod.uid, "u1");
            pod.node_uid.to_string()
        };
        let (config, mirror) = ("kubernetes.io/config.hash", "kubernetes.io/config.mirror");
        assert_eq!(node_uid(serde_json::json!({config: hash, mirror: hash})), hash);
        // Anybody may write this one on a pod.
        assert_eq!(node_uid(serde_json::json!({config: hash})), "u1");
        let another = "0c8c1d3e-51a2-4b0e-9d6b-3f4a5b6c7d8e";
        assert_eq!(node_uid(serde_json::json!({config: another, mirror: another})), "u1");
    }
}
