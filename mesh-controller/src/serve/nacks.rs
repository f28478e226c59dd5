//! What agents refused of what they were sent.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use mesh_common::model::ResourceKey;
use tokio::sync::Notify;

/// So many are kept; a newer agent that refuses everything would fill the memory.
const MOST: usize = 10_000;

/// Refusals by node and resource.
#[derive(Debug, Default)]
pub struct Nacks {
    by_node: Mutex<BTreeMap<(String, ResourceKey), Refused>>,
    changed: Notify,
}

/// A resource that an agent refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the agent said last.
    pub reason: String,
    /// How often it refused this resource.
    pub count: u64,
    /// The version that it refused; 0 where the resource is gone.
    pub version: u64,
}

impl Nacks {
    /// Notes a refusal; whether the reason is news.
    pub(super) fn add(&self, node: &str, key: ResourceKey, version: u64, reason: String) -> bool {
        let mut nacks = self.by_node.lock().unwrap_or_else(PoisonError::into_inner);
        self.changed.notify_one();
        let is_full = nacks.len() >= MOST;
        match nacks.get_mut(&(node.to_owned(), key.clone())) {
            Some(known) => {
                known.count += 1;
                known.version = version;
                let is_news = known.reason != reason;
                known.reason = reason;
                is_news
            }
            None if is_full => false,
            None => {
                nacks.insert((node.to_owned(), key), Refused { reason, count: 1, version });
                true
            }
        }
    }

    /// Forgets what `node` refused: its agent starts anew, and will say so again.
    pub(super) fn forget(&self, node: &str) {
        let mut nacks = self.by_node.lock().unwrap_or_else(PoisonError::into_inner);
        let before = nacks.len();
        nacks.retain(|(known, _), _| known != node);
        if nacks.len() != before {
            self.changed.notify_one();
        }
    }

    /// Ends when something changed since it last did.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Every refusal by node and resource.
    pub fn all(&self) -> BTreeMap<(String, ResourceKey), Refused> {
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
