//! How many connections into this node's pods came in plaintext: what strict mode would refuse.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use mesh_common::api::v1;

use super::flow::{Edge, Reporter, Security};

/// Counts since the agent started.
#[derive(Debug, Default)]
pub struct PlaintextShare {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    plaintext: u64,
    proven: u64,
    last: Option<SystemTime>,
    /// The kernel's own counter when it was last read.
    passed: Option<u64>,
}

impl PlaintextShare {
    /// Counts a connection that the proxy carries, if it leads into a pod of this node.
    pub fn opened(&self, edge: Edge<'_>) {
        match (edge.security, edge.reporter) {
            (Security::Local, _) | (Security::Mtls, Reporter::Destination) => {
                self.counts().proven += 1;
            }
            // Probes of the node go on in strict mode.
            (Security::Plaintext, Reporter::Destination) if edge.source.host.is_some() => {}
            (Security::Plaintext, Reporter::Destination) => self.counts().came(1),
            (Security::Plaintext | Security::Mtls, Reporter::Source) | (Security::Unmeshed, _) => {}
        }
    }

    /// Takes over how many connections the kernel has let through unproxied, ever.
    pub fn passed(&self, total: u64) {
        let mut counts = self.counts();
        // What an earlier agent saw is not since this one started.
        let before = counts.passed.replace(total).unwrap_or(total);
        counts.came(total.saturating_sub(before));
    }

    /// As status has it.
    pub fn to_wire(&self) -> v1::PlaintextStatus {
        let counts = self.counts();
        let last = counts.last.and_then(|last| last.duration_since(SystemTime::UNIX_EPOCH).ok());
        v1::PlaintextStatus {
            connections: counts.plaintext,
            total: counts.plaintext + counts.proven,
            last: last.and_then(|last| i64::try_from(last.as_secs()).ok()).unwrap_or_default(),
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn came(&mut self, plaintext: u64) {
        if plaintext > 0 {
            self.plaintext += plaintext;
            self.last = Some(SystemTime::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::flow::Peer;

    #[test]
    fn counts_what_leads_into_a_pod_once() {
        let share = PlaintextShare::default();
        let peer = Peer::default();
        let opened = |security, reporter| {
            let (source, destination) = (&peer, &peer);
            share.opened(Edge { reporter, source, destination, service: None, security });
        };
        share.passed(7);
        assert_eq!(share.to_wire(), v1::PlaintextStatus::default(), "an earlier agent's");
        opened(Security::Local, Reporter::Source);
        opened(Security::Mtls, Reporter::Source);
        opened(Security::Mtls, Reporter::Destination);
        opened(Security::Plaintext, Reporter::Source);
        opened(Security::Unmeshed, Reporter::Destination);
        let (node, service) = (Peer { host: Some("node-1".into()), ..Peer::default() }, None);
        let (reporter, security) = (Reporter::Destination, Security::Plaintext);
        share.opened(Edge { reporter, source: &node, destination: &peer, service, security });
        let wire = share.to_wire();
        assert_eq!((wire.connections, wire.total, wire.last), (0, 2, 0));
        opened(Security::Plaintext, Reporter::Destination);
        share.passed(9);
        share.passed(9);
        let wire = share.to_wire();
        assert_eq!((wire.connections, wire.total), (3, 5));
        assert_ne!(wire.last, 0);
    }
}
