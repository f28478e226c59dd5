//! One captured pod in the kernel: its own instance of the `inbound` program, and its entry in
//! the map by which its outbound connections are captured.

use std::{
    io,
    net::{IpAddr, TcpListener},
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
};

use mesh_common::bpf::{self, Address, Inbound, InboundMode, Listener};

use super::{
    CaptureError,
    enroll::Pod,
    error::map,
    kernel::InboundProgram,
    links::{HookState, PinnedLink, Wanted},
    listeners::PodListeners,
    pins::Pins,
    record::Record,
};
use crate::sys::{Hook, Map, Target};

/// A pod whose program is loaded and configured, and not attached yet.
pub struct Prepared {
    pod: Arc<Pod>,
    record: Record,
    inbound: InboundProgram,
}

/// A pod whose connections go to the proxy.
pub struct Captured {
    /// The pod.
    pub pod: Arc<Pod>,
    /// What is on disk about it.
    pub record: Record,
    link: PinnedLink,
    config: Map<u32, Inbound>,
    repairs: u64,
}

impl Prepared {
    /// Configures a program for a pod.
    pub fn new(
        pod: &Arc<Pod>,
        record: Record,
        mode: InboundMode,
        inbound: InboundProgram,
    ) -> Result<Self, CaptureError> {
        configure(&inbound.config, &inbound_config(pod, mode))?;
        Ok(Self { pod: Arc::clone(pod), record, inbound })
    }

    /// Shows the program one listener of each group.
    pub fn register(&self, listeners: &PodListeners) -> Result<(), CaptureError> {
        let kinds = [
            (&listeners.outbound, Listener::Outbound4, Listener::Outbound6),
            (&listeners.inbound, Listener::Inbound4, Listener::Inbound6),
            (&listeners.hbone, Listener::Hbone4, Listener::Hbone6),
        ];
        let insert = |socket: &TcpListener, ipv4, ipv6| {
            let index = if socket.local_addr()?.is_ipv4() { ipv4 } else { ipv6 };
            let descriptor = u32::try_from(socket.as_raw_fd()).map_err(io::Error::other)?;
            self.inbound.listeners.insert(&(index as u32), &descriptor)
        };
        for (sockets, ipv4, ipv6) in kinds {
            for socket in sockets {
                insert(socket, ipv4, ipv6).map_err(map("LISTENERS"))?;
            }
        }
        Ok(())
    }

    /// Attaches the program, or puts it into the link that an earlier agent left, and has the
    /// pod's outbound connections captured.
    pub fn attach(self, pins: &Pins, pods: &Map<u64, bpf::Pod>) -> Result<Captured, CaptureError> {
        let Self { pod, record, inbound } = self;
        let place = pod.netns.as_fd().try_clone_to_owned().map_err(CaptureError::Pins)?;
        let link = PinnedLink::establish(Wanted {
            name: format!("inbound {}", pod.name),
            path: pins.pod(record.cookie),
            program: inbound.program,
            program_id: inbound.program_id,
            place,
            target: Target::Netns(pod.netns.inode()),
            hook: Hook::SkLookup,
        })?;
        pods.insert(&record.cookie, &pod_entry(&pod)).map_err(map("PODS"))?;
        Ok(Captured { pod, record, link, config: inbound.config, repairs: 0 })
    }
}

impl Captured {
    /// Changes how plaintext is received from now on.
    pub fn set_mode(&self, mode: InboundMode) -> Result<(), CaptureError> {
        configure(&self.config, &inbound_config(&self.pod, mode))
    }

    /// Leaves everything that arrives to the kernel, but for connections that were redirected to
    /// the proxy a moment ago.
    pub fn let_everything_pass(&self) -> Result<(), CaptureError> {
        // Without addresses nothing is for the pod.
        configure(&self.config, &Inbound { netns: self.record.cookie, ..Inbound::default() })
    }

    /// Looks whether the pod's hooks are in place, and puts back what is not.
    pub fn verify_and_repair(&mut self, pods: &Map<u64, bpf::Pod>) -> Vec<HookState> {
        let mut states = vec![self.link.verify_and_repair()];
        if !self.record.released {
            states.push(self.verify_and_repair_entry(pods));
        }
        states
    }

    /// Without its entry in `PODS` a pod's outbound connections are not captured.
    fn verify_and_repair_entry(&mut self, pods: &Map<u64, bpf::Pod>) -> HookState {
        let wanted = pod_entry(&self.pod);
        let attached = matches!(pods.get(&self.record.cookie), Ok(Some(found)) if found == wanted);
        let mut error = None;
        if !attached {
            self.repairs += 1;
            error = pods.insert(&self.record.cookie, &wanted).err().map(|error| error.to_string());
        }
        let name = format!("outbound {}", self.pod.name);
        HookState { name, attached, repairs: self.repairs, error }
    }
}

fn pod_entry(pod: &Pod) -> bpf::Pod {
    let mut entry = bpf::Pod::default();
    for address in &pod.addresses {
        match address {
            IpAddr::V4(_) => entry.ipv4 = Address::from(*address),
            IpAddr::V6(_) => entry.ipv6 = Address::from(*address),
        }
    }
    entry
}

fn inbound_config(pod: &Pod, mode: InboundMode) -> Inbound {
    let bpf::Pod { ipv4, ipv6 } = pod_entry(pod);
    Inbound { netns: pod.netns.cookie(), ipv4, ipv6, mode: mode as u32, reserved: 0 }
}

fn configure(config: &Map<u32, Inbound>, value: &Inbound) -> Result<(), CaptureError> {
    config.insert(&0, value).map_err(map("INBOUND"))
}
