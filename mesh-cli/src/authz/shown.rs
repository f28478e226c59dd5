//! What is shown of a pod: the same as a table and as JSON or YAML, whose fields keep name and
//! meaning.

use mesh_common::{SYSTEM_NAMESPACE, api::v1};
use serde::Serialize;

use super::words;

/// Who was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The agent of the pod's node.
    Agent,
    /// The API server: what an agent should say.
    Objects,
}

/// A pod and what decides over connections to it.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// `namespace/name`.
    pub pod: String,
    /// The node it is on.
    pub node: String,
    /// Who said so.
    pub source: Source,
    /// Whether labels put it into the mesh.
    pub enrolled: bool,
    /// As in `nodemesh status`; nothing where no agent was asked.
    pub state: String,
    /// Why it is in that state.
    pub reason: String,
    /// Its SPIFFE ID.
    pub identity: String,
    /// Whether callers have to prove who they are; absent outside the mesh, like what follows.
    pub peer_mode: Option<PeerMode>,
    /// What happens to a connection that no policy governs.
    pub default_action: Option<DefaultAction>,
    /// Ports that the pod's own node may probe in every peer mode.
    pub probe_ports: Vec<u32>,
    /// In the order in which they are asked.
    pub policies: Vec<Policy>,
    /// What becomes of the connection that was asked for.
    pub judgement: Option<Judgement>,
}

/// A peer mode and where it is from.
#[derive(Debug, Serialize)]
pub struct PeerMode {
    /// STRICT or PERMISSIVE.
    pub mode: &'static str,
    /// What says so.
    pub from: String,
    /// Where another mode holds.
    pub ports: Vec<PortMode>,
}

/// The peer mode of a port.
#[derive(Debug, Serialize)]
pub struct PortMode {
    /// The port of the pod.
    pub port: u32,
    /// STRICT or PERMISSIVE.
    pub mode: &'static str,
}

/// What happens to a connection that no policy governs.
#[derive(Debug, Serialize)]
pub struct DefaultAction {
    /// ALLOW or DENY.
    pub action: &'static str,
    /// What says so.
    pub from: String,
}

/// An AuthorizationPolicy that is attached to the pod.
#[derive(Debug, Serialize)]
pub struct Policy {
    /// `namespace/name`.
    pub name: String,
    /// Whether it is in use; one that is not denies everything.
    pub in_use: bool,
    /// Why it is not.
    pub refusal: String,
    /// What selects the pod.
    pub attached_by: String,
    /// ALLOW or DENY.
    pub action: &'static str,
    /// ENFORCE or AUDIT.
    pub enforcement: &'static str,
    /// The ports that it is about; empty for all, and where its Service leads to none.
    pub ports: Vec<u32>,
    /// In words.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Serialize)]
pub struct Rule {
    /// Its name, or its index.
    pub name: String,
    /// Whom it is about, and what.
    pub words: String,
}

/// What becomes of a connection.
#[derive(Debug, Serialize)]
pub struct Judgement {
    /// Whether it is allowed.
    pub allowed: bool,
    /// As flows have it.
    pub reason: String,
    /// The AuthorizationPolicies that decided.
    pub policies: Vec<String>,
    /// The rule that decided.
    pub rule: String,
    /// Which identity the caller proves.
    pub identity: String,
    /// Why it proves none.
    pub unproved: String,
    /// From where it calls.
    pub address: String,
    /// The port of the pod.
    pub port: u32,
}

impl Shown {
    /// What `source` said of a pod.
    pub fn new(pod: &v1::PodAuthorization, source: Source) -> Self {
        let admission = pod.enrolled.then(|| pod.admission.clone().unwrap_or_default());
        Self {
            pod: pod.name.as_ref().map(words::name).unwrap_or_default(),
            node: pod.node.clone(),
            source,
            enrolled: pod.enrolled,
            state: pod.state.clone(),
            reason: pod.reason.clone(),
            identity: pod.identity.clone(),
            peer_mode: admission.as_ref().map(peer_mode),
            default_action: admission.as_ref().map(default_action),
            probe_ports: admission.map(|it| it.probe_ports).unwrap_or_default(),
            policies: pod.policies.iter().map(policy).collect(),
            judgement: pod.judgement.as_ref().map(judgement),
        }
    }
}

/// What says so where no policy does. Without a MeshConfig plaintext may, and so may whom no policy
/// governs; with one that says the same, nobody could tell the difference.
fn mesh_wide(is_builtin: bool) -> String {
    let from = if is_builtin { "MeshConfig default, or none" } else { "MeshConfig default" };
    format!("mesh-wide: {from}")
}

fn peer_mode(admission: &v1::Admission) -> PeerMode {
    let from = match &admission.peer_policy {
        Some(policy) if policy.namespace == SYSTEM_NAMESPACE => {
            format!("mesh-wide: PeerPolicy {}", words::name(policy))
        }
        Some(policy) => format!("PeerPolicy {}", words::name(policy)),
        None => mesh_wide(admission.peer_mode() != v1::PeerMode::Strict),
    };
    let port = |it: &v1::PortMode| PortMode { port: it.port, mode: mode(it.mode()) };
    let ports = admission.port_modes.iter().filter(|it| it.mode() != admission.peer_mode());
    PeerMode { mode: mode(admission.peer_mode()), from, ports: ports.map(port).collect() }
}

fn mode(mode: v1::PeerMode) -> &'static str {
    if mode == v1::PeerMode::Strict { "STRICT" } else { "PERMISSIVE" }
}

fn default_action(admission: &v1::Admission) -> DefaultAction {
    let is_deny = admission.default_action() == v1::authorization_policy::Action::Deny;
    DefaultAction { action: if is_deny { "DENY" } else { "ALLOW" }, from: mesh_wide(!is_deny) }
}

fn policy(attached: &v1::AttachedPolicy) -> Policy {
    use v1::authorization_policy::{Action, Enforcement};
    let name = attached.name.as_ref().map(words::name).unwrap_or_default();
    let Some(policy) = &attached.policy else {
        return Policy {
            name,
            in_use: false,
            refusal: attached.refusal.clone(),
            attached_by: String::new(),
            action: "",
            enforcement: "",
            ports: Vec::new(),
            rules: Vec::new(),
        };
    };
    let rule = |rule: &v1::Rule| Rule { name: rule.name.clone(), words: words::rule(rule) };
    Policy {
        name,
        in_use: true,
        refusal: String::new(),
        attached_by: words::attachment(policy),
        action: if policy.action() == Action::Deny { "DENY" } else { "ALLOW" },
        enforcement: if policy.enforcement() == Enforcement::Audit { "AUDIT" } else { "ENFORCE" },
        ports: attached.ports.clone(),
        rules: policy.rules.iter().map(rule).collect(),
    }
}

fn judgement(judgement: &v1::Judgement) -> Judgement {
    Judgement {
        allowed: judgement.allowed,
        reason: judgement.reason.clone(),
        policies: judgement.policies.iter().map(words::name).collect(),
        rule: judgement.rule.clone(),
        identity: judgement.identity.clone(),
        unproved: judgement.unproved.clone(),
        address: judgement.address.clone(),
        port: judgement.port,
    }
}
