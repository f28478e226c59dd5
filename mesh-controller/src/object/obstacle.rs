//! Why a pod cannot be in the mesh, as the pod itself and its RuntimeClass show.

use std::fmt;

use super::RuntimeClass;
use k8s_openapi::{api::core::v1::PodSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};

/// Istio's injector writes what it added.
const ISTIO_STATUS: &str = "sidecar.istio.io/status";
/// Istio's CNI agent writes that a pod is in its ambient mesh, and removes it when it no longer is.
const ISTIO_AMBIENT: &str = "ambient.istio.io/redirection";
/// Sidecars by the name of their container. As native sidecars they are initContainers.
const SIDECARS: [(&str, &str); 4] = [
    ("consul-dataplane", "Consul"),
    ("istio-proxy", "Istio"),
    ("kuma-sidecar", "Kuma"),
    ("linkerd-proxy", "Linkerd"),
];
/// Sandboxes with a network stack of their own, by what the names of their handlers contain, as the
/// projects' own instructions call them, and containerd's and CRI-O's.
const SANDBOXES: [(&str, &str); 3] = [("gvisor", "gVisor"), ("runsc", "gVisor"), ("kata", "Kata")];

/// Why a pod cannot be in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// A sidecar of another mesh captures its traffic already.
    Sidecar(&'static str),
    /// Istio's ambient mesh captures its traffic already.
    Ambient,
    /// Its sockets are not the kernel's.
    Sandbox(&'static str),
}

impl Obstacle {
    /// What keeps a pod out, if anything.
    pub(super) fn of(metadata: &ObjectMeta, spec: &PodSpec) -> Option<Self> {
        let annotation = |key: &str| metadata.annotations.as_ref()?.get(key).map(String::as_str);
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let sidecar = containers.filter_map(|container| {
            let mut known = SIDECARS.iter();
            known.find(|(name, _)| *name == container.name).map(|(_, mesh)| *mesh)
        });
        if let Some(mesh) = sidecar.min() {
            return Some(Self::Sidecar(mesh));
        }
        if annotation(ISTIO_STATUS).is_some() {
            return Some(Self::Sidecar("Istio"));
        }
        if annotation(ISTIO_AMBIENT) == Some("enabled") {
            return Some(Self::Ambient);
        }
        None
    }

    /// What keeps a pod of the RuntimeClass `name` out, if anything. Its handler says what runs it;
    /// where the class is not known, as in a folder, its name is all there is.
    pub fn of_class(name: &str, known: Option<&RuntimeClass>) -> Option<Self> {
        let sandbox = SANDBOXES.iter().find(|(part, _)| match known {
            Some(known) => known.handler.contains(part),
            None => name.starts_with(part),
        });
        sandbox.map(|(_, name)| Self::Sandbox(name))
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sidecar(mesh) => write!(
                f,
                "it carries a sidecar of {mesh}, and two meshes cannot both have its connections; \
                 create the pod anew without that sidecar"
            ),
            Self::Ambient => f.write_str(
                "it is in Istio's ambient mesh, and two meshes cannot both have its connections; \
                 remove the label istio.io/dataplane-mode from it or its namespace",
            ),
            Self::Sandbox(name) => write!(
                f,
                "it runs in {name}, whose sockets are not the node's and cannot be captured; run it \
                 with another RuntimeClass, or opt it out"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn obstacle(pod: serde_json::Value) -> Option<Obstacle> {
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).expect("a pod");
        Obstacle::of(&pod.metadata, &pod.spec.unwrap_or_default())
    }

    fn of_spec(spec: serde_json::Value) -> Option<Obstacle> {
        obstacle(serde_json::json!({"metadata": {"name": "a"}, "spec": spec}))
    }

    fn of_annotation(key: &str, value: &str) -> Option<Obstacle> {
        obstacle(serde_json::json!({
            "metadata": {"name": "a", "annotations": {key: value}},
            "spec": {"containers": [{"name": "app"}]},
        }))
    }

    #[test]
    fn other_meshes_and_sandboxes_are_told() {
        use serde_json::json;
        let app = json!({"name": "app"});
        assert_eq!(of_spec(json!({"containers": [app]})), None);
        for (name, mesh) in SIDECARS {
            let expected = Some(Obstacle::Sidecar(mesh));
            assert_eq!(of_spec(json!({"containers": [app, {"name": name}]})), expected);
            let native = json!({"name": name, "restartPolicy": "Always"});
            let spec = json!({"containers": [app], "initContainers": [native]});
            assert_eq!(of_spec(spec), expected, "a native sidecar");
        }
        assert_eq!(of_annotation(ISTIO_STATUS, "{}"), Some(Obstacle::Sidecar("Istio")));
        assert_eq!(of_annotation(ISTIO_AMBIENT, "enabled"), Some(Obstacle::Ambient));
        assert_eq!(of_annotation(ISTIO_AMBIENT, "disabled"), None);
    }

    #[test]
    fn the_handler_of_a_class_tells_a_sandbox() {
        let class = |name: &str, handler: Option<&str>| {
            let known = handler.map(|it| RuntimeClass { name: name.into(), handler: it.into() });
            Obstacle::of_class(name, known.as_ref())
        };
        let (gvisor, kata) = (Some(Obstacle::Sandbox("gVisor")), Some(Obstacle::Sandbox("Kata")));
        assert_eq!(class("secure", Some("runsc")), gvisor);
        assert_eq!(class("secure", Some("io.containerd.kata-qemu.v2")), kata);
        assert_eq!(class("secure", Some("runc")), None);
        assert_eq!(class("kata-like", Some("runc")), None, "its name is no reason");
        assert_eq!(class("kata-qemu", None), kata, "all that is known");
        assert_eq!(class("gvisor", None), gvisor);
        assert_eq!(class("secure", None), None);
    }
}
