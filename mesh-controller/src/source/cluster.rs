//! Objects of a cluster, watched.
//!
//! A watcher a kind decodes each object by itself and passes it on; one task collects, and
//! publishes when things hold still for a moment, or have not for too long.

use std::time::{Duration, Instant};

use kube::Client;
use serde_json::Value;
use tokio::sync::mpsc;

use super::Objects;
use crate::{
    kubernetes::{
        ApiError, Resource,
        health::Health,
        watch::{Change, Observer, Watcher},
    },
    object::Kind,
};

mod store;

pub use store::{Served, Store, decode};

/// Changes that may wait for the collector; watchers wait beyond it, and the server with them.
const QUEUE: usize = 1024;
/// After so long without a change the objects are published.
const SETTLE: Duration = Duration::from_millis(50);
/// After so long with changes, too.
const PATIENCE: Duration = Duration::from_millis(500);

/// Watches every kind and calls `publish` with the objects: first when every kind has been listed
/// once, then after changes, until it answers `false`. `publish` may take its time: as long as it
/// took nothing is published anew, so that compiling costs half a core at most.
pub async fn watch<P>(client: Client, health: Health, mut publish: impl FnMut(Objects) -> P)
where
    P: Future<Output = bool>,
{
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    for kind in Kind::ALL {
        let resource = Resource::of(kind);
        health.expect(&resource.name);
        let (client, health, sender) = (client.clone(), health.clone(), sender.clone());
        tokio::spawn(async move {
            let observer = KindObserver { kind, name: resource.name.clone(), health, sender };
            Watcher::new(client, &resource).follow(observer).await;
        });
    }
    drop(sender);
    let mut store = Store::default();
    loop {
        let Some((kind, change)) = receiver.recv().await else { return };
        if !store.apply(kind, change) {
            continue;
        }
        let last = tokio::time::Instant::now() + PATIENCE;
        loop {
            let next = last.min(tokio::time::Instant::now() + SETTLE);
            match tokio::time::timeout_at(next, receiver.recv()).await {
                Ok(Some((kind, change))) => {
                    store.apply(kind, change);
                }
                Ok(None) => return,
                Err(_) => break,
            }
        }
        let Some(objects) = store.objects() else { continue };
        let started = Instant::now();
        if !publish(objects).await {
            return;
        }
        tokio::time::sleep(started.elapsed()).await;
    }
}

struct KindObserver {
    kind: Kind,
    name: String,
    health: Health,
    sender: mpsc::Sender<(Kind, Change<Served>)>,
}

impl Observer for KindObserver {
    type Item = Served;

    fn decode(&self, object: Value) -> Served {
        decode(self.kind, object)
    }

    async fn changed(&mut self, change: Change<Served>) -> bool {
        match &change {
            Change::Listed(objects) => self.health.listed(&self.name, objects.len()),
            Change::Applied(_) | Change::Deleted(_) => self.health.event(&self.name),
        }
        self.sender.send((self.kind, change)).await.is_ok()
    }

    fn is_well(&mut self, trouble: Option<&ApiError>) {
        // Not every cluster has the Gateway API.
        let is_optional = self.kind.is_route();
        let trouble =
            trouble.filter(|it| !(is_optional && matches!(it, ApiError::NotFound { .. })));
        self.health.is_well(&self.name, trouble);
    }
}
