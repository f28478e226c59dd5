//! Tells the kernel which Services nobody is ready to serve, in step with the snapshot.

use std::sync::Arc;

use crate::{capture::sockets::SocketTable, snapshot::Snapshot, status::Status};

/// Follows the snapshot for as long as the process lives.
pub async fn follow(snapshot: Arc<Snapshot>, status: Arc<Status>, sockets: Arc<SocketTable>) {
    let mut changed = snapshot.changed();
    changed.mark_changed();
    let mut is_told = false;
    while changed.changed().await.is_ok() {
        // Of half a picture nothing follows.
        if !status.is_synced() {
            continue;
        }
        let outcome = sockets.set_unserved(&snapshot.unserved());
        if let (Err(error), false) = (&outcome, is_told) {
            tracing::warn!(
                %error,
                "the kernel cannot be told of every Service without an endpoint: callers of the \
                 others are reset by the proxy; if the map is full, start the agent with a larger --max-unserved"
            );
        }
        is_told = outcome.is_err();
    }
}
