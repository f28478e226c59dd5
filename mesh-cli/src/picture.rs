//! A cluster's objects, compiled as the controller compiles them.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use mesh_common::{
    SYSTEM_NAMESPACE,
    identity::TrustDomain,
    model::{Action, NamespacedName, PeerMode},
};
use mesh_controller::{
    captured::{Captures, Report},
    compile::{Compiled, compile},
    index::Index,
    kubernetes::{Resource, captures, watch::Change},
    object::{Kind, MeshConfig, Object, ObjectKey},
    source::{
        Objects,
        cluster::{Store, decode},
    },
};
use serde_json::Value;

use crate::{cluster::Cluster, container, rollout::Component};

/// What is wanted of the mesh and who is there.
#[derive(Clone, Debug)]
pub struct Picture {
    objects: Objects,
    captures: Captures,
    domain: TrustDomain,
}

impl Picture {
    /// The picture of a cluster.
    ///
    /// # Errors
    /// Where the cluster refuses, or is not reached.
    pub async fn of(cluster: &Cluster) -> Result<Self> {
        let mut store = Store::default();
        for kind in Kind::ALL {
            let objects = listed(cluster, kind).await?;
            let objects = objects.into_iter().map(|object| decode(kind, object)).collect();
            store.apply(kind, Change::Listed(objects));
        }
        let objects = store.objects().context("every kind was listed")?;
        for refusal in &objects.refusals {
            eprintln!("nodemesh: left out: {refusal}");
        }
        let controller = cluster.get(&Component::Controller.path()).await?.unwrap_or_default();
        let domain = trust_domain(&controller)?;
        Ok(Self { objects, captures: captured(cluster).await, domain })
    }

    /// A picture of these objects, of which none is captured.
    #[cfg(test)]
    pub fn of_objects(objects: Objects) -> Self {
        let domain = TrustDomain::DEFAULT.parse().expect("a literal");
        Self { objects, captures: Captures::default(), domain }
    }

    /// What the controller makes of it.
    pub fn compiled(&self) -> Compiled {
        compile(&self.index(), &self.captures, &self.domain)
    }

    /// What it would make of it, were the MeshConfig that of a strict mesh.
    pub fn compiled_strictly(&self) -> Compiled {
        let strict = MeshConfig {
            default_action: Action::Deny,
            peer_mode: PeerMode::Strict,
            generation: None,
        };
        let mut index = self.index();
        index.config = Some(&strict);
        compile(&index, &self.captures, &self.domain)
    }

    /// The MeshConfig, where there is one.
    pub fn config(&self) -> Option<&MeshConfig> {
        self.index().config
    }

    /// The object of `kind` with this name, where it is in use.
    pub fn object(&self, kind: Kind, name: &NamespacedName) -> Option<&Object> {
        let key = ObjectKey { kind, name: name.clone() };
        self.objects.in_use.get(&key).map(|(object, _)| &**object)
    }

    /// The trust domain of every identity.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    fn index(&self) -> Index<'_> {
        self.objects.in_use.values().map(|(object, _)| object).collect()
    }
}

/// What the controller makes of the cluster.
///
/// # Errors
/// Where the cluster refuses, or is not reached.
pub async fn compiled(cluster: &Cluster) -> Result<Compiled> {
    Ok(Picture::of(cluster).await?.compiled())
}

/// The objects of `kind` in the newest version that the cluster has.
async fn listed(cluster: &Cluster, kind: Kind) -> Result<Vec<Value>> {
    for path in Resource::of(kind).paths() {
        let objects = cluster.list(path).await?;
        if !objects.is_empty() {
            return Ok(objects);
        }
    }
    Ok(Vec::new())
}

/// What each node's agent said last.
async fn reports(cluster: &Cluster) -> Result<Vec<(String, Report)>> {
    let maps = cluster.list(&format!("/api/v1/namespaces/{SYSTEM_NAMESPACE}/configmaps")).await?;
    Ok(maps.into_iter().filter_map(captures::report).collect())
}

/// The nodes of which an agent has said anything, wherever agents run today.
///
/// # Errors
/// Where the cluster refuses, or is not reached.
pub async fn nodes_with_agents(cluster: &Cluster) -> Result<BTreeSet<String>> {
    Ok(reports(cluster).await?.into_iter().map(|(node, _)| node).collect())
}

/// What agents said that they captured; nothing where that may not be read.
async fn captured(cluster: &Cluster) -> Captures {
    let mut captures = Captures::default();
    match reports(cluster).await {
        Ok(reports) => {
            for (node, report) in reports {
                captures.report(&node, report);
            }
        }
        Err(error) => eprintln!("nodemesh: which pods are captured is not known: {error:#}"),
    }
    captures
}

/// The trust domain that the controller was told.
fn trust_domain(controller: &Value) -> Result<TrustDomain> {
    const FLAG: &str = "--trust-domain";
    let container = &controller["spec"]["template"]["spec"]["containers"][0];
    let domain = container::flag(container, FLAG).unwrap_or(TrustDomain::DEFAULT);
    domain.parse().with_context(|| format!("the controller's {FLAG} {domain}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_trust_domain_is_the_controllers() {
        let domain = |args: &[&str]| {
            let containers = json!([{ "command": ["/mesh-controller"], "args": args }]);
            let spec = json!({ "spec": { "template": { "spec": { "containers": containers } } } });
            trust_domain(&spec).map(|it| it.to_string())
        };
        assert_eq!(domain(&["serve"]).expect("one"), TrustDomain::DEFAULT);
        assert_eq!(domain(&["serve", "--trust-domain=a.example"]).expect("one"), "a.example");
        assert_eq!(domain(&["serve", "--trust-domain", "a.example"]).expect("one"), "a.example");
        domain(&["--trust-domain=NOT A DOMAIN"]).expect_err("no domain");
    }
}
