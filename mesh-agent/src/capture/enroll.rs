//! Taking pods into the mesh and letting them go, without a restart of anything.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, TcpListener},
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
    sync::Arc,
};

use mesh_common::{
    bpf::{self, Address, Inbound, InboundMode, Listener},
    identity::SpiffeId,
    model::{NamespacedName, Workload},
};

use super::{
    CaptureConfig,
    kernel::{Kernel, KernelError},
    links::{HookState, LinkError, PinnedLink, Wanted},
    listeners::{self, ListenError, PodListeners},
    netns::{Netns, NetnsError},
    pins::{self, Pins},
    preflight::{self, PreflightError},
    record::{Record, RecordError, Records},
    routing::{self, RoutingError},
    sockets::SocketTable,
    sysctl::{self, SysctlError},
};
use crate::sys::{Hook, Map, Target};

/// A captured pod, as the proxy sees it.
#[derive(Debug)]
pub struct Pod {
    /// Namespace and name.
    pub name: NamespacedName,
    /// What tells this pod from an earlier one of the same name.
    pub uid: Arc<str>,
    /// Who it is.
    pub identity: SpiffeId,
    /// Its addresses, each family at most once.
    pub addresses: Vec<IpAddr>,
    /// Its network namespace.
    pub netns: Arc<Netns>,
}

