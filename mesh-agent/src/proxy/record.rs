//! What is known of a connection so far, until it ends and becomes a flow.

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use mesh_common::{identity::SpiffeId, model::NamespacedName};

use super::{
    Shared,
    failure::Failure,
    http::{Moved, Trouble},
    meter::{Meter, Metered, Meters},
    reach,
    relay::Transferred,
    route::Upstream,
};
use crate::{
    capture::enroll::Pod,
    observe::{
        Observer, Series,
        flow::{Edge, Flow, HttpFlow, Peer, Reporter, Security, Verdict},
    },
};

/// A connection that has not ended.
pub(super) struct Record {
    observer: Arc<Observer>,
    node: Arc<str>,
    started: Instant,
    reporter: Reporter,
    source: Peer,
    destination: Peer,
    service: Option<NamespacedName>,
    security: Security,
    audit: Option<String>,
    metered: Option<Metered>,
    caveat: Option<Cow<'static, str>>,
}

impl Record {
    pub(super) fn start(shared: &Shared, reporter: Reporter) -> Self {
        Self::new(shared.observer.clone(), shared.node.clone(), reporter)
    }

    /// The same of a node.
    pub(super) fn new(observer: Arc<Observer>, node: Arc<str>, reporter: Reporter) -> Self {
        Self {
            observer,
            node,
            started: Instant::now(),
            reporter,
            source: Peer::default(),
            destination: Peer::default(),
            service: None,
            security: Security::Plaintext,
            audit: None,
            metered: None,
            caveat: None,
        }
    }

    /// The caller is a pod of this node.
    pub(super) fn source_pod(&mut self, pod: &Pod, address: SocketAddr) {
        self.source = of_pod(pod, address);
    }

    /// The caller proved who it is.
    pub(super) fn source_identity(
        &mut self,
        shared: &Shared,
        identity: SpiffeId,
        address: SocketAddr,
    ) {
        self.source_address(shared, address);
        self.source.identity = Some(identity);
    }

    /// Nothing but the caller's address is known, which proves nothing: the pod is a hint.
    pub(super) fn source_address(&mut self, shared: &Shared, address: SocketAddr) {
        let pod = shared.snapshot.workload_at(address.ip()).map(|workload| workload.name.clone());
        self.source = Peer { pod, address: Some(address), ..Peer::default() };
    }

    /// Where the application asked to go.
    pub(super) fn destination_address(&mut self, address: SocketAddr) {
        self.destination.address = Some(address);
    }

    /// The called pod is one of this node.
    pub(super) fn destination_pod(&mut self, pod: &Pod, address: SocketAddr) {
        self.destination = of_pod(pod, address);
    }

    pub(super) fn service(&mut self, service: NamespacedName) {
        self.service = Some(service);
    }

    /// Which place is tried now.
    pub(super) fn upstream(&mut self, upstream: &Upstream) {
        let workload = upstream.workload.as_ref();
        self.destination = Peer {
            identity: workload.and_then(|workload| workload.identity.clone()),
            pod: workload.map(|workload| workload.name.clone()),
            address: Some(upstream.address),
            host: None,
        };
        self.security = reach::security(upstream);
    }

    pub(super) fn security(&mut self, security: Security) {
        self.security = security;
    }

    /// What policies that only audit would have refused it for.
    pub(super) fn audit(&mut self, reason: Option<String>) {
        self.audit = reason;
    }

    /// What has to be said where nothing else is.
    pub(super) fn caveat(&mut self, reason: impl Into<Cow<'static, str>>) {
        self.caveat = Some(reason.into());
    }

    /// Both sides are connected: the connection is carried from now on, and counts what it moves
    /// on the meter.
    pub(super) fn carried(&mut self, meters: &Arc<Meters>) -> Meter {
        let edge = Edge {
            reporter: self.reporter,
            source: &self.source,
            destination: &self.destination,
            service: self.service.as_ref(),
            security: self.security,
        };
        self.observer.opened(edge);
        // So it ends, unless its right is taken away.
        let verdict = if self.audit.is_some() { Verdict::Audit } else { Verdict::Forwarded };
        let (meter, metered) = meters.open(Series::new(edge, verdict));
        self.metered = Some(metered);
        meter
    }

    /// The connection was carried and has ended.
    pub(super) fn end(mut self, moved: Transferred) {
        let Transferred { from_client, to_client, broken, revoked } = moved;
        let (verdict, reason) = match (revoked, self.audit.take(), broken) {
            (Some(revoked), _, _) => (Verdict::Denied, revoked),
            (None, Some(audit), _) => (Verdict::Audit, audit),
            (None, None, broken) => {
                let said = self.caveat.take().map(Cow::into_owned).into_iter().chain(broken);
                (Verdict::Forwarded, said.collect::<Vec<_>>().join("; "))
            }
        };
        let told = self.metered.take().map(Metered::finish).unwrap_or_default();
        let flow = self.flow(verdict, reason, from_client, to_client);
        self.observer.ended_after(flow, told);
    }

    /// A record of what goes on where a request ends: with another protocol on its connections.
    pub(super) fn continued(&self) -> Self {
        Self {
            observer: self.observer.clone(),
            node: self.node.clone(),
            started: self.started,
            reporter: self.reporter,
            source: self.source.clone(),
            destination: self.destination.clone(),
            service: self.service.clone(),
            security: self.security,
            audit: self.audit.clone(),
            metered: None,
            caveat: self.caveat.clone(),
        }
    }

    /// It was a request, which has ended; `trouble` is what the client was told instead of, or
    /// within, a response.
    pub(super) fn end_request(mut self, http: HttpFlow, moved: Moved, trouble: Option<&Trouble>) {
        let (verdict, reason) = match (trouble, self.audit.take()) {
            (Some(trouble), _) if trouble.is_denial() => (Verdict::Denied, trouble.to_string()),
            (Some(trouble), _) => (Verdict::Error, trouble.to_string()),
            (None, Some(audit)) => (Verdict::Audit, audit),
            (None, None) => (Verdict::Forwarded, String::new()),
        };
        let flow = self.flow(verdict, reason, moved.sent, moved.received);
        self.observer.request(Flow { http: Some(Box::new(http)), ..flow });
    }

    /// The connection was refused or failed.
    pub(super) fn fail(self, failure: Failure) {
        let verdict = if failure.is_denial() { Verdict::Denied } else { Verdict::Error };
        self.observer.record(self.flow(verdict, failure.to_string(), 0, 0));
    }

    /// What is told of further calls that are refused for `reason`, before they have a port.
    pub(super) fn denial(&self, reason: &str) -> Flow {
        let flow = self.flow(Verdict::Denied, reason.to_owned(), 0, 0);
        Flow { source: Peer { address: None, ..flow.source }, ..flow }
    }

    fn flow(&self, verdict: Verdict, reason: String, bytes_sent: u64, bytes_received: u64) -> Flow {
        Flow {
            time: SystemTime::now(),
            node: self.node.clone(),
            reporter: self.reporter,
            source: self.source.clone(),
            destination: self.destination.clone(),
            service: self.service.clone(),
            verdict,
            reason,
            security: self.security,
            duration: self.started.elapsed(),
            bytes_sent,
            bytes_received,
            http: None,
        }
    }
}

fn of_pod(pod: &Pod, address: SocketAddr) -> Peer {
    Peer {
        identity: Some(pod.identity.clone()),
        pod: Some(pod.name.clone()),
        address: Some(address),
        host: None,
    }
}
