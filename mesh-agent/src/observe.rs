//! What happened on this node's connections: flows for people, metrics for Prometheus.

use std::sync::Arc;

use tokio::sync::broadcast;

pub mod flow;
pub mod kernel;
pub mod metrics;
mod ring;
pub mod share;
pub mod sock_diag;
pub mod unmeshed;

use flow::{Edge, Flow, FlowFilter};
use metrics::Metrics;
pub use metrics::{Payload, Series};
use ring::Ring;
use share::PlaintextShare;

/// Remembers the last flows, tells them to followers, and counts.
#[derive(Debug)]
pub struct Observer {
    ring: Ring,
    metrics: Arc<Metrics>,
    share: PlaintextShare,
}

impl Observer {
    /// Remembers `capacity` flows and counts in `metrics`.
    pub fn new(capacity: usize, metrics: Arc<Metrics>) -> Self {
        Self { ring: Ring::new(capacity), metrics, share: PlaintextShare::default() }
    }

    /// Counts a connection that is now carried: both sides are known and connected. The proxy
    /// calls this once, and [`record`](Self::record) when the connection ends.
    pub fn opened(&self, edge: Edge<'_>) {
        self.share.opened(edge);
        self.metrics.opened(edge);
    }

    /// Takes a flow that has ended. One that was never carried, because it was refused or failed,
    /// counts as opened and closed at once.
    pub fn record(&self, flow: Flow) {
        if !matches!(flow.verdict, flow::Verdict::Forwarded | flow::Verdict::Audit) {
            self.metrics.opened(flow.edge());
        }
        self.ended(flow);
    }

    /// Counts what a connection has moved since the last time, while it goes on.
    pub fn moved(&self, series: &Series, more: Payload) {
        self.metrics.moved(series, more);
    }

    /// Takes the flow of a connection that was carried, however it ended.
    pub fn ended(&self, flow: Flow) {
        self.ended_after(flow, Payload::default());
    }

    /// The same of one whose payload was counted while it moved, as far as `told` says.
    pub fn ended_after(&self, flow: Flow, told: Payload) {
        self.metrics.closed(&flow, told);
        self.ring.push(flow);
    }

    /// Takes a request that has ended.
    pub fn request(&self, flow: Flow) {
        self.metrics.request(&flow);
        self.ring.push(flow);
    }

    /// What callers prove that reach this node's pods.
    pub fn share(&self) -> &PlaintextShare {
        &self.share
    }

    /// Counts a captured connection whose original destination was not found at accept.
    pub fn unknown_origin(&self) {
        self.metrics.unknown_origin();
    }

    /// Counts a tunnel's handshake that did not end in time, or gave way to newer ones.
    pub fn handshake_given_up(&self) {
        self.metrics.handshake_given_up();
    }

    /// Counts a connection that could not be accepted for lack of descriptors or memory.
    pub fn accept_failed(&self) {
        self.metrics.accept_failed();
    }

    /// The last `last` flows (0: all) that `filter` lets through, oldest first.
    pub fn recent(&self, last: usize, filter: &FlowFilter) -> Vec<Arc<Flow>> {
        filter.last_of(self.ring.remembered(), last)
    }

    /// As [`recent`](Self::recent), and every flow after those, without gap or repetition.
    pub fn follow(
        &self,
        last: usize,
        filter: &FlowFilter,
    ) -> (Vec<Arc<Flow>>, broadcast::Receiver<Arc<Flow>>) {
        let (remembered, next) = self.ring.follow();
        (filter.last_of(remembered, last), next)
    }

    /// Counts flows that a follower was too slow to read.
    pub fn missed(&self, flows: u64) {
        self.metrics.missed(flows);
    }
}

#[cfg(test)]
pub(crate) mod tests;
