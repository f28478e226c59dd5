//! One captured pod in the kernel: its own instances of the programs, its entry in the map by
//! which its outbound connections are captured, and what delivery needs in its namespace.

use std::{
    io,
    net::{IpAddr, TcpListener},
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
};

use mesh_common::bpf::{self, Address, Inbound, Listener};

use super::{
    CaptureError,
    enroll::Pod,
    error::map,
    guard::Guards,
    interface::{self, Aside, PodLink},
    kernel::PodPrograms,
    links::{HookState, PinnedLink, Place, Wanted},
    listeners::PodListeners,
    modes::InboundModes,
    pins::{self, Pins},
    probes::Probes,
    record::Record,
    routing, sysctl,
};
use crate::sys::{Hook, Map, Target};

/// A pod whose program is loaded and configured, and not attached yet.
pub struct Prepared {
    pod: Arc<Pod>,
    record: Record,
    programs: PodPrograms,
    ends: PodLink,
}

/// A pod whose connections go to the proxy.
pub struct Captured {
    /// The pod.
    pub pod: Arc<Pod>,
    /// What is on disk about it.
    pub record: Record,
    link: PinnedLink,
    guards: Guards,
    /// The interface that has the pod's address.
    interface: u32,
    config: Map<u32, Inbound>,
    port_modes: Map<u32, u32>,
    /// How often the entry, the rule and the settings were put back.
    repairs: [u64; 3],
    notes: Vec<String>,
}

impl Prepared {
    /// Configures a program for a pod.
    pub fn new(
        pod: &Arc<Pod>,
        record: Record,
        modes: &InboundModes,
        programs: PodPrograms,
        ends: PodLink,
    ) -> Result<Self, CaptureError> {
        configure_modes(pod, modes, &programs.config, &programs.port_modes)?;
        Ok(Self { pod: Arc::clone(pod), record, programs, ends })
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
            self.programs.listeners.insert(&(index as u32), &descriptor)
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
        let Self { pod, record, programs, ends } = self;
        let PodPrograms { inbound, guards, config, port_modes, listeners: _ } = programs;
        let place = pod.netns.as_fd().try_clone_to_owned().map_err(CaptureError::Pins)?;
        let link = PinnedLink::establish(Wanted {
            name: format!("{} {}", pins::INBOUND, pod.name),
            path: pins.pod(record.cookie, pins::INBOUND),
            program: inbound.program,
            program_id: inbound.id,
            place: Place::Open(place),
            target: Target::Netns(pod.netns.inode()),
            hook: Hook::SkLookup,
        })?;
        let interface = ends.interface;
        pods.insert(&record.cookie, &pod_entry(&pod, interface)).map_err(map("PODS"))?;
        // Last: from here on whatever is not captured does not get out.
        let guards = Guards::establish(&pod, pins, guards, &ends)?;
        let (repairs, notes) = ([0; 3], Vec::new());
        let mut captured =
            Captured { pod, record, link, guards, interface, config, port_modes, repairs, notes };
        captured.look_around();
        Ok(captured)
    }
}

impl Captured {
    /// Changes how plaintext is received from now on.
    pub fn set_modes(&self, modes: &InboundModes, probes: &Probes) -> Result<(), CaptureError> {
        probes.set(&self.pod, &modes.probes)?;
        configure_modes(&self.pod, modes, &self.config, &self.port_modes)
    }

    /// Leaves everything that arrives and leaves to the kernel, but for connections that were
    /// redirected to the proxy a moment ago.
    pub fn let_everything_pass(&self) -> Result<(), CaptureError> {
        // Without addresses nothing is for the pod.
        configure(&self.config, &Inbound { netns: self.record.cookie, ..Inbound::default() })
    }

    /// What of the pod is not in the mesh, or not guarded, for people.
    pub fn notes(&self) -> &[String] {
        if self.record.released { &[] } else { &self.notes }
    }

