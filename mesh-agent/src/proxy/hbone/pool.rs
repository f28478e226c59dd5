//! The tunnels of one worker.
//!
//! A tunnel belongs to one source pod, never to two of one account: its source address, the
//! NetworkPolicies that let it pass and its lifetime are the pod's.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::client::SendRequest;
use mesh_common::identity::SpiffeId;

use super::STREAMS_A_TUNNEL;
use crate::proxy::LOCK;

/// What connections have in common that may share a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The uid of the pod that calls.
    pub(super) source: Arc<str>,
    /// The called pod's HBONE address.
    pub(super) destination: SocketAddr,
    /// Who must answer there.
    pub(super) expected: SpiffeId,
    /// The generation of the trust bundle that vouched for it.
    pub(super) generation: u64,
}

/// Tunnels by what they may be shared for.
#[derive(Default)]
pub(in crate::proxy) struct Pool {
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
}

/// The tunnels of one key. The lock is held while dialling, so that a thousand connections that
/// start at once wait for one handshake instead of making a thousand.
#[derive(Default)]
struct Slot {
    tunnels: tokio::sync::Mutex<Vec<Tunnel>>,
}

struct Tunnel {
    request: SendRequest<Bytes>,
    streams: Arc<AtomicUsize>,
    /// How many sweeps found it without a stream.
    unused: usize,
}

/// A stream's place in its tunnel, free again when dropped.
pub(in crate::proxy) struct Lease {
    streams: Arc<AtomicUsize>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Tunnel {
    fn lease(&mut self) -> (SendRequest<Bytes>, Lease) {
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.unused = 0;
        (self.request.clone(), Lease { streams: self.streams.clone() })
    }

    fn has_room(&self) -> bool {
        let allowed = self.request.current_max_send_streams().min(STREAMS_A_TUNNEL as usize);
        self.streams.load(Ordering::Relaxed) < allowed
    }
}

impl Pool {
    /// How often unused tunnels are looked for.
    pub(in crate::proxy) const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
    /// A tunnel that this many sweeps in a row found unused is closed.
    const UNUSED_SWEEPS: usize = 2;

    /// A place in a tunnel, dialled by `dial` where none has room.
    pub(super) async fn acquire<E>(
        &self,
        key: &Key,
        dial: impl AsyncFnOnce() -> Result<SendRequest<Bytes>, E>,
    ) -> Result<(SendRequest<Bytes>, Lease), E> {
        let slot = self.slots.lock().expect(LOCK).entry(key.clone()).or_default().clone();
        let mut tunnels = slot.tunnels.lock().await;
        if let Some(tunnel) = tunnels.iter_mut().find(|tunnel| tunnel.has_room()) {
            return Ok(tunnel.lease());
        }
        let mut tunnel = Tunnel { request: dial().await?, streams: Arc::default(), unused: 0 };
        let leased = tunnel.lease();
        tunnels.push(tunnel);
        Ok(leased)
    }

    /// Gives no more streams to the tunnel of `lease`, which takes none.
    pub(super) async fn retire(&self, key: &Key, lease: &Lease) {
        let slot = self.slots.lock().expect(LOCK).get(key).cloned();
        if let Some(slot) = slot {
            let mut tunnels = slot.tunnels.lock().await;
            tunnels.retain(|tunnel| !Arc::ptr_eq(&tunnel.streams, &lease.streams));
        }
    }

    /// Closes tunnels that carried nothing for a while.
    pub(in crate::proxy) fn close_unused(&self) {
        self.slots.lock().expect(LOCK).retain(|_, slot| {
            // A slot that is dialling is in use.
            let Ok(mut tunnels) = slot.tunnels.try_lock() else { return true };
            tunnels.retain_mut(|tunnel| {
                let used = tunnel.streams.load(Ordering::Relaxed) > 0;
                tunnel.unused = if used { 0 } else { tunnel.unused + 1 };
                tunnel.unused < Self::UNUSED_SWEEPS
            });
            // Somebody who holds the slot is about to look for a tunnel in it.
            !tunnels.is_empty() || Arc::strong_count(slot) > 1
        });
    }

    /// Closes the tunnels of a pod once their streams end.
    pub(in crate::proxy) fn close_of(&self, source: &str) {
        self.slots.lock().expect(LOCK).retain(|key, _| &*key.source != source);
    }
}
