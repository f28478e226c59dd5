//! HTTP/1.1 connections of one worker that wait for their next request.
//!
//! As a tunnel does, a connection belongs to one source pod: its source address, the NetworkPolicies
//! that let it pass and its lifetime are the pod's.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mesh_common::identity::SpiffeId;

use super::upstream1::Upstream1;
use crate::proxy::LOCK;

/// How long a connection may wait. Less than the 5 s after which Node.js closes it, the shortest of
/// the common servers' defaults: whoever uses a connection just when the server closes it fails.
const IDLE: Duration = Duration::from_secs(4);
/// How many may wait for one destination: more than a burst leaves behind is waste.
const WAITING: usize = 256;

/// What requests have in common that may share a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::proxy) struct Key {
    /// The uid of the pod that calls.
    pub(in crate::proxy) source: Arc<str>,
    /// As whom it calls: a pod may be captured anew as another account.
    pub(in crate::proxy) identity: SpiffeId,
    /// The endpoint.
    pub(in crate::proxy) address: SocketAddr,
    pub(in crate::proxy) reach: Reach,
}

/// How a connection came about; one that came about otherwise proves something else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::proxy) enum Reach {
    Passthrough,
    /// To the pod of this node with this uid.
    SameNode(Arc<str>),
    /// Through a tunnel to the pod with this uid, by this generation of the trust bundle.
    Tunnel(Arc<str>, u64),
}

/// The connections.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "each request moves one out and in, and they are large")]
pub(in crate::proxy) struct Pool {
    idle: Mutex<HashMap<Key, Vec<Box<Upstream1>>>>,
}

impl Pool {
    /// How often [`sweep`](Self::sweep) wants to be called.
    pub(in crate::proxy) const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

    /// The connection that waits for the shortest time, if there is one that is good.
    pub(super) fn take(&self, key: &Key) -> Option<Box<Upstream1>> {
        let mut idle = self.idle.lock().expect(LOCK);
        let waiting = idle.get_mut(key)?;
        loop {
            let mut upstream = waiting.pop()?;
            if upstream.is_good() {
                upstream.is_reused = true;
                return Some(upstream);
            }
        }
    }

    /// Keeps `upstream` for the next request, if it is good.
    pub(super) fn put(&self, key: Key, mut upstream: Box<Upstream1>) {
        if !upstream.is_good() {
            return;
        }
        upstream.idle_since = Instant::now();
        let mut idle = self.idle.lock().expect(LOCK);
        let waiting = idle.entry(key).or_default();
        if waiting.len() < WAITING {
            waiting.push(upstream);
        }
    }

    /// Closes what waited for long, was closed by its server, or lost its right.
    pub(in crate::proxy) fn sweep(&self) {
        self.idle.lock().expect(LOCK).retain(|_, waiting| {
            waiting.retain_mut(|it| it.idle_since.elapsed() < IDLE && it.is_good());
            !waiting.is_empty()
        });
    }

    /// Closes the connections of a pod.
    pub(in crate::proxy) fn close_of(&self, source: &str) {
        self.idle.lock().expect(LOCK).retain(|key, _| *key.source != *source);
    }
}
