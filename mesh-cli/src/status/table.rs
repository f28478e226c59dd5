//! A node's status for people.

use mesh_common::api::v1;

use crate::output::{Palette, Tone, columns, timestamp};

/// Everything about one node; problems last, where the eye is.
pub fn section(status: &v1::NodeStatus, palette: Palette) -> String {
    let mut text = format!("{} (mesh-agent {})\n", status.node, status.version);
    let facts = [
        vec!["controller".into(), controller(status)],
        vec!["plaintext".into(), plaintext(status)],
        vec!["not TCP".into(), not_tcp(status)],
    ];
    text += &columns("  ", &facts);
    part(&mut text, "pods", status.pods.iter().map(pod).collect());
    // Few pods have any.
    let notes: Vec<_> = status.pods.iter().flat_map(notes).collect();
    if !notes.is_empty() {
        part(&mut text, "notes", notes);
    }
    part(&mut text, "hooks", status.hooks.iter().map(hook).collect());
    part(&mut text, "certificates", status.certificates.iter().map(certificate).collect());
    if status.problems.is_empty() {
        text += &format!("  {}\n", palette.paint(Tone::Good, "no problems"));
    } else {
        text += &format!("  {}\n", palette.paint(Tone::Bad, "problems"));
        for problem in &status.problems {
            text += &format!("    {problem}\n");
        }
    }
    text
}

fn controller(status: &v1::NodeStatus) -> String {
    let Some(controller) = &status.controller else { return "unknown".to_owned() };
    let connected = if controller.connected { "connected" } else { "not connected" };
    let synced = match (controller.synced, controller.connected) {
        (true, true) => format!("{} resources", controller.resources),
        (true, false) => format!("serving on with the {} resources it knows", controller.resources),
        (false, _) => "no picture of the mesh yet".to_owned(),
    };
    format!("{}, {connected}, {synced}", controller.address)
}

/// What strict mode would refuse, and whether nobody would miss it.
fn plaintext(status: &v1::NodeStatus) -> String {
    let v1::PlaintextStatus { connections, total, last } = status.plaintext.unwrap_or_default();
    let is_open = status.pods.iter().any(|pod| pod.plaintext > 0);
    match (connections, is_open) {
        (0, false) if total > 0 => format!(
            "none of {total} connections into pods since the agent started: safe to go strict"
        ),
        (0, false) => "no connection into a pod since the agent started".to_owned(),
        (0, true) => "open since before the agent started: strict mode would end it".to_owned(),
        _ => {
            let seconds = u64::try_from(last).unwrap_or_default();
            let percent = connections.saturating_mul(100).div_ceil(total.max(1));
            format!(
                "{connections} of {total} connections into pods ({percent} %) since the agent \
                 started, last at {}: strict mode would refuse them",
                timestamp(seconds.saturating_mul(1_000_000_000))
            )
        }
    }
}

/// What leaves pods and is not the mesh's to carry.
fn not_tcp(status: &v1::NodeStatus) -> String {
    let packets = |name| status.counters.get(name).copied().unwrap_or_default();
    format!(
        "{} packets of UDP and {} of SCTP left captured pods, outside of the mesh",
        packets("udp_passed"),
        packets("sctp_passed")
    )
}

fn notes(pod: &v1::PodStatus) -> impl Iterator<Item = Vec<String>> {
    pod.notes.iter().map(|note| vec![name(pod), note.clone()])
}

fn name(pod: &v1::PodStatus) -> String {
    let name = pod.name.as_ref();
    name.map_or_else(String::new, |it| format!("{}/{}", it.namespace, it.name))
}

fn pod(pod: &v1::PodStatus) -> Vec<String> {
    let mut connections = match pod.connections {
        1 => "1 connection".to_owned(),
        count => format!("{count} connections"),
    };
    if pod.unmeshed > 0 {
        connections += &format!(", {} unmeshed", pod.unmeshed);
    }
    if pod.plaintext > 0 {
        connections += &format!(", {} plaintext", pod.plaintext);
    }
    vec![name(pod), pod.state.clone(), connections, pod.reason.clone()]
}

fn hook(hook: &v1::HookStatus) -> Vec<String> {
    let attached = if hook.attached { "attached" } else { "not attached" };
    let repairs = match hook.repairs {
        0 => String::new(),
        1 => "put back once".to_owned(),
        times => format!("put back {times} times"),
    };
    vec![hook.name.clone(), attached.to_owned(), repairs]
}

fn certificate(certificate: &v1::CertificateStatus) -> Vec<String> {
    let until = u64::try_from(certificate.not_after).unwrap_or_default();
    let until = timestamp(until.saturating_mul(1_000_000_000));
    vec![
        certificate.identity.clone(),
        format!("until {until}"),
        format!("serial {}", certificate.serial),
    ]
}

fn part(text: &mut String, title: &str, rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        *text += &format!("  {title}: none\n");
    } else {
        *text += &format!("  {title}\n");
        *text += &columns("    ", &rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::json::tests::status;

    #[test]
    fn shows_every_part() {
        assert_eq!(
            section(&status(), Palette::plain()),
            "node-1 (mesh-agent 0.1.0)\n\
             \u{20} controller  https://10.0.0.1:15012, connected, 12 resources\n\
             \u{20} plaintext   1 of 4 connections into pods (25 %) since the agent started, last at \
             2026-01-02T00:00:00Z: strict mode would refuse them\n\
             \u{20} not TCP     0 packets of UDP and 0 of SCTP left captured pods, outside of the mesh\n\
             \u{20} pods\n\
             \u{20}   shop/db   failed    0 connections                          port 15001 is in use\n\
             \u{20}   shop/web  captured  1 connection, 1 unmeshed, 2 plaintext\n\
             \u{20} notes\n\
             \u{20}   shop/web  interface net1 is not in the mesh\n\
             \u{20} hooks\n\
             \u{20}   connect4          attached      put back 2 times\n\
             \u{20}   inbound shop/web  not attached\n\
             \u{20} certificates\n\
             \u{20}   spiffe://cluster.local/ns/shop/sa/web  until 2026-01-02T00:00:00Z  serial 0a1b\n\
             \u{20} problems\n\
             \u{20}   kernel hook inbound shop/web is not attached\n"
        );
        let fine = v1::NodeStatus {
            problems: Vec::new(),
            pods: Vec::new(),
            plaintext: Some(v1::PlaintextStatus { connections: 0, total: 9, last: 0 }),
            ..status()
        };
        let text = section(&fine, Palette::plain());
        assert!(text.contains("none of 9 connections into pods"), "{text}");
        assert!(text.contains("  pods: none\n") && text.ends_with("  no problems\n"), "{text}");
    }
}
