//! How a captured pod receives plaintext: one mode, another at some of its ports, and ports for the
//! probes of its node.

use std::collections::BTreeMap;

use mesh_common::{
    bpf::{InboundMode, MODE_PORTS},
    model::{Action, PeerMode, Workload},
};

/// What `inbound` does with plaintext to each port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundModes {
    /// At every port that is not in `ports`.
    pub others: InboundMode,
    /// At these ports.
    pub ports: BTreeMap<u16, InboundMode>,
    /// Ports that the node's probes get to, whatever the mode.
    pub probes: Vec<u16>,
}

impl From<InboundMode> for InboundModes {
    /// The same mode at every port, and no probes.
    fn from(others: InboundMode) -> Self {
        Self { others, ports: BTreeMap::new(), probes: Vec::new() }
    }
}

impl InboundModes {
    /// What policies and peer modes ask for. What is refused whatever else holds never gets to the
    /// proxy; what a policy has to be asked about always does.
    pub fn of(workload: &Workload) -> Self {
        let admission = &workload.admission;
        let is_judged =
            admission.default_action == Action::Deny || !workload.authorization_policies.is_empty();
        let mode = |peers| match peers {
            PeerMode::Strict => InboundMode::Refuse,
            PeerMode::Permissive if is_judged => InboundMode::Proxy,
            PeerMode::Permissive => InboundMode::Pass,
        };
        let others = mode(admission.peer_mode);
        let ports = admission.port_modes.iter().map(|it| (it.port, mode(it.mode)));
        let ports: BTreeMap<_, _> = ports.filter(|(_, mode)| *mode != others).collect();
        let probes = admission.probe_ports.clone();
        if ports.len() > MODE_PORTS as usize {
            // The proxy judges by port as well, and only refuses a little later.
            return Self { probes, ..InboundMode::Proxy.into() };
        }
        Self { others, ports, probes }
    }
}

#[cfg(test)]
mod tests {
    use mesh_common::model::{Admission, NamespacedName, PortMode};

    use super::*;

    fn modes(admission: Admission, is_judged: bool) -> InboundModes {
        let policies = is_judged.then(|| NamespacedName::new("shop", "web"));
        InboundModes::of(&Workload {
            name: NamespacedName::new("shop", "web"),
            uid: "web".into(),
            node: None,
            addresses: Vec::new(),
            identity: None,
            enrolled: true,
            captured: false,
            memberships: Vec::new(),
            authorization_policies: policies.into_iter().collect(),
            admission,
        })
    }

    fn ports(ports: impl IntoIterator<Item = u16>, mode: PeerMode) -> Vec<PortMode> {
        ports.into_iter().map(|port| PortMode { port, mode }).collect()
    }

    #[test]
    fn peer_modes_policies_and_the_default_action_choose() {
        let strict = Admission { peer_mode: PeerMode::Strict, ..Admission::default() };
        let deny = Admission { default_action: Action::Deny, ..Admission::default() };
        assert_eq!(modes(Admission::default(), false), InboundMode::Pass.into());
        assert_eq!(modes(Admission::default(), true), InboundMode::Proxy.into());
        assert_eq!(modes(deny, false), InboundMode::Proxy.into());
        assert_eq!(modes(strict, true), InboundMode::Refuse.into());
    }

    #[test]
    fn ports_differ_only_where_their_mode_does() {
        let strict_port =
            || Admission { port_modes: ports([80], PeerMode::Strict), ..Admission::default() };
        let open_port = || Admission {
            peer_mode: PeerMode::Strict,
            port_modes: [ports([80], PeerMode::Permissive), ports([81], PeerMode::Strict)].concat(),
            ..Admission::default()
        };
        use InboundMode::{Pass, Proxy, Refuse};
        for (admission, is_judged, others, at_80) in [
            (strict_port(), false, Pass, Refuse),
            (strict_port(), true, Proxy, Refuse),
            (open_port(), false, Refuse, Pass),
            (open_port(), true, Refuse, Proxy),
        ] {
            let ports = BTreeMap::from([(80, at_80)]);
            let expected = InboundModes { others, ports, probes: Vec::new() };
            assert_eq!(modes(admission, is_judged), expected);
        }
    }

    #[test]
    fn more_ports_than_the_kernel_is_told_are_left_to_the_proxy() {
        let admission = |count| Admission {
            port_modes: ports(1..=count, PeerMode::Strict),
            ..Admission::default()
        };
        let most = u16::try_from(MODE_PORTS).expect("ports");
        assert_eq!(modes(admission(most), false).ports.len(), usize::from(most));
        assert_eq!(modes(admission(most + 1), false), InboundMode::Proxy.into());
    }
}
