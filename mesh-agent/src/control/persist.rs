//! Keeps the snapshot on disk, a moment after it changed.

use std::{path::PathBuf, sync::Arc, time::Duration};

use mesh_common::api::v1;

use crate::{
    snapshot::{Snapshot, disk},
    status::Status,
};

/// Changes come in bursts; one write is enough for each. A crash loses this much, which the
/// controller sends again.
const PAUSE: Duration = Duration::from_millis(500);

/// Fills `snapshot` from the file at `path`; whether anything was there. A damaged file is
/// reported and ignored.
pub fn load(snapshot: &Snapshot, path: &std::path::Path) -> bool {
    match disk::load(path) {
        Ok(stored) if stored.resources.is_empty() => false,
        Ok(stored) => {
            snapshot.interest().restore(&stored.interest);
            for nack in snapshot.apply(stored.resources, Vec::new()) {
                tracing::warn!(key = ?nack.key, nack.reason, "a stored resource is not used");
            }
            tracing::info!(resources = snapshot.len(), "read the stored snapshot");
            true
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the stored snapshot is not used");
            false
        }
    }
}

/// Writes `snapshot` to `path` after every change, once the picture is whole.
pub async fn keep(snapshot: Arc<Snapshot>, status: Arc<Status>, path: PathBuf) {
    let mut changed = snapshot.changed();
    let mut failing = false;
    while changed.changed().await.is_ok() {
        tokio::time::sleep(PAUSE).await;
        if !status.is_synced() {
            continue;
        }
        changed.mark_unchanged();
        // In this order: what is of interest is among the resources.
        let interest = snapshot.interest().stored();
        let stored = v1::StoredSnapshot { interest, resources: snapshot.resources() };
        let to = path.clone();
        let saved = tokio::task::spawn_blocking(move || disk::save(&to, &stored)).await;
        match saved {
            Ok(Ok(())) => failing = false,
            Ok(Err(error)) if !failing => {
                failing = true;
                tracing::error!(
                    path = %path.display(), %error,
                    "cannot keep the snapshot; a restart without the controller would begin with an older one"
                );
            }
            Ok(Err(_)) => {}
            Err(error) => tracing::error!(%error, "writing the snapshot was interrupted"),
        }
    }
}
