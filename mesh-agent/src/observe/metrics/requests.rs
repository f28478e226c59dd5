//! What requests count into.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{
    Flow,
    bounded::Bounded,
    labels::{RequestLabels, WayLabels},
};

/// Upper bounds in seconds: those that Prometheus' own client has by default, and two before them
/// for what stays on a node.
const BOUNDS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Requests by their outcome, and how long they took.
#[derive(Debug)]
pub(super) struct Requests {
    ended: Bounded<RequestLabels, AtomicU64>,
    took: Bounded<WayLabels, Histogram>,
}

#[derive(Debug, Default)]
struct Histogram {
    /// The last one is of those above every bound.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Requests {
    pub(super) fn new(limit: usize) -> Self {
        Self { ended: Bounded::new(limit), took: Bounded::new(limit) }
    }

    /// Counts a request that has ended.
    pub(super) fn count(&self, flow: &Flow) {
        let Some(http) = &flow.http else { return };
        let way = WayLabels::new(flow.edge(), http);
        self.took.update(way.clone(), |took| took.observe(flow.duration));
        self.ended.update(RequestLabels::new(way, http), |ended| {
            ended.fetch_add(1, Ordering::Relaxed);
        });
    }

    /// How often labels were given up for lack of space.
    pub(super) fn overflows(&self) -> u64 {
        self.ended.overflows() + self.took.overflows()
    }

    pub(super) fn encode(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        let help = "Requests that have ended, answered or not";
        self.ended.encode(encoder, "nodemesh_requests", help, |count| count)?;
        let help = "Time from a request's head to the end of its response";
        let (name, kind) = ("nodemesh_request_duration_seconds", MetricType::Histogram);
        self.took.encode_as(encoder, name, help, kind, Histogram::encode)
    }
}

impl Histogram {
    fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let at = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn encode(&self, mut metric: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<_> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.nanos.load(Ordering::Relaxed)).as_secs_f64();
        metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}
