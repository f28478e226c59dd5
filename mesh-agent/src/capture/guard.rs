//! The guards of one pod: `guard_pod` at its own end of its link, `guard_host` at the node's.

use std::{net::IpAddr, sync::Arc};

use mesh_common::model::NamespacedName;

use super::{
    enroll::Pod,
    interface::{self, PodLink},
    kernel::{GuardPrograms, LoadedProgram},
    links::{HookState, LinkError, PinnedLink, Place, Wanted},
    netns::Netns,
    pins::{self, Pins},
    preflight,
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
    #[error(
        "no interface of {pod} has the address {}; check its status.podIPs and --pod-netns",
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
    )]
    NoInterface {
        /// The pod.
        pod: NamespacedName,
        /// The addresses.
        addresses: Box<[IpAddr]>,
    },
    /// Frames that the programs cannot read.
    #[error(
        "the interface of {0} is not Ethernet, and nodemesh cannot guard what leaves through it; label the pod nodemesh.dev/mesh=disabled"
    )]
    NotEthernet(NamespacedName),
    /// The programs.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// What is said of every pod where the kernel cannot attach the guards.
const NO_TCX: &str = "the guards need Linux 6.6 (TCX): until then frames that a container makes \
    itself are not stopped; drop CAP_NET_RAW and CAP_NET_ADMIN in the pod's containers";

/// The guards of one pod, each where it can be.
pub struct Guards {
    pod: Arc<Pod>,
    inside: Option<PinnedLink>,
    outside: Option<PinnedLink>,
}

impl Guards {
    /// Attaches both at the ends of `link`, or adopts those of an earlier agent.
    pub fn establish(
        pod: &Arc<Pod>,
        pins: &Pins,
        programs: Option<GuardPrograms>,
        link: &PodLink,
    ) -> Result<Self, GuardError> {
        let Some(programs) = programs else {
            return Ok(Self { pod: Arc::clone(pod), inside: None, outside: None });
        };
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
                let hook = wanted(pins::GUARD_HOST, programs.host, None, peer, Hook::TcxIngress);
                Some(PinnedLink::establish(hook)?)
            }
            None => None,
        };
        let hook = wanted(pins::GUARD_POD, programs.pod, netns, link.interface, Hook::TcxEgress);
        let inside = Some(PinnedLink::establish(hook)?);
        Ok(Self { pod: Arc::clone(pod), inside, outside })
    }

    /// What they cannot do here, for people.
    pub fn note(&self) -> Option<&'static str> {
        match (&self.inside, &self.outside) {
            (None, _) => Some(NO_TCX),
            (Some(_), None) => Some(NO_PEER),
            (Some(_), Some(_)) => None,
        }
    }

    /// Looks whether both are in place, and puts back what is not; `moved` hears of another link.
    pub fn verify_and_repair(&mut self, moved: impl FnOnce(&PodLink)) -> Vec<HookState> {
        let links = [self.inside.as_ref(), self.outside.as_ref()];
        if links.into_iter().flatten().any(PinnedLink::has_lost_its_interface) {
            let Pod { name, netns, addresses, .. } = &*self.pod;
            match find(name, netns, addresses) {
                Ok(Some(link)) => {
                    self.move_to(&link);
                    moved(&link);
                }
                // Without an interface there is no way out of the pod.
                Ok(None) => return Vec::new(),
                Err(error) => tracing::warn!(%error, "cannot look after the guards of a pod"),
            }
        }
        let name = &self.pod.name;
        let reason = if self.inside.is_none() { NO_TCX } else { NO_PEER };
        let look = |guard: &mut Option<PinnedLink>, what| match guard {
            Some(guard) => guard.verify_and_repair(),
            None => HookState {
                name: format!("{what} {name}"),
                attached: true,
                repairs: 0,
                error: Some(reason.to_owned()),
            },
        };
        let inside = look(&mut self.inside, pins::GUARD_POD);
        vec![inside, look(&mut self.outside, pins::GUARD_HOST)]
    }

    fn move_to(&mut self, link: &PodLink) {
        if let Some(inside) = &mut self.inside {
            inside.belongs_at(Some(Arc::clone(&self.pod.netns)), link.interface);
        }
        if let (Some(outside), Some(peer)) = (&mut self.outside, link.peer) {
            outside.belongs_at(None, peer);
        }
    }
}

/// The link of `pod`, which is about to be captured.
///
/// # Errors
/// Where there is none, or none that can be guarded.
pub fn link_of(
    pod: &NamespacedName,
    netns: &Netns,
    addresses: &[IpAddr],
) -> Result<PodLink, GuardError> {
    let found = find(pod, netns, addresses)?;
    let none = || GuardError::NoInterface { pod: pod.clone(), addresses: addresses.into() };
    let link = found.ok_or_else(none)?;
    if preflight::has_tcx() && !link.is_ethernet {
        return Err(GuardError::NotEthernet(pod.clone()));
    }
    Ok(link)
}

fn find(
    pod: &NamespacedName,
    netns: &Netns,
    addresses: &[IpAddr],
) -> Result<Option<PodLink>, GuardError> {
    let found = interface::find(netns, addresses);
    found.map_err(|source| GuardError::Look { pod: pod.clone(), source })
}
