//! The HTTP/2 connections of one worker: its tunnels, and those to applications.
//!
//! One belongs to one source pod, never to two of one account: its source address, the
//! NetworkPolicies that let it pass and its lifetime are the pod's. What follows speaks of tunnels.

use std::{
    collections::HashMap,
    hash::Hash,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use bytes::Bytes;
use h2::client::SendRequest;
use mesh_common::identity::SpiffeId;

use super::STREAMS_A_TUNNEL;
use crate::proxy::{LOCK, failure::Failure};

/// What connections have in common that may share a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::proxy) struct Key {
    /// The uid of the pod that calls.
    pub(in crate::proxy) source: Arc<str>,
    /// As whom it calls: a pod may be captured anew as another account.
    pub(super) identity: SpiffeId,
    /// The called pod's HBONE address.
    pub(super) destination: SocketAddr,
    /// Who must answer there.
    pub(super) expected: SpiffeId,
    /// The generation of the trust bundle that vouched for it.
    pub(super) generation: u64,
}

/// Tunnels by what they may be shared for, `K`, and what their streams are told of them, `T`.
pub(in crate::proxy) struct Pool<K, T = ()> {
    slots: Mutex<HashMap<K, Arc<Slot<T>>>>,
}

impl<K, T> Default for Pool<K, T> {
    fn default() -> Self {
        Self { slots: Mutex::default() }
    }
}

/// The tunnels of one key.
///
/// The lock is held while dialling, so that a thousand connections that start at once wait for
/// one handshake instead of making a thousand. All of them get its outcome, a failure too:
/// dialling a dead node once more for each of them would take turns of seconds.
struct Slot<T> {
    failures: AtomicUsize,
    tunnels: tokio::sync::Mutex<Tunnels<T>>,
}

struct Tunnels<T> {
    open: Vec<Tunnel<T>>,
    last_failure: Option<Failure>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        let tunnels = Tunnels { open: Vec::new(), last_failure: None };
        Self { failures: AtomicUsize::new(0), tunnels: tokio::sync::Mutex::new(tunnels) }
    }
}

/// A tunnel that was dialled.
pub(in crate::proxy) struct Dialled<T = ()> {
    pub(in crate::proxy) request: SendRequest<Bytes>,
    /// Until when its peer is vouched for, where a certificate does that.
    pub(in crate::proxy) trusted_until: Option<SystemTime>,
    pub(in crate::proxy) told: T,
}

/// A place in a tunnel.
pub(in crate::proxy) struct Acquired<T = ()> {
    pub(in crate::proxy) request: SendRequest<Bytes>,
    pub(in crate::proxy) lease: Lease,
    /// Whether the tunnel was dialled for this.
    pub(in crate::proxy) is_fresh: bool,
    pub(in crate::proxy) told: T,
}

struct Tunnel<T> {
    dialled: Dialled<T>,
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

impl<T: Clone> Tunnel<T> {
    fn new(dialled: Dialled<T>) -> Self {
        Self { dialled, streams: Arc::default(), unused: 0 }
    }

    fn lease(&mut self, is_fresh: bool) -> Acquired<T> {
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.unused = 0;
        let lease = Lease { streams: self.streams.clone() };
        let Dialled { request, told, .. } = &self.dialled;
        Acquired { request: request.clone(), lease, is_fresh, told: told.clone() }
    }

    fn has_room(&self) -> bool {
        let Dialled { request, trusted_until, .. } = &self.dialled;
        let allowed = request.current_max_send_streams().min(STREAMS_A_TUNNEL as usize);
        self.streams.load(Ordering::Relaxed) < allowed
            && trusted_until.is_none_or(|until| SystemTime::now() < until)
    }
}

impl<K: Clone + Eq + Hash, T: Clone> Pool<K, T> {
    /// A tunnel that this many sweeps in a row found unused is closed.
    const UNUSED_SWEEPS: usize = 2;

    /// A place in a tunnel, dialled by `dial` where none has room.
    pub(in crate::proxy) async fn acquire<D>(
        &self,
        key: &K,
        dial: impl FnOnce() -> D,
    ) -> Result<Acquired<T>, Failure>
    where
        D: Future<Output = Result<Dialled<T>, Failure>>,
    {
        let slot = self.slots.lock().expect(LOCK).entry(key.clone()).or_default().clone();
        let failures = slot.failures.load(Ordering::Acquire);
        let mut tunnels = slot.tunnels.lock().await;
        if let Some(tunnel) = tunnels.open.iter_mut().find(|tunnel| tunnel.has_room()) {
            return Ok(tunnel.lease(false));
        }
        if let Some(failure) = &tunnels.last_failure
            && failures != slot.failures.load(Ordering::Acquire)
        {
            return Err(failure.clone());
        }
        match dial().await {
            Ok(dialled) => {
                let mut tunnel = Tunnel::new(dialled);
                let acquired = tunnel.lease(true);
                tunnels.open.push(tunnel);
                Ok(acquired)
            }
            Err(failure) => {
                tunnels.last_failure = Some(failure.clone());
                slot.failures.fetch_add(1, Ordering::Release);
                Err(failure)
            }
        }
    }

