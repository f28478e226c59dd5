//! What holds for connections to a workload where no AuthorizationPolicy speaks.

use super::{Action, NamespacedName};

/// Whether callers have to prove who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PeerMode {
    /// Plaintext is let through where no policy refuses it.
    #[default]
    Permissive,
    /// Plaintext is refused.
    Strict,
}

/// What holds for connections to a workload besides its policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// What happens to a connection that no policy governs.
    pub default_action: Action,
    /// Whether callers have to prove who they are.
    pub peer_mode: PeerMode,
    /// Ports for which another peer mode holds, by port.
    pub port_modes: Vec<PortMode>,
    /// The PeerPolicy that says so; `None` where the mesh's default holds.
    pub peer_policy: Option<NamespacedName>,
    /// Ports that probes and lifecycle hooks of the workload name, sorted: its own node gets there,
    /// whatever the peer mode.
    pub probe_ports: Vec<u16>,
}

/// A port of a workload and the peer mode there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMode {
    /// The port of the workload.
    pub port: u16,
    /// The mode.
    pub mode: PeerMode,
}

impl Admission {
    /// The peer mode at `port`.
    pub fn peer_mode_at(&self, port: u16) -> PeerMode {
        let of_port = self.port_modes.iter().find(|it| it.port == port);
        of_port.map_or(self.peer_mode, |it| it.mode)
    }

    /// Whether plaintext is refused at every port.
    pub fn is_strict_everywhere(&self) -> bool {
        self.peer_mode == PeerMode::Strict
            && self.port_modes.iter().all(|it| it.mode == PeerMode::Strict)
    }

    /// Whether plaintext is refused at some port.
    pub fn is_strict_somewhere(&self) -> bool {
        self.peer_mode == PeerMode::Strict
            || self.port_modes.iter().any(|it| it.mode == PeerMode::Strict)
    }

    /// Why plaintext to `port` is refused, where it is.
    pub fn refuses_plaintext(&self, port: u16) -> Option<String> {
        if self.peer_mode_at(port) == PeerMode::Permissive {
            return None;
        }
        let by = match &self.peer_policy {
            Some(policy) => format!("PeerPolicy {policy}"),
            None => "MeshConfig default".to_owned(),
        };
        Some(format!("denied by {by}: port {port} is strict and the caller speaks plaintext"))
    }
}
