//! Which peer mode and default action hold for which pod.

use std::cmp::Reverse;

use mesh_common::{
    SYSTEM_NAMESPACE,
    model::{Action, Admission, PeerMode},
};

use super::{Problems, authorization::selects};
use crate::{
    index::Index,
    object::{Kind, PeerPolicy, Pod},
};

/// The PeerPolicies and what holds without them.
pub(super) struct Admissions<'o> {
    default_action: Action,
    peer_mode: PeerMode,
    /// The most telling first.
    policies: Vec<&'o PeerPolicy>,
}

impl<'o> Admissions<'o> {
    /// Takes the PeerPolicies of `index`; those that another one leaves no pods are problems.
    pub fn new(index: &Index<'o>, problems: &mut Problems) -> Self {
        let mut policies: Vec<_> = index.peer_policies.values().copied().collect();
        policies.sort_by_key(|policy| rank(policy));
        for pair in policies.windows(2) {
            let is_same = |it: &PeerPolicy| (it.name.namespace.clone(), it.match_labels.clone());
            if is_same(pair[0]) == is_same(pair[1]) {
                let reason = format!(
                    "PeerPolicy {} is for the same pods and is used: remove one",
                    pair[0].name
                );
                problems.add(Kind::PeerPolicy, &pair[1].name, reason);
            }
        }
        let config = index.config;
        Self {
            default_action: config.map_or(Action::Allow, |config| config.default_action),
            peer_mode: config.map_or(PeerMode::Permissive, |config| config.peer_mode),
            policies,
        }
    }

    /// What holds for `pod`.
    pub fn of(&self, pod: &Pod) -> Admission {
        let of_pod = self.policies.iter().find(|policy| {
            let namespace = &*policy.name.namespace;
            (namespace == &*pod.name.namespace || namespace == SYSTEM_NAMESPACE)
                && selects(&policy.match_labels, &pod.labels)
        });
        Admission {
            default_action: self.default_action,
            peer_mode: of_pod.map_or(self.peer_mode, |policy| policy.mode),
            port_modes: of_pod.map(|policy| policy.ports.clone()).unwrap_or_default(),
            peer_policy: of_pod.map(|policy| policy.name.clone()),
            probe_ports: pod.probe_ports.clone(),
        }
    }
}

/// A namespace's own before the mesh's, with a selector before without, strict before permissive,
/// then by labels and name.
fn rank(policy: &PeerPolicy) -> impl Ord + use<> {
    (
        &*policy.name.namespace == SYSTEM_NAMESPACE,
        policy.match_labels.is_empty(),
        Reverse(policy.mode == PeerMode::Strict),
        policy.match_labels.clone(),
        policy.name.clone(),
    )
}