/// Why a pod, or the node, is not captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The machine lacks something.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The kernel programs.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Hooks that are no longer wanted.
    #[error("cannot remove old hooks: {0}; check --bpffs")]
    Pins(io::Error),
    /// The pod's namespace.
    #[error("{pod}: {source}")]
    Netns {
        /// The pod.
        pod: NamespacedName,
        /// Why.
        source: NetnsError,
    },
    /// The pod's listeners.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The pod's settings.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The pod's rule.
    #[error(transparent)]
    Routing(#[from] RoutingError),
    /// What is kept on disk.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The pod's hook.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A kernel map.
    #[error("cannot write the kernel map {map}: {source}; if it is full, raise --max-pods")]
    Map {
        /// The map.
        map: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The proxy did not take the listeners.
    #[error("the proxy cannot serve the pod: {0}")]
    Serve(io::Error),
    /// The control plane gave a pod without what every pod has.
    #[error("{0} has no identity or no address: it is no pod that can be captured")]
    NoPod(NamespacedName),
    /// No such pod.
    #[error("no captured pod has the uid {0}")]
    Unknown(String),
}

/// The kernel's side of the mesh on this node: its programs, and every captured pod.
///
/// Dropping it detaches nothing: the kernel goes on to refuse, and the next agent adopts what
/// is pinned.
pub struct Capture {
    kernel: Kernel,
    sockets: Arc<SocketTable>,
    pins: Pins,
    records: Records,
    pod_netns: String,
    workers: usize,
    pods: HashMap<Arc<str>, Captured>,
    /// Pods of an earlier agent that have not been captured again yet.
    adopted: HashMap<Arc<str>, Record>,
}

/// A pod with its own instance of `inbound`.
struct Captured {
    pod: Arc<Pod>,
    record: Record,
    link: PinnedLink,
    config: Map<u32, Inbound>,
    mode: InboundMode,
    repairs: u64,
}

impl Capture {
    /// Loads and attaches the kernel programs of the node, or adopts those of an earlier agent,
    /// and collects what is left of pods that are gone.
    ///
    /// # Errors
    /// Names what is missing and what to do.
    pub fn start(config: CaptureConfig) -> Result<Self, CaptureError> {
        let cgroup = preflight::check(&config)?;
        let pins = Pins::new(&config.bpffs, &config.node);
        let kernel = Kernel::start(&config, cgroup, &pins)?;
        pins.remove_other_layouts().map_err(CaptureError::Pins)?;
        let sockets = SocketTable::open(&pins)
            .and_then(|sockets| sockets.clear().map(|()| sockets))
            .map_err(|source| CaptureError::Map { map: "ORIGINAL_DESTINATIONS", source })?;
        let mut capture = Self {
            kernel,
            sockets: Arc::new(sockets),
            pins,
            records: Records::new(&config.state_dir, &config.node),
            pod_netns: config.pod_netns,
            workers: config.workers.max(1),
            pods: HashMap::new(),
            adopted: HashMap::new(),
        };
        capture.adopt()?;
        Ok(capture)
    }

    /// What the proxy asks of the kernel maps.
    pub fn sockets(&self) -> Arc<SocketTable> {
        Arc::clone(&self.sockets)
    }

    /// The uids of pods that an earlier agent captured and that were not captured again yet.
    /// Their new connections are refused. Those that shall not be in the mesh any more are to be
    /// released.
    pub fn adopted(&self) -> Vec<Arc<str>> {
        self.adopted.keys().cloned().collect()
    }

    /// Captures a pod: its new connections, both ways, go to the listeners that `serve` is
    /// given, one set a worker. Blocks for some milliseconds. A pod that is captured already
    /// stays so, with the new mode.
    ///
    /// # Errors
    /// Says what stands in the way; the pod is then as it was before.
    pub fn capture(
        &mut self,
        workload: &Workload,
        inbound: InboundMode,
        serve: impl FnOnce(Arc<Pod>, Vec<PodListeners>) -> io::Result<()>,
    ) -> Result<Arc<Pod>, CaptureError> {
        if let Some(captured) = self.pods.get(&workload.uid).filter(|pod| !pod.record.released) {
            let pod = Arc::clone(&captured.pod);
            self.set_inbound_mode(&workload.uid, inbound)?;
            return Ok(pod);
        }
        let NamespacedName { namespace, name } = &workload.name;
        let path = netns_path(&self.pod_netns, namespace, name);
        let netns = Netns::open(&path)
            .map_err(|source| CaptureError::Netns { pod: workload.name.clone(), source })?;
        let (Some(identity), false) = (&workload.identity, workload.addresses.is_empty()) else {
            return Err(CaptureError::NoPod(workload.name.clone()));
        };
        let pod = Arc::new(Pod {
            name: workload.name.clone(),
            uid: Arc::clone(&workload.uid),
            identity: identity.clone(),
            addresses: workload.addresses.clone(),
            netns: Arc::new(netns),
        });

        // A pod of an earlier agent: its settings have been changed already, and a failure must
        // not open what that agent closed.
        let earlier = self.earlier(pod.netns.cookie());
        let was_captured = earlier.is_some();
        let mut record = match earlier {
            Some(record) => record,
            None => Record::new(
                pod.netns.cookie(),
                &workload.uid,
                (namespace, name),
                path,
                sysctl::read(&pod.netns)?,
            )?,
        };
        record.released = false;
        record.uid = workload.uid.to_string();
        self.records.put(&record)?;
        let cookie = record.cookie;
        match self.put_in_place(&pod, record, inbound, serve) {
            Ok(captured) => {
                self.adopted.retain(|_, adopted| adopted.cookie != cookie);
                self.pods.insert(Arc::clone(&pod.uid), captured);
                tracing::info!(pod = %pod.name, cookie, "captured");
                Ok(pod)
            }
            Err(error) => {
                if !was_captured && let Ok(Some(record)) = self.record(cookie) {
                    self.take_away(&record)?;
                }
                Err(error)
            }
        }
    }

    /// Changes how a pod receives plaintext from now on.
    ///
    /// # Errors
    /// Where there is no such pod, or the kernel refuses.
    pub fn set_inbound_mode(&mut self, uid: &str, mode: InboundMode) -> Result<(), CaptureError> {
        let captured =
            self.pods.get_mut(uid).ok_or_else(|| CaptureError::Unknown(uid.to_owned()))?;
        configure(&captured.config, &inbound_config(&captured.pod, mode))?;
        captured.mode = mode;
        Ok(())
    }

    /// Stops capturing a pod's new connections, both ways. Those that the proxy has live on, and
    /// so do listeners, rule and settings, until [`Self::finish_release`].
    ///
    /// # Errors
    /// Where there is no such pod, or the kernel refuses.
    pub fn release(&mut self, uid: &str) -> Result<(), CaptureError> {
        if let Some(captured) = self.pods.get_mut(uid) {
            self.kernel.pods.remove(&captured.record.cookie).map_err(map("PODS"))?;
            // The program stays for connections that were redirected a moment ago. Without
            // addresses it leaves everything else alone.
            let nobody = Inbound { netns: captured.record.cookie, ..Inbound::default() };
            configure(&captured.config, &nobody)?;
            captured.record.released = true;
            self.records.put(&captured.record)?;
            tracing::info!(pod = %captured.pod.name, "released");
            return Ok(());
        }
        let adopted =
            self.adopted.get_mut(uid).ok_or_else(|| CaptureError::Unknown(uid.to_owned()))?;
        self.kernel.pods.remove(&adopted.cookie).map_err(map("PODS"))?;
        pins::remove_link(&self.pins.pod(adopted.cookie)).map_err(CaptureError::Pins)?;
        adopted.released = true;
        Ok(self.records.put(adopted)?)
    }

    /// Leaves a released pod as it was before it was captured: after its last proxied connection.
    ///
    /// # Errors
    /// Where there is no such pod, or the kernel refuses.
    pub fn finish_release(&mut self, uid: &str) -> Result<(), CaptureError> {
        let record = match self.pods.remove(uid) {
            Some(captured) => captured.record,
            None => {
                self.adopted.remove(uid).ok_or_else(|| CaptureError::Unknown(uid.to_owned()))?
            }
        };
        self.take_away(&record)
    }

    /// Looks whether every hook is in place, and puts back what is not.
    pub fn verify_and_repair(&mut self) -> Vec<HookState> {
        let mut states: Vec<_> = self.kernel.verify_and_repair().collect();
        for captured in self.pods.values_mut() {
            states.push(captured.link.verify_and_repair());
            if !captured.record.released {
                states.push(captured.verify_and_repair_entry(&self.kernel.pods));
            }
        }
        states
    }

    /// What the kernel programs counted, by name.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.kernel.counters()
    }

    /// Sorts what an earlier agent left into pods that may be captured again and rubbish.
    fn adopt(&mut self) -> Result<(), CaptureError> {
        let mut alive = HashSet::new();
        for record in self.records.load()? {
            let is_alive = super::links::is_attached(&self.pins.pod(record.cookie))
                || record.open_netns().is_some();
            if is_alive && !record.released {
                alive.insert(record.cookie);
                self.adopted.insert(record.uid.as_str().into(), record);
            } else {
                // Gone, or its last connections died with the agent that had released it.
                self.take_away(&record)?;
            }
        }
        for cookie in self.pins.pods().map_err(CaptureError::Pins)? {
            if !alive.contains(&cookie) {
                pins::remove_link(&self.pins.pod(cookie)).map_err(CaptureError::Pins)?;
            }
        }
        for cookie in self.kernel.pods.keys().map_err(map("PODS"))? {
            if !alive.contains(&cookie) {
                self.kernel.pods.remove(&cookie).map_err(map("PODS"))?;
            }
        }
        Ok(())
    }

    /// The record of a pod that this agent released or an earlier one captured.
    fn earlier(&mut self, cookie: u64) -> Option<Record> {
        let released = self.pods.iter().find(|(_, pod)| pod.record.cookie == cookie);
        if let Some(uid) = released.map(|(uid, _)| Arc::clone(uid)) {
            return self.pods.remove(&uid).map(|captured| captured.record);
        }
        self.adopted.values().find(|record| record.cookie == cookie).cloned()
    }

    fn record(&self, cookie: u64) -> Result<Option<Record>, CaptureError> {
        Ok(self.records.load()?.into_iter().find(|record| record.cookie == cookie))
    }

    /// Everything from the settings to the hooks, the hooks last: from then on connections come.
    fn put_in_place(
        &mut self,
        pod: &Arc<Pod>,
        record: Record,
        mode: InboundMode,
        serve: impl FnOnce(Arc<Pod>, Vec<PodListeners>) -> io::Result<()>,
    ) -> Result<Captured, CaptureError> {
        let listeners = listeners::bind(&pod.netns, &pod.name, &pod.addresses, self.workers)?;
        sysctl::apply(&pod.netns, &record.sysctls)?;
        routing::add(&pod.netns, &pod.addresses)?;

        let inbound = self.kernel.inbound()?;
        configure(&inbound.config, &inbound_config(pod, mode))?;
        if let Some(first) = listeners.first() {
            register(&inbound.listeners, first).map_err(map("LISTENERS"))?;
        }
        serve(Arc::clone(pod), listeners).map_err(CaptureError::Serve)?;

        let place = pod.netns.as_fd().try_clone_to_owned().map_err(CaptureError::Pins)?;
        let link = PinnedLink::establish(Wanted {
            name: format!("inbound {}", pod.name),
            path: self.pins.pod(record.cookie),
            program: inbound.program,
            program_id: inbound.program_id,
            place,
            target: Target::Netns(pod.netns.inode()),
            hook: Hook::SkLookup,
        })?;
        self.kernel.pods.insert(&record.cookie, &pod_entry(pod)).map_err(map("PODS"))?;
        Ok(Captured {
            pod: Arc::clone(pod),
            record,
            link,
            config: inbound.config,
            mode,
            repairs: 0,
        })
    }

    /// Removes everything that capturing a pod changed. A namespace that is gone needs nothing.
    fn take_away(&self, record: &Record) -> Result<(), CaptureError> {
        self.kernel.pods.remove(&record.cookie).map_err(map("PODS"))?;
        pins::remove_link(&self.pins.pod(record.cookie)).map_err(CaptureError::Pins)?;
        if let Some(netns) = record.open_netns() {
            routing::remove(&netns)?;
            sysctl::restore(&netns, &record.sysctls)?;
        }
        Ok(self.records.remove(record.cookie)?)
    }
}