    /// Looks for interfaces that came or went.
    pub fn look_around(&mut self) {
        let asides = match interface::asides(&self.pod.netns, &self.pod.addresses) {
            Ok(asides) => asides,
            Err(error) => {
                tracing::warn!(pod = %self.pod.name, %error, "cannot look for further interfaces");
                return;
            }
        };
        let guards = self.guards.note().map(str::to_owned);
        let notes: Vec<_> = guards.into_iter().chain(asides.iter().map(Aside::note)).collect();
        for note in notes.iter().filter(|note| !self.notes.contains(note)) {
            tracing::info!(pod = %self.pod.name, note);
        }
        self.notes = notes;
    }

    /// Looks whether the pod's hooks are in place, and puts back what is not.
    pub fn verify_and_repair(&mut self, pods: &Map<u64, bpf::Pod>) -> Vec<HookState> {
        let mut states = vec![self.link.verify_and_repair()];
        let Self { pod, record, interface, repairs: [entry, rule, settings], .. } = self;
        let mut look = |what: &str, repairs: &mut u64, was_missing: Result<bool, String>| {
            *repairs += u64::from(was_missing == Ok(true));
            states.push(HookState {
                name: format!("{what} {}", pod.name),
                attached: was_missing == Ok(false),
                repairs: *repairs,
                error: was_missing.err(),
            });
        };
        let added = routing::add(&pod.netns, &pod.addresses);
        look("rule", rule, added.map_err(|error| error.to_string()));
        let applied = sysctl::apply(&pod.netns, &record.sysctls);
        look("sysctls", settings, applied.map_err(|error| error.to_string()));
        if !record.released {
            let wanted = pod_entry(pod, *interface);
            look("outbound", entry, put_back(pods, record.cookie, &wanted));
            states.extend(self.guards.verify_and_repair(|link| *interface = link.interface));
        }
        states
    }
}

/// Puts a pod's entry back, without which its outbound connections are not captured. Whether it
/// was missing.
fn put_back(pods: &Map<u64, bpf::Pod>, cookie: u64, wanted: &bpf::Pod) -> Result<bool, String> {
    let is_there = matches!(pods.get(&cookie), Ok(Some(found)) if found == *wanted);
    if !is_there {
        pods.insert(&cookie, wanted).map_err(|error| error.to_string())?;
    }
    Ok(!is_there)
}

fn pod_entry(pod: &Pod, interface: u32) -> bpf::Pod {
    let mut entry = bpf::Pod { interface, ..bpf::Pod::default() };
    for address in &pod.addresses {
        match address {
            IpAddr::V4(_) => entry.ipv4 = Address::from(*address),
            IpAddr::V6(_) => entry.ipv6 = Address::from(*address),
        }
    }
    entry
}

/// Each port goes from its earlier mode to its new one, without another in between.
fn configure_modes(
    pod: &Pod,
    modes: &InboundModes,
    config: &Map<u32, Inbound>,
    port_modes: &Map<u32, u32>,
) -> Result<(), CaptureError> {
    let map = map("PORT_MODES");
    // Those that go make room only at the end: what had to be removed first would be unruled.
    let known = port_modes.keys().map_err(&map)?;
    for (port, mode) in &modes.ports {
        port_modes.insert(&(*port).into(), &(*mode as u32)).map_err(&map)?;
    }
    let bpf::Pod { ipv4, ipv6, .. } = pod_entry(pod, 0);
    let (netns, mode) = (pod.netns.cookie(), modes.others as u32);
    configure(config, &Inbound { netns, ipv4, ipv6, mode, reserved: 0 })?;
    let is_left = |port: &u32| !modes.ports.keys().any(|kept| u32::from(*kept) == *port);
    for port in known.into_iter().filter(is_left) {
        port_modes.remove(&port).map_err(&map)?;
    }
    Ok(())
}

fn configure(config: &Map<u32, Inbound>, value: &Inbound) -> Result<(), CaptureError> {
    config.insert(&0, value).map_err(map("INBOUND"))
}