    /// Gives no more streams to the tunnel of `lease`, which takes none.
    pub(in crate::proxy) async fn retire(&self, key: &K, lease: &Lease) {
        let slot = self.slots.lock().expect(LOCK).get(key).cloned();
        if let Some(slot) = slot {
            let mut tunnels = slot.tunnels.lock().await;
            tunnels.open.retain(|tunnel| !Arc::ptr_eq(&tunnel.streams, &lease.streams));
        }
    }

    /// Closes tunnels that carried nothing for a while.
    pub(in crate::proxy) fn close_unused(&self) {
        self.slots.lock().expect(LOCK).retain(|_, slot| {
            // A slot that is dialling is in use.
            let Ok(mut tunnels) = slot.tunnels.try_lock() else { return true };
            tunnels.open.retain_mut(|tunnel| {
                let used = tunnel.streams.load(Ordering::Relaxed) > 0;
                tunnel.unused = if used { 0 } else { tunnel.unused + 1 };
                tunnel.unused < Self::UNUSED_SWEEPS
            });
            // Somebody who holds the slot is about to look for a tunnel in it.
            !tunnels.open.is_empty() || Arc::strong_count(slot) > 1
        });
    }

    /// Closes the tunnels that `are_meant`, once their streams end.
    pub(in crate::proxy) fn close(&self, are_meant: impl Fn(&K) -> bool) {
        self.slots.lock().expect(LOCK).retain(|key, _| !are_meant(key));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn key(account: &str) -> Key {
        let identity = |account| format!("spiffe://cluster.local/ns/shop/sa/{account}");
        Key {
            source: "pod".into(),
            identity: identity(account).parse().expect("an identity"),
            destination: "10.0.0.1:15008".parse().expect("a literal"),
            expected: identity("web").parse().expect("an identity"),
            generation: 1,
        }
    }

    /// A tunnel without TCP and TLS.
    async fn tunnel(trusted_until: SystemTime) -> Result<Dialled, Failure> {
        let (near, far) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(far).await.expect("handshake");
            while connection.accept().await.is_some() {}
        });
        let (request, connection) = h2::client::handshake(near).await.expect("handshake");
        tokio::spawn(connection);
        Ok(Dialled { request, trusted_until: Some(trusted_until), told: () })
    }

    async fn is_fresh(pool: &Pool<Key>, key: &Key, life: Duration) -> bool {
        let acquired = pool.acquire(key, || tunnel(SystemTime::now() + life)).await;
        acquired.unwrap_or_else(|failure| panic!("{failure}")).is_fresh
    }

    #[tokio::test]
    async fn a_tunnel_is_shared_by_those_alone_who_have_everything_in_common() {
        let pool = Pool::default();
        let common = key("frontend");
        assert!(is_fresh(&pool, &common, LONG).await);
        let others = [
            Key { source: "another pod of the account".into(), ..common.clone() },
            Key { identity: key("batch").identity, ..common.clone() },
            Key { destination: "10.0.0.2:15008".parse().expect("a literal"), ..common.clone() },
            Key { expected: key("batch").identity, ..common.clone() },
            Key { generation: 2, ..common.clone() },
        ];
        for other in &others {
            assert!(is_fresh(&pool, other, LONG).await, "{other:?}");
        }
        for known in others.iter().chain([&common]) {
            assert!(!is_fresh(&pool, known, LONG).await, "{known:?}");
        }
    }

    #[tokio::test]
    async fn a_tunnel_whose_peer_is_vouched_for_no_longer_takes_no_more() {
        let pool = Pool::default();
        assert!(is_fresh(&pool, &key("frontend"), Duration::ZERO).await);
        assert!(is_fresh(&pool, &key("frontend"), LONG).await);
        assert!(!is_fresh(&pool, &key("frontend"), LONG).await);
    }

    #[tokio::test]
    async fn those_who_wait_for_a_dial_share_its_failure() {
        let (pool, dials) = (Pool::default(), AtomicUsize::new(0));
        let dial = async || {
            dials.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Err(Failure::NoEndpoint)
        };
        let key = key("frontend");
        let acquired =
            futures_util::future::join_all((0..100).map(|_| pool.acquire(&key, dial))).await;
        assert!(acquired.iter().all(Result::is_err));
        assert_eq!(dials.load(Ordering::Relaxed), 1);
        assert!(is_fresh(&pool, &key, LONG).await);
    }
}