impl Captured {
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

/// The path that the template gives for a pod.
fn netns_path(template: &str, namespace: &str, pod: &str) -> PathBuf {
    template.replace("{namespace}", namespace).replace("{pod}", pod).into()
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

/// Shows the program one listener of each group.
fn register(map: &Map<u32, u32>, listeners: &PodListeners) -> io::Result<()> {
    let kinds = [
        (&listeners.outbound, Listener::Outbound4, Listener::Outbound6),
        (&listeners.inbound, Listener::Inbound4, Listener::Inbound6),
        (&listeners.hbone, Listener::Hbone4, Listener::Hbone6),
    ];
    for (sockets, ipv4, ipv6) in kinds {
        for socket in sockets {
            let index = if is_ipv4(socket)? { ipv4 } else { ipv6 };
            let descriptor = u32::try_from(socket.as_raw_fd()).map_err(io::Error::other)?;
            map.insert(&(index as u32), &descriptor)?;
        }
    }
    Ok(())
}

fn is_ipv4(socket: &TcpListener) -> io::Result<bool> {
    Ok(socket.local_addr()?.is_ipv4())
}

fn map(map: &'static str) -> impl Fn(io::Error) -> CaptureError {
    move |source| CaptureError::Map { map, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_gives_a_path_for_each_pod() {
        let path = netns_path("/run/netns/{namespace}-{pod}", "shop", "web-1");
        assert_eq!(path, std::path::Path::new("/run/netns/shop-web-1"));
    }
}
