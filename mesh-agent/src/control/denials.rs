//! Has the kernel forget refusals whenever the snapshot changes.

use std::sync::Arc;

use tokio::sync::watch;

use crate::denials::Denials;

/// Follows the changes of a snapshot for as long as the process lives.
pub async fn follow(mut changed: watch::Receiver<u64>, denials: Arc<Denials>) {
    while changed.changed().await.is_ok() {
        denials.flush();
    }
}
