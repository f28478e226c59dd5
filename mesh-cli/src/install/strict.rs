//! Whether a mesh that lets callers in can be made strict.

use anyhow::{Context, bail};
use mesh_common::model::{Action, PeerMode};
use mesh_controller::object::MeshConfig;

use crate::{
    check::breakage,
    checklist::{Checklist, Outcome},
    cluster::Cluster,
    output::{self, Palette},
    picture::Picture,
};

/// Looks who would be refused by what `--profile secure` says, as `nodemesh check` does.
///
/// # Errors
/// Where somebody would be, which is printed, or where it cannot be said.
pub async fn stands(cluster: &Cluster) -> anyhow::Result<()> {
    const OTHERWISE: &str = "--yes goes on all the same";
    let picture = Picture::of(cluster)
        .await
        .with_context(|| format!("whom a strict mesh would refuse is not known; {OTHERWISE}"))?;
    // Where it is so already, nothing changes for anybody.
    let is_strict = |config: &MeshConfig| {
        (config.peer_mode, config.default_action) == (PeerMode::Strict, Action::Deny)
    };
    if picture.config().is_some_and(is_strict) {
        return Ok(());
    }
    let mut list = Checklist::default();
    let (now, strict) = (picture.compiled(), picture.compiled_strictly());
    breakage::callers(cluster, &now, &strict, &mut list).await;
    let count = list.count(Outcome::Bad) + list.count(Outcome::Warning);
    if count == 0 {
        return Ok(());
    }
    output::print(&list.text(Palette::detect()))?;
    bail!(
        "nothing was changed: a strict mesh would not stand what is said above, {count} in all; \
         do what it says, or {OTHERWISE}"
    )
}
