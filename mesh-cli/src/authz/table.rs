//! A pod's authorization for people.

use super::shown::{Judgement, Policy, Shown, Source};
use crate::output::{Palette, Tone, columns};

/// How much of a rule a line has room for.
const WORDS: usize = 72;

/// Everything about one pod; the judgement last, where the eye is. `wide`: nothing is cut.
pub fn text(shown: &Shown, wide: bool, palette: Palette) -> String {
    let mut text = format!("{} on {}{}\n", shown.pod, node(shown), state(shown));
    text += &columns("  ", &facts(shown));
    if shown.enrolled {
        text.push('\n');
        text += &match shown.policies.is_empty() {
            true => "  no AuthorizationPolicy is attached\n".to_owned(),
            false => columns("  ", &policies(&shown.policies, wide)),
        };
    }
    if let Some(judgement) = &shown.judgement {
        text += &format!("\n{}\n", verdict(judgement, palette));
    }
    text
}

fn node(shown: &Shown) -> &str {
    if shown.node.is_empty() { "no node yet" } else { &shown.node }
}

fn state(shown: &Shown) -> String {
    let state = match (shown.enrolled, shown.source) {
        (false, _) => "not in the mesh: nothing decides over connections to it",
        (true, Source::Objects) => "in the mesh, as the objects say; its agent was not asked",
        (true, Source::Agent) => &shown.state,
    };
    match shown.reason.is_empty() {
        true => format!(": {state}"),
        false => format!(": {state} ({})", shown.reason),
    }
}

fn facts(shown: &Shown) -> Vec<Vec<String>> {
    let mut facts = Vec::new();
    let mut add = |name: &str, value: String| facts.push(vec![name.to_owned(), value]);
    if !shown.identity.is_empty() {
        add("identity", shown.identity.clone());
    }
    if let Some(mode) = &shown.peer_mode {
        let ports = mode.ports.iter().map(|it| format!("; port {}: {}", it.port, it.mode));
        let ports = ports.collect::<String>();
        add("peer mode", format!("{} ({}){ports}", mode.mode, mode.from));
    }
    if !shown.probe_ports.is_empty() {
        let ports = list(&shown.probe_ports);
        add("probes", format!("port {ports} is open to the pod's own node in every peer mode"));
    }
    if let Some(default) = &shown.default_action {
        add(
            "default",
            format!("{} ({}) where no ALLOW policy governs", default.action, default.from),
        );
    }
    facts
}

/// A row a rule, in the order in which the policies are asked.
fn policies(policies: &[Policy], wide: bool) -> Vec<Vec<String>> {
    let mut header = vec!["", "POLICY", "FOR", "ACTION", "MODE"];
    header.extend(wide.then_some("PORTS"));
    header.push("RULES");
    let mut rows = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for (at, policy) in policies.iter().enumerate() {
        let mut row = vec![(at + 1).to_string(), policy.name.clone()];
        if !policy.in_use {
            row.extend(["not in use", "denies all", "ENFORCE"].map(str::to_owned));
            row.extend(wide.then(String::new));
            row.push(policy.refusal.clone());
            rows.push(row);
            continue;
        }
        row.extend(
            [policy.attached_by.as_str(), policy.action, policy.enforcement].map(str::to_owned),
        );
        row.extend(wide.then(|| ports(policy)));
        let blank = vec![String::new(); row.len()];
        let mut rules = policy.rules.iter().map(|rule| {
            let words = format!("{}: {}", rule.name, rule.words);
            if wide { words } else { cut(&words) }
        });
        row.push(rules.next().unwrap_or_else(|| "none: it matches nobody".to_owned()));
        rows.push(row);
        rows.extend(rules.map(|rule| blank.iter().cloned().chain([rule]).collect()));
    }
    rows
}

fn ports(policy: &Policy) -> String {
    match (policy.ports.is_empty(), policy.attached_by.starts_with("Service")) {
        (false, _) => list(&policy.ports),
        (true, true) => "none".to_owned(),
        (true, false) => "all".to_owned(),
    }
}

