//! A flow as one JSON object. docs/flows.md describes the fields; they keep name and meaning.

use mesh_common::api::v1;
use serde::Serialize;

use crate::output::timestamp;

/// The object, without line breaks.
///
/// # Errors
/// None that could happen: every field is a text or a number.
pub fn line(flow: &v1::Flow) -> serde_json::Result<String> {
    serde_json::to_string(&Flow {
        time: timestamp(flow.time_unix_nano),
        node: &flow.node,
        reporter: reporter(flow.reporter()),
        source: Peer::new(flow.source.as_ref()),
        destination: Peer::new(flow.destination.as_ref()),
        service: flow.service.as_ref().map(name),
        verdict: verdict(flow.verdict()),
        reason: non_empty(&flow.reason),
        security: security(flow.security()),
        duration_nanos: flow.duration_nanos,
        bytes_sent: flow.bytes_sent,
        bytes_received: flow.bytes_received,
        protocol: protocol(flow),
        http: flow.http.as_ref().map(Http::new),
    })
}

#[derive(Serialize)]
struct Flow<'a> {
    time: String,
    node: &'a str,
    reporter: &'a str,
    source: Peer<'a>,
    destination: Peer<'a>,
    service: Option<String>,
    verdict: &'a str,
    reason: Option<&'a str>,
    security: &'a str,
    duration_nanos: u64,
    bytes_sent: u64,
    bytes_received: u64,
    protocol: &'a str,
    http: Option<Http<'a>>,
}

#[derive(Serialize)]
struct Http<'a> {
    method: Option<&'a str>,
    path: &'a str,
    status: Option<u32>,
    grpc_status: Option<u32>,
    route: Option<String>,
    rule: Option<&'a str>,
    retries: u32,
    code: Option<&'a str>,
}

impl<'a> Http<'a> {
    fn new(http: &'a v1::HttpFlow) -> Self {
        Self {
            method: non_empty(&http.method),
            path: &http.path,
            status: (http.status != 0).then_some(http.status),
            grpc_status: http.grpc_status,
            route: http.route.as_ref().map(name),
            rule: non_empty(&http.rule),
            retries: http.retries,
            code: non_empty(&http.code),
        }
    }
}

#[derive(Default, Serialize)]
struct Peer<'a> {
    identity: Option<&'a str>,
    pod: Option<String>,
    address: Option<&'a str>,
}

impl<'a> Peer<'a> {
    fn new(peer: Option<&'a v1::Peer>) -> Self {
        let Some(peer) = peer else { return Self::default() };
        Self {
            identity: non_empty(&peer.identity),
            pod: peer.pod.as_ref().map(name),
            address: non_empty(&peer.address),
        }
    }
}

/// The word for what was spoken.
pub fn protocol(flow: &v1::Flow) -> &str {
    flow.http.as_ref().map_or("TCP", |http| &http.protocol)
}

/// The word for a reporter.
pub fn reporter(reporter: v1::Reporter) -> &'static str {
    match reporter {
        v1::Reporter::Source => "source",
        v1::Reporter::Destination => "destination",
        v1::Reporter::Unspecified => "unknown",
    }
}

/// The word for a verdict.
pub fn verdict(verdict: v1::Verdict) -> &'static str {
    match verdict {
        v1::Verdict::Forwarded => "FORWARDED",
        v1::Verdict::Denied => "DENIED",
        v1::Verdict::Error => "ERROR",
        v1::Verdict::Audit => "AUDIT",
        v1::Verdict::Unspecified => "UNKNOWN",
    }
}

/// The word for a kind of protection.
pub fn security(security: v1::Security) -> &'static str {
    match security {
        v1::Security::Mtls => "mtls",
        v1::Security::Local => "local",
        v1::Security::Plaintext => "plaintext",
        v1::Security::Unmeshed => "unmeshed",
        v1::Security::Unspecified => "unknown",
    }
}

fn name(name: &v1::NamespacedName) -> String {
    format!("{}/{}", name.namespace, name.name)
}

fn non_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A flow with every field set.
    pub fn flow() -> v1::Flow {
        let named = |name: &str| v1::NamespacedName { namespace: "shop".into(), name: name.into() };
        let peer = |account: &str, address: &str| v1::Peer {
            identity: format!("spiffe://cluster.local/ns/shop/sa/{account}"),
            pod: Some(named(account)),
            address: address.into(),
        };
        v1::Flow {
            time_unix_nano: 1_767_323_045_678_901_234,
            node: "node-1".into(),
            reporter: v1::Reporter::Source.into(),
            source: Some(peer("frontend", "10.0.1.2:40000")),
            destination: Some(peer("web", "10.0.2.2:8080")),
            service: Some(named("web")),
            verdict: v1::Verdict::Forwarded.into(),
            reason: String::new(),
            security: v1::Security::Mtls.into(),
            duration_nanos: 2_500_000,
            bytes_sent: 83,
            bytes_received: 1536,
            http: None,
        }
    }

    #[test]
    fn fields_keep_their_names() {
        assert_eq!(
            line(&flow()).expect("JSON"),
            "{\"time\":\"2026-01-02T03:04:05.678901234Z\",\"node\":\"node-1\",\
             \"reporter\":\"source\",\
             \"source\":{\"identity\":\"spiffe://cluster.local/ns/shop/sa/frontend\",\
             \"pod\":\"shop/frontend\",\"address\":\"10.0.1.2:40000\"},\
             \"destination\":{\"identity\":\"spiffe://cluster.local/ns/shop/sa/web\",\
             \"pod\":\"shop/web\",\"address\":\"10.0.2.2:8080\"},\
             \"service\":\"shop/web\",\"verdict\":\"FORWARDED\",\"reason\":null,\
             \"security\":\"mtls\",\"duration_nanos\":2500000,\"bytes_sent\":83,\
             \"bytes_received\":1536,\"protocol\":\"TCP\",\"http\":null}"
        );
    }

    #[test]
    fn what_is_not_known_is_null() {
        let line = line(&v1::Flow::default()).expect("JSON");
        assert!(line.contains("\"source\":{\"identity\":null,\"pod\":null,\"address\":null}"));
        assert!(line.contains("\"service\":null"));
    }
}
