//! What is applied to a cluster: the files of deploy/, which this program carries.

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde_json::Value;

/// The image that the files name, which other builds and registries call otherwise.
pub const IMAGE: &str = concat!("nodemesh:", env!("CARGO_PKG_VERSION"));

/// The files, in the order in which they are applied.
const FILES: [&str; 8] = [
    include_str!("../../deploy/base/namespace.yaml"),
    include_str!("../../deploy/crds/authorizationpolicies.nodemesh.dev.yaml"),
    include_str!("../../deploy/crds/meshconfigs.nodemesh.dev.yaml"),
    include_str!("../../deploy/crds/peerpolicies.nodemesh.dev.yaml"),
    include_str!("../../deploy/base/rbac-controller.yaml"),
    include_str!("../../deploy/base/rbac-agent.yaml"),
    include_str!("../../deploy/base/controller.yaml"),
    include_str!("../../deploy/base/agent.yaml"),
];
const SECURE: &str = include_str!("../../deploy/overlays/secure/mesh-config.yaml");

/// How the mesh begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Plaintext is let in, and what no policy governs is allowed.
    #[default]
    Default,
    /// Plaintext is refused, and what no policy allows is refused.
    Secure,
}

/// The manifests as files have them, comments and all.
///
/// # Errors
/// Where `image` is no name of an image.
pub fn text(profile: Profile, image: &str) -> anyhow::Result<String> {
    // It stands in YAML as it is.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/:@".contains(&byte);
    ensure!(
        !image.is_empty() && image.bytes().all(plain),
        "--image {image}: no name of an image such as registry.example/nodemesh:1.0"
    );
    let secure = (profile == Profile::Secure).then_some(SECURE);
    let files: Vec<&str> = FILES.into_iter().chain(secure).collect();
    Ok(files.join("---\n").replace(&format!("image: {IMAGE}"), &format!("image: {image}")))
}

/// An object of the manifests.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The object.
    pub object: Value,
}

/// The manifests as objects, in the order in which they are applied.
///
/// # Errors
/// Where `image` is no name of an image.
pub fn objects(profile: Profile, image: &str) -> anyhow::Result<Vec<Manifest>> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text(profile, image)?)
        .context("the manifests are no YAML, which tests rule out")?;
    Ok(objects.into_iter().map(|object| Manifest { object }).collect())
}

impl Manifest {
    /// `kind:`.
    pub fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// The namespace that it lives in.
    pub fn namespace(&self) -> Option<&str> {
        self.object["metadata"]["namespace"].as_str()
    }

    /// The API group; empty for the core.
    pub fn group(&self) -> &str {
        self.object["apiVersion"]
            .as_str()
            .unwrap_or_default()
            .rsplit_once('/')
            .map_or("", |it| it.0)
    }

    /// The kind as paths and RBAC have it.
    pub fn plural(&self) -> String {
        let kind = self.kind().to_lowercase();
        // English is all that the kinds of Kubernetes follow here.
        match kind.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None => format!("{kind}s"),
        }
    }

    /// Whether it defines one of nodemesh's own kinds.
    pub fn is_definition(&self) -> bool {
        self.kind() == "CustomResourceDefinition"
    }

    /// Whether it is what the agents are made from.
    pub fn is_agents(&self) -> bool {
        self.kind() == "DaemonSet"
    }

    /// Whether it is of one of nodemesh's own kinds.
    pub fn is_of_own_kind(&self) -> bool {
        self.object["apiVersion"] == mesh_common::API_VERSION
    }

    /// Where it is.
    pub fn path(&self) -> String {
        let version = self.object["apiVersion"].as_str().unwrap_or_default();
        let root = if self.group().is_empty() { "/api" } else { "/apis" };
        let namespace = self.namespace().map(|it| format!("/namespaces/{it}")).unwrap_or_default();
        format!("{root}/{version}{namespace}/{}/{}", self.plural(), self.name())
    }

    /// For people: `Deployment nodemesh-system/nodemesh-controller`.
    pub fn title(&self) -> String {
        match self.namespace() {
            Some(namespace) => format!("{} {namespace}/{}", self.kind(), self.name()),
            None => format!("{} {}", self.kind(), self.name()),
        }
    }
}

#[cfg(test)]
mod tests;
