//! The difference between what an agent holds and what its node needs: pure.

use std::{collections::BTreeMap, sync::Arc};

use mesh_common::{
    api::v1,
    model::{ResourceKey, ResourceKind},
};

use crate::view::{Encoded, View};

/// A response carries this many resources at most.
const RESPONSE_RESOURCES: usize = 1000;
/// And, but for a single larger resource, this many bytes: a quarter of what gRPC clients accept
/// unless told otherwise.
const RESPONSE_BYTES: usize = 1 << 20;

/// What an agent holds, as far as the controller knows.
#[derive(Debug, Default)]
pub struct Held {
    versions: BTreeMap<ResourceKey, u64>,
    /// Keys of kinds that this version does not know: left from a newer controller.
    unknown: Vec<v1::ResourceKey>,
}

/// One step of a delta.
enum Change {
    Updated(Arc<Encoded>),
    Removed(v1::ResourceKey),
}

impl Held {
    /// What the agent says it holds.
    pub fn from_hello(resources: Vec<v1::VersionedKey>) -> Self {
        let mut held = Self::default();
        for v1::VersionedKey { key, version } in resources {
            let Some(key) = key else { continue };
            match ResourceKey::try_from(key.clone()) {
                Ok(key) => {
                    held.versions.insert(key, version);
                }
                Err(_) => held.unknown.push(key),
            }
        }
        held
    }

    /// The responses that bring the agent from what it holds to `view`, in order; none where it is
    /// there already. Nonces are the caller's to fill in.
    ///
    /// What is referred to comes before what refers to it: a workload that names a policy which
    /// has not arrived refuses every caller.
    pub fn advance(&mut self, view: &View) -> Vec<v1::SubscribeResponse> {
        let mut changes: Vec<(ResourceKind, Change)> = Vec::new();
        for (key, encoded) in view {
            if self.versions.get(key) != Some(&encoded.version()) {
                changes.push((key.kind, Change::Updated(encoded.clone())));
                self.versions.insert(key.clone(), encoded.version());
            }
        }
        changes.sort_by_key(|(kind, _)| std::cmp::Reverse(*kind));
        let mut changes: Vec<Change> = changes.into_iter().map(|(_, change)| change).collect();
        self.versions.retain(|key, _| {
            let is_needed = view.contains_key(key);
            if !is_needed {
                changes.push(Change::Removed(key.into()));
            }
            is_needed
        });
        changes.extend(std::mem::take(&mut self.unknown).into_iter().map(Change::Removed));
        responses(changes)
    }
}

fn responses(changes: Vec<Change>) -> Vec<v1::SubscribeResponse> {
    let mut responses: Vec<v1::SubscribeResponse> = Vec::new();
    let mut current = v1::SubscribeResponse::default();
    let (mut resources, mut bytes) = (0, 0);
    for change in changes {
        let size = match &change {
            Change::Updated(encoded) => encoded.bytes,
            Change::Removed(key) => prost::Message::encoded_len(key),
        };
        if resources == RESPONSE_RESOURCES || (resources > 0 && bytes + size > RESPONSE_BYTES) {
            responses.push(std::mem::take(&mut current));
            (resources, bytes) = (0, 0);
        }
        resources += 1;
        bytes += size;
        match change {
            Change::Updated(encoded) => current.updated.push(encoded.wire.clone()),
            Change::Removed(key) => current.removed.push(key),
        }
    }
    if resources > 0 {
        responses.push(current);
    }
    responses
}

#[cfg(test)]
mod tests;
