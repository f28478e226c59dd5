//! Payload of live connections: counted where it moves, and told to the metrics while it does.
//!
//! A connection counts in memory that its worker alone writes to. The worker looks at all of its
//! connections every few seconds and tells what has come since; the connection's end tells the
//! rest.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time;

use super::LOCK;
use crate::observe::{Observer, Payload, Series};

/// How late metrics may be, but for the turn of a busy worker.
const INTERVAL: Duration = Duration::from_secs(5);
/// Connections looked at before others get their turn.
const BATCH: usize = 256;

/// Bytes of one direction.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// A plain addition: nobody but the connection's own thread counts.
    pub(super) fn add(&self, bytes: usize) {
        self.0.store(self.get() + bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a connection has moved.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    counts: Arc<[Count; 2]>,
    is_swapped: bool,
}

impl Meter {
    /// Payload from the side that connected, and to it.
    pub(super) fn directions(&self) -> (&Count, &Count) {
        let [one, other] = &*self.counts;
        if self.is_swapped { (other, one) } else { (one, other) }
    }

    /// The same seen from the other side.
    pub(super) fn swapped(self) -> Self {
        Self { is_swapped: !self.is_swapped, ..self }
    }

    fn payload(&self) -> Payload {
        let (from_client, to_client) = self.directions();
        Payload { sent: from_client.get(), received: to_client.get() }
    }
}

/// The live connections of a worker.
#[derive(Debug, Default)]
pub(super) struct Meters {
    next: AtomicU64,
    live: Mutex<HashMap<u64, Live>>,
}

#[derive(Debug)]
struct Live {
    meter: Meter,
    series: Series,
    told: Payload,
}

impl Meters {
    /// Tells what a connection moves, as part of `series`, until its [`Metered`] is gone.
    pub(super) fn open(self: &Arc<Self>, series: Series) -> (Meter, Metered) {
        let meter = Meter::default();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let live = Live { meter: meter.clone(), series, told: Payload::default() };
        self.live.lock().expect(LOCK).insert(id, live);
        (meter, Metered { meters: self.clone(), id })
    }

    /// Tells `observer` for as long as the worker lives.
    pub(super) async fn follow(self: Arc<Self>, observer: Arc<Observer>) {
        let mut tick = time::interval(INTERVAL);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.tell(&observer).await;
        }
    }

    async fn tell(&self, observer: &Observer) {
        let ids: Vec<u64> = self.live.lock().expect(LOCK).keys().copied().collect();
        for batch in ids.chunks(BATCH) {
            self.tell_batch(batch, observer);
            tokio::task::yield_now().await;
        }
    }

    fn tell_batch(&self, batch: &[u64], observer: &Observer) {
        let mut live = self.live.lock().expect(LOCK);
        for id in batch {
            let Some(live) = live.get_mut(id) else { continue };
            let moved = live.meter.payload();
            let more = moved.since(live.told);
            // An idle connection keeps no series from giving way.
            if more != Payload::default() {
                observer.moved(&live.series, more);
                live.told = moved;
            }
        }
    }
}

/// A connection whose payload is told while it lives.
#[derive(Debug)]
pub(super) struct Metered {
    meters: Arc<Meters>,
    id: u64,
}

impl Metered {
    /// Tells no more; what was told.
    pub(super) fn finish(self) -> Payload {
        self.remove()
    }

    fn remove(&self) -> Payload {
        let live = self.meters.live.lock().expect(LOCK).remove(&self.id);
        live.map(|live| live.told).unwrap_or_default()
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{flow::Verdict, metrics::Metrics, tests::flow};

    /// What the metrics say was sent.
    fn sent(metrics: &Metrics) -> u64 {
        let text = metrics.encode();
        let series = text.lines().filter(|line| line.starts_with("nodemesh_sent_bytes_total{"));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_told_while_they_move_and_once() {
        let metrics = Arc::new(Metrics::new());
        let observer = Arc::new(Observer::new(4, metrics.clone()));
        let meters = Arc::new(Meters::default());
        tokio::spawn(meters.clone().follow(observer.clone()));
        let ended = flow(1);
        let series = Series::new(ended.edge(), Verdict::Forwarded);
        let (meter, metered) = meters.open(series);

        meter.directions().0.add(4);
        time::sleep(2 * INTERVAL).await;
        assert_eq!(sent(&metrics), 4);
        time::sleep(2 * INTERVAL).await;
        assert_eq!(sent(&metrics), 4, "nothing moved meanwhile");
        meter.directions().0.add(6);
        let told = metered.finish();
        assert_eq!(told, Payload { sent: 4, received: 0 });
        observer.ended_after(ended, told);
        assert_eq!(sent(&metrics), 10, "the flow's whole");
        assert!(meters.live.lock().expect(LOCK).is_empty());
    }

    #[test]
    fn the_other_side_sees_it_the_other_way_round() {
        let meter = Meter::default();
        let other = meter.clone().swapped();
        let (from_client, to_client) = other.directions();
        from_client.add(3);
        to_client.add(5);
        assert_eq!(meter.payload(), Payload { sent: 5, received: 3 });
    }
}
