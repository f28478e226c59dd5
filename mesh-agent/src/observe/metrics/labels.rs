//! What connections are told apart by: workloads (namespace and account), Service, security, verdict.

use mesh_common::{identity::SpiffeId, model::NamespacedName};
use prometheus_client::encoding::{EncodeLabel, LabelSetEncoder};

use super::Labels;
use crate::observe::flow::{Edge, HttpFlow, HttpProtocol, Peer, Reporter, Security, Verdict};

/// The value of a label that does not apply.
const NONE: &str = "";
/// The value for peers without a verified identity.
const UNKNOWN: &str = "unknown";
/// The value for what is counted together because its family is full.
const OTHER: &str = "other";

/// One more than the highest status that gRPC knows.
const GRPC_STATUSES: u16 = 17;

/// A label's value that is known, not known, or given up for lack of space.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Named<T> {
    Known(T),
    Unknown,
    Other,
}

impl<T> From<Option<T>> for Named<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Unknown, Self::Known)
    }
}

/// The labels of a connection that is open.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct EdgeLabels {
    reporter: Reporter,
    source: Named<SpiffeId>,
    destination: Named<SpiffeId>,
    service: Named<NamespacedName>,
    security: Security,
}

impl From<Edge<'_>> for EdgeLabels {
    fn from(edge: Edge<'_>) -> Self {
        let identity = |peer: &Peer| peer.identity.clone().into();
        Self {
            reporter: edge.reporter,
            source: identity(edge.source),
            destination: identity(edge.destination),
            service: edge.service.cloned().into(),
            security: edge.security,
        }
    }
}

impl Labels for EdgeLabels {
    fn overflow(&self) -> Self {
        Self {
            source: Named::Other,
            destination: Named::Other,
            service: Named::Other,
            ..self.clone()
        }
    }

    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (source_namespace, source_account) = workload(&self.source);
        let (destination_namespace, destination_account) = workload(&self.destination);
        let (service_namespace, service) = service_of(&self.service);
        for label in [
            ("reporter", self.reporter.as_str()),
            ("source_namespace", source_namespace),
            ("source_account", source_account),
            ("destination_namespace", destination_namespace),
            ("destination_account", destination_account),
            ("destination_service_namespace", service_namespace),
            ("destination_service", service),
            ("security", self.security.as_str()),
        ] {
            label.encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// The labels of a connection that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClosedLabels {
    pub(super) edge: EdgeLabels,
    pub(super) verdict: Verdict,
}

impl Labels for ClosedLabels {
    fn overflow(&self) -> Self {
        Self { edge: self.edge.overflow(), verdict: self.verdict }
    }

    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.edge.encode(encoder)?;
        ("verdict", self.verdict.as_str()).encode(encoder.encode_label())
    }
}

/// The labels of where a request went: what was called, and the Service that a route chose for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct WayLabels {
    edge: EdgeLabels,
    backend: Named<NamespacedName>,
}

impl WayLabels {
    pub(super) fn new(edge: Edge<'_>, http: &HttpFlow) -> Self {
        Self { edge: edge.into(), backend: http.backend.clone().into() }
    }
}

impl Labels for WayLabels {
    fn overflow(&self) -> Self {
        Self { edge: self.edge.overflow(), backend: Named::Other }
    }

    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.edge.encode(encoder)?;
        let (namespace, service) = service_of(&self.backend);
        ("backend_service_namespace", namespace).encode(encoder.encode_label())?;
        ("backend_service", service).encode(encoder.encode_label())
    }
}

/// The labels of a request that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RequestLabels {
    way: WayLabels,
    protocol: HttpProtocol,
    status: Option<u16>,
    grpc_status: Option<u16>,
    code: Option<&'static str>,
}

impl RequestLabels {
    pub(super) fn new(way: WayLabels, http: &HttpFlow) -> Self {
        Self {
            way,
            protocol: http.protocol,
            status: http.status.map(|status| status.as_u16()),
            // A server may say what it likes; gRPC knows these.
            grpc_status: http.grpc_status.map(|status| status.min(GRPC_STATUSES)),
            code: http.code,
        }
    }
}

impl Labels for RequestLabels {
    fn overflow(&self) -> Self {
        Self { way: self.way.overflow(), ..self.clone() }
    }

    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.way.encode(encoder)?;
        let number = |number: Option<u16>| number.map(|it| it.to_string()).unwrap_or_default();
        for (label, value) in [
            ("protocol", self.protocol.as_str()),
            ("response_code", &number(self.status)),
            ("grpc_status", &number(self.grpc_status)),
            ("error", self.code.unwrap_or(NONE)),
        ] {
            (label, value).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// Namespace and name of a Service, as label values.
fn service_of(service: &Named<NamespacedName>) -> (&str, &str) {
    match service {
        Named::Known(name) => (&name.namespace, &name.name),
        Named::Unknown => (NONE, NONE),
        Named::Other => (OTHER, OTHER),
    }
}

/// Namespace and account, as label values.
fn workload(identity: &Named<SpiffeId>) -> (&str, &str) {
    match identity {
        Named::Known(id) => (id.namespace(), id.service_account()),
        Named::Unknown => (UNKNOWN, UNKNOWN),
        Named::Other => (OTHER, OTHER),
    }
}
