//! The guards of one pod: `guard_pod` at its own end of its link, `guard_host` at the node's.

use std::sync::Arc;

use mesh_common::model::NamespacedName;

use super::{
    enroll::Pod,
    interface::{self, PodLink},
    kernel::LoadedProgram,
    links::{HookState, LinkError, PinnedLink, Place, Wanted},
    pins::{self, Pins},
    routing::RoutingError,
};
use crate::sys::{Hook, Target};

/// What is said of a pod whose link does not end in the node's namespace.
const NO_PEER: &str = "the pod's interface is no veth pair with its other end in the node's \
    network namespace, so that raw frames that pass by the pod's own queues cannot be stopped \
    there: drop CAP_NET_RAW in its containers";

/// Why a pod cannot be guarded.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// No netlink.
    #[error("cannot look for the interface of {pod}: {source}")]
    Look {
        /// The pod.
        pod: NamespacedName,
        /// Why.
        source: RoutingError,
    },
    /// The pod does not have the address that the control plane says it has.
    #[error("no interface of {0} has its address; check its status.podIPs and --pod-netns")]
    NoInterface(NamespacedName),
    /// Frames that the programs cannot read.
    #[error(
        "the interface of {0} is not Ethernet, and nodemesh cannot guard what leaves through it; label the pod nodemesh.dev/mesh=disabled"
    )]
    NotEthernet(NamespacedName),
    /// The programs.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// The guards of one pod.
pub struct Guards {
    pod: Arc<Pod>,
    inside: PinnedLink,
    outside: Option<PinnedLink>,
}

impl Guards {
    /// Attaches both, or adopts those of an earlier agent.
    pub fn establish(
        pod: &Arc<Pod>,
        pins: &Pins,
        guard_pod: LoadedProgram,
        guard_host: LoadedProgram,
    ) -> Result<Self, GuardError> {
        let link = find(pod)?.ok_or_else(|| GuardError::NoInterface(pod.name.clone()))?;
        if !link.is_ethernet {
            return Err(GuardError::NotEthernet(pod.name.clone()));
        }
        let cookie = pod.netns.cookie();
        let wanted = |hook, loaded: LoadedProgram, netns, interface, kind| Wanted {
            name: format!("{hook} {}", pod.name),
            path: pins.pod(cookie, hook),
            program: loaded.program,
            program_id: loaded.id,
            place: Place::Interface(netns, interface),
            target: Target::Interface(interface),
            hook: kind,
        };
        let netns = Some(Arc::clone(&pod.netns));
        let outside = match link.peer {
            Some(peer) => {
                let hook = wanted(pins::GUARD_HOST, guard_host, None, peer, Hook::TcxIngress);
                Some(PinnedLink::establish(hook)?)
            }
            None => {
                tracing::warn!(pod = %pod.name, "{NO_PEER}");
                None
            }
        };
        let hook = wanted(pins::GUARD_POD, guard_pod, netns, link.interface, Hook::TcxEgress);
        Ok(Self { pod: Arc::clone(pod), inside: PinnedLink::establish(hook)?, outside })
    }

    /// Looks whether both are in place, and puts back what is not.
    pub fn verify_and_repair(&mut self) -> Vec<HookState> {
        let links = [Some(&self.inside), self.outside.as_ref()];
        if links.into_iter().flatten().any(PinnedLink::has_lost_its_interface) {
            match find(&self.pod) {
                Ok(Some(link)) => self.move_to(&link),
                // Without an interface there is no way out of the pod.
                Ok(None) => return Vec::new(),
                Err(error) => tracing::warn!(%error, "cannot look after the guards of a pod"),
            }
        }
        let outside = match &mut self.outside {
            Some(outside) => outside.verify_and_repair(),
            None => HookState {
                name: format!("{} {}", pins::GUARD_HOST, self.pod.name),
                attached: true,
                repairs: 0,
                error: Some(NO_PEER.to_owned()),
            },
        };
        vec![self.inside.verify_and_repair(), outside]
    }

    fn move_to(&mut self, link: &PodLink) {
        self.inside.belongs_at(Some(Arc::clone(&self.pod.netns)), link.interface);
        if let (Some(outside), Some(peer)) = (&mut self.outside, link.peer) {
            outside.belongs_at(None, peer);
        }
    }
}

fn find(pod: &Pod) -> Result<Option<PodLink>, GuardError> {
    interface::find(&pod.netns, &pod.addresses)
        .map_err(|source| GuardError::Look { pod: pod.name.clone(), source })
}
