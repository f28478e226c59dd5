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
    line += &format!(" TCP {}", verdict(flow.verdict(), palette));
    if !flow.reason.is_empty() {
        line += &format!(" ({})", flow.reason);
    }
    line += &format!(
        " {} reporter={} sent={} received={} {}",
        security(flow.security(), palette),
        super::json::reporter(flow.reporter()),
        bytes(flow.bytes_sent),
        bytes(flow.bytes_received),
        duration(flow.duration_nanos),
    );
    line
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
