//! A cluster's objects, compiled as the controller compiles them.

use anyhow::{Context, Result};
use mesh_common::identity::TrustDomain;
use mesh_controller::{
    captured::Captures,
    compile::{Compiled, compile},
    kubernetes::{Resource, watch::Change},
    object::Kind,
    source::cluster::{Store, decode},
};

use crate::cluster::Cluster;

/// What the controller makes of the cluster; which pods are captured is not known here.
///
/// # Errors
/// Where the cluster refuses, or is not reached.
pub async fn compiled(cluster: &Cluster) -> Result<Compiled> {
    let mut store = Store::default();
    for kind in Kind::ALL {
        let objects = cluster.list(&Resource::of(kind).path).await?;
        let objects = objects.into_iter().map(|object| decode(kind, object)).collect();
        store.apply(kind, Change::Listed(objects));
    }
    let objects = store.objects().context("every kind was listed")?;
    for refusal in &objects.refusals {
        eprintln!("nodemesh: left out: {refusal}");
    }
    let index = objects.in_use.values().map(|(object, _)| object).collect();
    let domain: TrustDomain = TrustDomain::DEFAULT.parse()?;
    Ok(compile(&index, &Captures::default(), &domain))
}
