//! What agents refused of what they were sent.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use mesh_common::model::ResourceKey;

/// So many are kept; a newer agent that refuses everything would fill the memory.
const MOST: usize = 10_000;

/// Refusals by node and resource.
#[derive(Debug, Default)]
pub struct Nacks {
    by_node: Mutex<BTreeMap<(String, ResourceKey), Refused>>,
}

/// A resource that an agent refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the agent said last.
    pub reason: String,
    /// How often it refused this resource.
    pub count: u64,
}

impl Nacks {
    /// Notes a refusal; whether the reason is news.
    pub(super) fn add(&self, node: &str, key: ResourceKey, reason: String) -> bool {
        let mut nacks = self.by_node.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = nacks.len() >= MOST;
        match nacks.get_mut(&(node.to_owned(), key.clone())) {
            Some(known) => {
                known.count += 1;
                let is_news = known.reason != reason;
                known.reason = reason;
                is_news
            }
            None if is_full => false,
            None => {
                nacks.insert((node.to_owned(), key), Refused { reason, count: 1 });
                true
            }
        }
    }

    /// Every refusal by node and resource.
    pub fn all(&self) -> BTreeMap<(String, ResourceKey), Refused> {
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
