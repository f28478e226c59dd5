//! Flows: one finished, refused or failed connection, or request, as one proxy saw it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

mod filter;
mod http;

pub use filter::{FlowFilter, InvalidFilter};
pub use http::{HttpFlow, HttpProtocol};
use mesh_common::{api::v1, identity::SpiffeId, model::NamespacedName};

/// One connection, from accept to end, or one request of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// When it ended.
    pub time: SystemTime,
    /// The node whose proxy saw it.
    pub node: Arc<str>,
    /// Which side's proxy saw it.
    pub reporter: Reporter,
    /// Who called.
    pub source: Peer,
    /// Who was called.
    pub destination: Peer,
    /// The Service that was called, where one was.
    pub service: Option<NamespacedName>,
    /// What became of it.
    pub verdict: Verdict,
    /// Why: the policy and rule that decided, or what failed.
    pub reason: String,
    /// How it was protected.
    pub security: Security,
    /// From accept to end.
    pub duration: Duration,
    /// Payload bytes from the caller.
    pub bytes_sent: u64,
    /// Payload bytes to the caller.
    pub bytes_received: u64,
    /// What is known of the request, where it is one.
    pub http: Option<Box<HttpFlow>>,
}

/// One side of a flow, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The verified identity.
    pub identity: Option<SpiffeId>,
    /// The node, where the side is its own network namespace and no pod.
    pub host: Option<Arc<str>>,
    /// The pod.
    pub pod: Option<NamespacedName>,
    /// Address and port.
    pub address: Option<SocketAddr>,
}

/// Which side's proxy saw a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The caller's.
    Source,
    /// That of the pod that is called.
    Destination,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It was carried.
    Forwarded,
    /// A policy refused it.
    Denied,
    /// It could not be carried.
    Error,
    /// It was carried, though policies that only audit would have refused it.
    Audit,
}

/// How a connection was protected on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// Mutual TLS between two nodes.
    Mtls,
    /// Both ends authenticated, not encrypted: it never left the node.
    Local,
    /// Nothing.
    Plaintext,
    /// Unknown: the connection is older than its pod's membership, and no proxy carries it.
    Unmeshed,
}

/// What is known of a connection before it ends, as metrics tell connections apart.
#[derive(Clone, Copy, Debug)]
pub struct Edge<'a> {
    /// Which side's proxy sees it.
    pub reporter: Reporter,
    /// Who calls.
    pub source: &'a Peer,
    /// Who is called.
    pub destination: &'a Peer,
    /// The Service that is called, where one is.
    pub service: Option<&'a NamespacedName>,
    /// How it is protected.
    pub security: Security,
}

impl Flow {
    /// What was known of it before it ended.
    pub fn edge(&self) -> Edge<'_> {
        Edge {
            reporter: self.reporter,
            source: &self.source,
            destination: &self.destination,
            service: self.service.as_ref(),
            security: self.security,
        }
    }
}

impl Reporter {
    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

impl Verdict {
    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Denied => "denied",
            Self::Error => "error",
            Self::Audit => "audit",
        }
    }
}

impl Security {
    /// The name in metrics and flows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mtls => "mtls",
            Self::Local => "local",
            Self::Plaintext => "plaintext",
            Self::Unmeshed => "unmeshed",
        }
    }
}

impl From<&Flow> for v1::Flow {
    fn from(flow: &Flow) -> Self {
        let since_epoch = flow.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            time_unix_nano: nanos(since_epoch),
            node: flow.node.to_string(),
            reporter: v1::Reporter::from(flow.reporter).into(),
            source: Some((&flow.source).into()),
            destination: Some((&flow.destination).into()),
            service: flow.service.as_ref().map(Into::into),
            verdict: v1::Verdict::from(flow.verdict).into(),
            reason: flow.reason.clone(),
            security: v1::Security::from(flow.security).into(),
            duration_nanos: nanos(flow.duration),
            bytes_sent: flow.bytes_sent,
            bytes_received: flow.bytes_received,
            http: flow.http.as_deref().map(Into::into),
        }
    }
}

impl From<&Peer> for v1::Peer {
    fn from(peer: &Peer) -> Self {
        Self {
            identity: match (&peer.identity, &peer.host) {
                (Some(identity), _) => identity.to_string(),
                (None, Some(node)) => format!("host:{node}"),
                (None, None) => String::new(),
            },
            pod: peer.pod.as_ref().map(Into::into),
            address: peer.address.map(|address| address.to_string()).unwrap_or_default(),
        }
    }
}

impl From<Reporter> for v1::Reporter {
    fn from(reporter: Reporter) -> Self {
        match reporter {
            Reporter::Source => Self::Source,
            Reporter::Destination => Self::Destination,
        }
    }
}

impl From<Verdict> for v1::Verdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Forwarded => Self::Forwarded,
            Verdict::Denied => Self::Denied,
            Verdict::Error => Self::Error,
            Verdict::Audit => Self::Audit,
        }
    }
}

impl From<Security> for v1::Security {
    fn from(security: Security) -> Self {
        match security {
            Security::Mtls => Self::Mtls,
            Security::Local => Self::Local,
            Security::Plaintext => Self::Plaintext,
            Security::Unmeshed => Self::Unmeshed,
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
