//! Which addresses the pods of this node call, and whether the snapshot has all there is about them.
//!
//! The controller sends what has an address only once a pod called it. Until its answer is in the
//! snapshot, that nothing is known of an address means nothing: the first connection waits, since
//! plaintext to a pod of the mesh would be wrong. Every connection of a burst waits for the same
//! answer, and an answer that nothing has the address is kept like any other: the address stays of
//! interest, so the controller tells when something gets it.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use mesh_common::api::{self, MOST_INTEREST, v1};
use tokio::sync::{Notify, watch};

/// How long a connection waits for the controller's answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// An outage that is older is no matter of waiting: a controller that is replaced is found again
/// well before.
const OUTAGE: Duration = Duration::from_secs(2);
/// How long an address stays of interest after the last connection to it.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// Where there are too many addresses, one of so many goes, those that were not called for longest.
const EVICTED: usize = 8;

/// What connections ask, and the stream to the controller passes on.
#[derive(Debug)]
pub struct Interest {
    started: Instant,
    addresses: RwLock<Addresses>,
    reply: watch::Sender<Reply>,
    news: Notify,
}

#[derive(Debug)]
struct Addresses {
    called: HashMap<IpAddr, Called>,
    /// The number of the next message.
    next: u64,
    /// What the next message says.
    added: BTreeSet<IpAddr>,
    removed: BTreeSet<IpAddr>,
}

#[derive(Debug)]
struct Called {
    /// The message that asks for it; 0 where the answer was on disk.
    asked: u64,
    /// Milliseconds from the start to the last connection.
    used: AtomicU64,
}

/// How far the controller has answered.
#[derive(Clone, Copy, Debug)]
struct Reply {
    answered: u64,
    /// It sends the whole mesh: there is nothing to ask.
    whole: bool,
    /// Since when there is no controller.
    away: Option<Instant>,
}

impl Reply {
    fn covers(&self, asked: u64) -> bool {
        self.whole || asked <= self.answered
    }
}

impl Default for Interest {
    fn default() -> Self {
        let started = Instant::now();
        let (called, added, removed) = Default::default();
        Self {
            started,
            addresses: Addresses { called, next: 1, added, removed }.into(),
            reply: watch::Sender::new(Reply { answered: 0, whole: false, away: Some(started) }),
            news: Notify::new(),
        }
    }
}

impl Interest {
    /// Notes that a pod calls `address`, and waits until the snapshot has all there is about it;
    /// `false` where the controller did not answer in time, or is away.
    pub async fn ask(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if self.reply.borrow().covers(self.note(address)) {
            return true;
        }
        if self.reply.borrow().away.is_some_and(|since| since.elapsed() > OUTAGE) {
            return false;
        }
        tokio::time::timeout(PATIENCE, self.answered(address)).await.is_ok()
    }

    async fn answered(&self, address: IpAddr) {
        let mut replies = self.reply.subscribe();
        loop {
            // Anew after each reply: to make room the address may have been given up unasked.
            let asked = self.note(address);
            if replies.borrow_and_update().covers(asked) {
                return;
            }
            // The sender is in `self`.
            let _ = replies.changed().await;
        }
    }

    /// Everything that is of interest, for the first message of a stream.
    pub fn hello(&self) -> v1::Interest {
        let mut addresses = self.write();
        addresses.added = addresses.called.keys().copied().collect();
        addresses.removed.clear();
        addresses.message()
    }

    /// What changed since the last message, if anything did.
    pub fn changes(&self) -> Option<v1::Interest> {
        let mut addresses = self.write();
        let is_news = !addresses.added.is_empty() || !addresses.removed.is_empty();
        is_news.then(|| addresses.message())
    }

    /// Ends when there may be [`changes`](Self::changes).
    pub async fn changed(&self) {
        self.news.notified().await;
    }

    /// The snapshot has the answer to message `number` and all before; `synced` where that is all
    /// the controller had to say, and 0 where it sends the whole mesh.
    pub fn answer(&self, number: u64, synced: bool) {
        self.reply.send_modify(|reply| {
            reply.answered = reply.answered.max(number);
            if synced {
                reply.away = None;
                reply.whole = number == 0;
            }
        });
    }

    /// There is no controller.
    pub fn away(&self) {
        self.reply.send_modify(|reply| {
            reply.away.get_or_insert_with(Instant::now);
        });
    }

    /// Gives up addresses that were not called for long. Not while the controller is away: what it
    /// sent stays in use then, and so does that nothing has an address.
    pub fn expire(&self, now: Instant) {
        let since = self.since_start(now).checked_sub(IDLE.as_millis() as u64);
        let Some(since) = since.filter(|_| self.reply.borrow().away.is_none()) else { return };
        self.write().give_up(since);
        self.news.notify_one();
    }

    /// The addresses that the snapshot has everything about, as they are stored with it. Taken
    /// before the resources are.
    pub fn stored(&self) -> Vec<bytes::Bytes> {
        let reply = *self.reply.borrow();
        let addresses = self.read();
        let known = addresses.called.iter().filter(|(_, called)| reply.covers(called.asked));
        known.map(|(address, _)| api::octets(*address)).collect()
    }

    /// Takes over what was stored with the snapshot.
    pub fn restore(&self, stored: &[bytes::Bytes]) {
        let known = stored.iter().filter_map(|octets| api::address(octets).ok());
        let known = known.map(|it| (it, Called { asked: 0, used: AtomicU64::new(0) }));
        self.write().called.extend(known.take(MOST_INTEREST));
    }

    /// The message that asks for `address`.
    fn note(&self, address: IpAddr) -> u64 {
        let now = self.since_start(Instant::now());
        if let Some(called) = self.read().called.get(&address) {
            called.used.fetch_max(now, Ordering::Relaxed);
            return called.asked;
        }
        let mut addresses = self.write();
        if addresses.called.len() >= MOST_INTEREST {
            addresses.make_room();
        }
        let Addresses { called, next, added, removed } = &mut *addresses;
        let called = called.entry(address).or_insert_with(|| {
            removed.remove(&address);
            added.insert(address);
            Called { asked: *next, used: AtomicU64::new(now) }
        });
        let asked = called.asked;
        drop(addresses);
        self.news.notify_one();
        asked
    }

    fn since_start(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64
    }

    fn read(&self) -> RwLockReadGuard<'_, Addresses> {
        self.addresses.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Addresses> {
        self.addresses.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Addresses {
    fn message(&mut self) -> v1::Interest {
        let number = self.next;
        self.next += 1;
        let octets = |addresses: BTreeSet<IpAddr>| addresses.into_iter().map(api::octets).collect();
        v1::Interest {
            number,
            removed: octets(std::mem::take(&mut self.removed)),
            added: octets(std::mem::take(&mut self.added)),
        }
    }

    /// Gives up what was last called at `last` or before.
    fn give_up(&mut self, last: u64) {
        let Self { called, added, removed, .. } = self;
        called.retain(|address, called| {
            let stays = *called.used.get_mut() > last;
            if !stays {
                added.remove(address);
                removed.insert(*address);
            }
            stays
        });
    }

    fn make_room(&mut self) {
        let mut used: Vec<u64> =
            self.called.values_mut().map(|called| *called.used.get_mut()).collect();
        let (_, last, _) = used.select_nth_unstable(MOST_INTEREST / EVICTED);
        let last = *last;
        self.give_up(last);
    }
}

#[cfg(test)]
mod tests;
