//! Metrics, in the OpenMetrics text format.
//!
//! Connections are told apart by workload, security and verdict, never by pod or path, and each
//! family is bounded. Whoever else has something to tell registers a collector.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, LabelSetEncoder, text},
    metrics::{MetricType, counter::ConstCounter, info::Info},
    registry::Registry,
};

mod bounded;
mod labels;
mod requests;

use bounded::Bounded;
use labels::{ClosedLabels, EdgeLabels};
use requests::Requests;

use super::flow::{Edge, Flow, Verdict};

/// Series a family before new label sets are counted together.
pub const SERIES_LIMIT: usize = 2000;

/// Everything that the agent counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    connections: Arc<Connections>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics that have counted nothing yet.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let connections = Arc::new(Connections::new(SERIES_LIMIT));
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("nodemesh_build", "The version of the agent", version);
        registry.register_collector(Box::new(Arc::clone(&connections)));
        Self { registry: Mutex::new(registry), connections }
    }

    /// Lets `collector` add its metrics from now on.
    pub fn register(&self, collector: impl Collector) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register_collector(Box::new(collector));
    }

    /// All metrics as text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if text::encode(&mut text, &registry).is_err() {
            tracing::error!("metrics could not be written; what follows is cut off");
        }
        text
    }

    pub(super) fn opened(&self, edge: Edge<'_>) {
        let key = EdgeLabels::from(edge);
        self.connections.opened.update(key, |opened| {
            opened.fetch_add(1, Ordering::Relaxed);
        });
    }

    /// Counts payload of a connection that goes on.
    pub(super) fn moved(&self, Series(labels): &Series, more: Payload) {
        self.connections.closed.update_more(labels, |closed| closed.count(more));
    }

    /// Counts a connection that has ended, with the payload that was not `told` before.
    pub(super) fn closed(&self, flow: &Flow, told: Payload) {
        let Series(key) = Series::new(flow.edge(), flow.verdict);
        let all = Payload { sent: flow.bytes_sent, received: flow.bytes_received };
        self.connections.closed.update(key, |closed| {
            closed.connections.fetch_add(1, Ordering::Relaxed);
            closed.count(all.since(told));
        });
    }

    pub(super) fn request(&self, flow: &Flow) {
        self.connections.requests.count(flow);
    }

    pub(super) fn unknown_origin(&self) {
        self.connections.unknown_origins.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn handshake_given_up(&self) {
        self.connections.handshakes_given_up.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn accept_failed(&self) {
        self.connections.failed_accepts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn missed(&self, flows: u64) {
        self.connections.missed_flows.fetch_add(flows, Ordering::Relaxed);
    }
}

/// Bytes of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// From the caller.
    pub sent: u64,
    /// To the caller.
    pub received: u64,
}

impl Payload {
    /// What has come since it was `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(before.sent),
            received: self.received.saturating_sub(before.received),
        }
    }
}

/// What a connection counts into.
#[derive(Clone, Debug)]
pub struct Series(ClosedLabels);

impl Series {
    /// The series of a connection that ends with `verdict`.
    pub fn new(edge: Edge<'_>, verdict: Verdict) -> Self {
        Self(ClosedLabels { edge: edge.into(), verdict })
    }
}

/// What connections and requests count into, and how that is written.
#[derive(Debug)]
struct Connections {
    opened: Bounded<EdgeLabels, AtomicU64>,
    closed: Bounded<ClosedLabels, Closed>,
    requests: Requests,
    unknown_origins: AtomicU64,
    missed_flows: AtomicU64,
    handshakes_given_up: AtomicU64,
    failed_accepts: AtomicU64,
}

#[derive(Debug, Default)]
struct Closed {
    connections: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Closed {
    fn count(&self, more: Payload) {
        self.sent.fetch_add(more.sent, Ordering::Relaxed);
        self.received.fetch_add(more.received, Ordering::Relaxed);
    }
}

impl Connections {
    fn new(limit: usize) -> Self {
        Self {
            opened: Bounded::new(limit),
            closed: Bounded::new(limit),
            requests: Requests::new(limit),
            unknown_origins: AtomicU64::new(0),
            missed_flows: AtomicU64::new(0),
            handshakes_given_up: AtomicU64::new(0),
            failed_accepts: AtomicU64::new(0),
        }
    }
}

type Count<V> = fn(&V) -> &AtomicU64;

impl Collector for Connections {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let opened: Count<AtomicU64> = |count| count;
        self.opened.encode(
            &mut encoder,
            "nodemesh_connections_opened",
            "Connections that were carried, refused or failed, counted when that was known",
            opened,
        )?;
        let families: [(&str, &str, Count<Closed>); 3] = [
            ("nodemesh_connections_closed", "Connections that have ended", |it| &it.connections),
            ("nodemesh_sent_bytes", "Payload from callers, at most 10 s after it moved", |it| {
                &it.sent
            }),
            ("nodemesh_received_bytes", "Payload to callers, at most 10 s after it moved", |it| {
                &it.received
            }),
        ];
        for (name, help, count) in families {
            self.closed.encode(&mut encoder, name, help, count)?;
        }
        self.requests.encode(&mut encoder)?;
        let overflows =
            self.opened.overflows() + self.closed.overflows() + self.requests.overflows();
        for (name, help, count) in [
            (
                "nodemesh_metrics_overflows",
                "Times that a connection or request was counted as `other`, because its family is full",
                overflows,
            ),
            (
                "nodemesh_unknown_origins",
                "Captured connections that were reset because their destination was not known",
                self.unknown_origins.load(Ordering::Relaxed),
            ),
            (
                "nodemesh_flows_missed",
                "Flows that a follower was too slow to read",
                self.missed_flows.load(Ordering::Relaxed),
            ),
            (
                "nodemesh_handshakes_given_up",
                "Handshakes of tunnels that did not end in time or gave way to newer ones",
                self.handshakes_given_up.load(Ordering::Relaxed),
            ),
            (
                "nodemesh_failed_accepts",
                "Times that accepting failed for lack of descriptors or memory",
                self.failed_accepts.load(Ordering::Relaxed),
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(count).encode(metric)?;
        }
        Ok(())
    }
}

/// A label set that writes itself; what [`Bounded`] counts by.
trait Labels: Clone + Eq + std::hash::Hash + std::fmt::Debug + Send + Sync + 'static {
    /// The label set that this one is counted under when its family is full.
    fn overflow(&self) -> Self;
    /// Writes every label.
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error>;
}

#[cfg(test)]
mod tests;