fn list(ports: &[u32]) -> String {
    ports.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

fn cut(words: &str) -> String {
    if words.chars().count() <= WORDS {
        return words.to_owned();
    }
    words.chars().take(WORDS - 1).chain(['…']).collect()
}

fn verdict(judgement: &Judgement, palette: Palette) -> String {
    let caller = match (judgement.identity.as_str(), judgement.unproved.as_str()) {
        ("", "") => "plaintext".to_owned(),
        ("", why) => format!("plaintext ({why})"),
        (identity, _) => identity.to_owned(),
    };
    let address = match judgement.address.as_str() {
        "" => "an unknown address (--from-ip)",
        address => address,
    };
    let tone = match (judgement.allowed, judgement.reason.contains("without audit")) {
        (false, _) => Tone::Bad,
        (true, true) => Tone::Notable,
        (true, false) => Tone::Good,
    };
    let reason = palette.paint(tone, &judgement.reason);
    format!("{caller} from {address} to port {}: {reason}", judgement.port)
}

#[cfg(test)]
mod tests {
    use mesh_common::api::v1;

    use super::*;

    fn name(name: &str) -> Option<v1::NamespacedName> {
        Some(v1::NamespacedName { namespace: "shop".into(), name: name.into() })
    }

    fn pod() -> v1::PodAuthorization {
        use v1::authorization_policy::Action;
        let rule = |name: &str, ports: Vec<u32>| v1::Rule {
            name: name.into(),
            from: Vec::new(),
            to: vec![v1::Operation { ports, not_ports: Vec::new() }],
        };
        let policy = v1::AuthorizationPolicy {
            name: name("allow"),
            action: Action::Allow.into(),
            rules: vec![rule("0", vec![80]), rule("many", (1000..1100).collect())],
            ..Default::default()
        };
        let known =
            v1::AttachedPolicy { name: name("allow"), policy: Some(policy), ..Default::default() };
        let refused = v1::AttachedPolicy {
            name: name("new"),
            refusal: "upgrade the agent".into(),
            ..Default::default()
        };
        v1::PodAuthorization {
            name: name("web"),
            node: "node-2".into(),
            enrolled: true,
            state: "captured".into(),
            identity: "spiffe://cluster.local/ns/shop/sa/web".into(),
            admission: Some(v1::Admission {
                default_action: Action::Deny.into(),
                peer_mode: v1::PeerMode::Strict.into(),
                port_modes: vec![v1::PortMode {
                    port: 9090,
                    mode: v1::PeerMode::Permissive.into(),
                }],
                peer_policy: name("strict"),
                probe_ports: vec![8081],
            }),
            policies: vec![refused, known],
            ..Default::default()
        }
    }

    fn shown(pod: &v1::PodAuthorization, wide: bool) -> String {
        text(&Shown::new(pod, Source::Agent), wide, Palette::plain())
    }

    #[test]
    fn a_table_says_what_decides_and_where_it_is_from() {
        let text = shown(&pod(), false);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "shop/web on node-2: captured");
        for part in [
            "peer mode  STRICT (PeerPolicy shop/strict); port 9090: PERMISSIVE",
            "probes     port 8081 is open",
            "default    DENY (mesh-wide: MeshConfig default)",
            "1  shop/new    not in use      denies all  ENFORCE  upgrade the agent",
            "2  shop/allow  namespace shop  ALLOW       ENFORCE  0: anyone to port 80\n",
            "many: anyone to port 1000 or 1001",
            "…\n",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        let wide = shown(&pod(), true);
        assert!(wide.contains("1098 or 1099\n") && wide.contains("ENFORCE  all"), "{wide}");
    }

    #[test]
    fn defaults_of_the_mesh_are_called_so() {
        let mut pod = pod();
        pod.admission = None;
        pod.policies.clear();
        let text = shown(&pod, false);
        assert!(text.contains("PERMISSIVE (mesh-wide: MeshConfig default, or none)\n"), "{text}");
        assert!(text.contains("ALLOW (mesh-wide: MeshConfig default, or none)"), "{text}");
        assert!(text.contains("no AuthorizationPolicy is attached"), "{text}");
        pod.enrolled = false;
        assert!(shown(&pod, false).contains("not in the mesh"), "{text}");
    }

    #[test]
    fn a_judgement_says_who_called_and_from_where() {
        let judgement = v1::Judgement {
            reason: "denied by AuthorizationPolicy shop/x rule 0".into(),
            unproved: "shop/a is not captured yet".into(),
            port: 80,
            ..Default::default()
        };
        let text = shown(&v1::PodAuthorization { judgement: Some(judgement), ..pod() }, false);
        assert_eq!(
            text.lines().last(),
            Some(
                "plaintext (shop/a is not captured yet) from an unknown address (--from-ip) to \
                 port 80: denied by AuthorizationPolicy shop/x rule 0"
            )
        );
    }
}
