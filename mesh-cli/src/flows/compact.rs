//! A flow as one line for people.

use mesh_common::api::v1;

use crate::output::{Palette, Tone, bytes, duration, short_timestamp};

/// Time, node, who called whom, what became of it, how it was protected, how much, how long.
pub fn line(flow: &v1::Flow, palette: Palette) -> String {
    let mut line = format!(
        "{} {} {} -> {}",
        short_timestamp(flow.time_unix_nano),
        flow.node,
        peer(flow.source.as_ref()),
        peer(flow.destination.as_ref()),
    );
    if let Some(service) = &flow.service {
        line += &format!(" [{}/{}]", service.namespace, service.name);
    }
    line += &format!(" {} {}", super::json::protocol(flow), verdict(flow.verdict(), palette));
    if let Some(http) = &flow.http {
        line += &request(http, flow.duration_nanos);
    }
    if !flow.reason.is_empty() {
        line += &format!(" ({})", flow.reason);
    }
    line += &format!(
        " {} reporter={} sent={} received={}",
        security(flow.security(), palette),
        super::json::reporter(flow.reporter()),
        bytes(flow.bytes_sent),
        bytes(flow.bytes_received),
    );
    if flow.http.is_none() {
        line += &format!(" {}", duration(flow.duration_nanos));
    }
    line
}

/// `GET /path 200 4.2ms`, and what is out of the ordinary.
fn request(http: &v1::HttpFlow, nanos: u64) -> String {
    let status = if http.status == 0 { "-".to_owned() } else { http.status.to_string() };
    let method = if http.method.is_empty() { "-" } else { &http.method };
    let mut text = format!(" {method} {} {status} {}", http.path, duration(nanos));
    if let Some(status) = http.grpc_status {
        text += &format!(" grpc-status={status}");
    }
    if let Some(route) = &http.route {
        text += &format!(" route={}/{} rule={}", route.namespace, route.name, http.rule);
    }
    if http.retries > 0 {
        text += &format!(" retries={}", http.retries);
    }
    if !http.code.is_empty() {
        text += &format!(" error={}", http.code);
    }
    text
}

/// The pod, or else the address, and the identity.
fn peer(peer: Option<&v1::Peer>) -> String {
    let Some(peer) = peer else { return "unknown".to_owned() };
    let name = match &peer.pod {
        Some(pod) => format!("{}/{}", pod.namespace, pod.name),
        None if peer.address.is_empty() => "unknown".to_owned(),
        None => peer.address.clone(),
    };
    let identity = if peer.identity.is_empty() { "no identity" } else { &peer.identity };
    format!("{name} ({identity})")
}

fn verdict(verdict: v1::Verdict, palette: Palette) -> String {
    let tone = match verdict {
        v1::Verdict::Forwarded => Tone::Good,
        v1::Verdict::Denied => Tone::Bad,
        v1::Verdict::Error | v1::Verdict::Audit | v1::Verdict::Unspecified => Tone::Notable,
    };
    palette.paint(tone, super::json::verdict(verdict))
}

fn security(security: v1::Security, palette: Palette) -> String {
    let text = format!("security={}", super::json::security(security));
    let tone = match security {
        v1::Security::Mtls => Tone::Good,
        v1::Security::Local => return text,
        v1::Security::Plaintext | v1::Security::Unmeshed | v1::Security::Unspecified => {
            Tone::Notable
        }
    };
    palette.paint(tone, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::json::tests::flow;

    #[test]
    fn says_it_all_in_one_line() {
        assert_eq!(
            line(&flow(), Palette::plain()),
            "2026-01-02T03:04:05.678Z node-1 \
             shop/frontend (spiffe://cluster.local/ns/shop/sa/frontend) -> \
             shop/web (spiffe://cluster.local/ns/shop/sa/web) [shop/web] TCP FORWARDED \
             security=mtls reporter=source sent=83B received=1.5KiB 2.50ms"
        );
    }

    #[test]
    fn says_of_a_request_what_it_was() {
        let route = v1::NamespacedName { namespace: "shop".into(), name: "canary".into() };
        let http = v1::HttpFlow {
            protocol: "HTTP/1.1".into(),
            method: "GET".into(),
            path: "/path".into(),
            status: 504,
            grpc_status: None,
            route: Some(route),
            rule: "0".into(),
            retries: 2,
            code: "request_timeout".into(),
        };
        let line = line(&v1::Flow { http: Some(http), ..flow() }, Palette::plain());
        let expected = " HTTP/1.1 FORWARDED GET /path 504 2.50ms route=shop/canary rule=0 retries=2 \
                        error=request_timeout security=mtls ";
        assert!(line.contains(expected) && line.ends_with(" received=1.5KiB"), "{line}");
    }

    #[test]
    fn names_the_reason_and_strangers_by_address() {
        let flow = v1::Flow {
            source: Some(v1::Peer { address: "10.0.9.9:4000".into(), ..Default::default() }),
            service: None,
            verdict: v1::Verdict::Denied.into(),
            reason: "denied by AuthorizationPolicy shop/web rule 0".into(),
            security: v1::Security::Plaintext.into(),
            ..flow()
        };
        let line = line(&flow, Palette::plain());
        for part in [
            " 10.0.9.9:4000 (no identity) -> shop/web ",
            " TCP DENIED (denied by AuthorizationPolicy shop/web rule 0) security=plaintext ",
        ] {
            assert!(line.contains(part), "{line}");
        }
    }
}
