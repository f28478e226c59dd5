//! Taking pods into the mesh and letting them go, without a restart of anything.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::IpAddr,
    sync::Arc,
};

use mesh_common::{
    identity::SpiffeId,
    model::{NamespacedName, Workload},
};

use super::{
    CaptureConfig, CaptureError,
    error::map,
    events::Events,
    finder::{Finder, Place},
    guard,
    heartbeat::Heartbeat,
    inbound::{Captured, Prepared},
    interface::PodLink,
    kernel::Kernel,
    layouts::OtherLayouts,
    links::{self, HookState},
    listeners::{self, Expected, PodListeners},
    modes::InboundModes,
    netns::{self, Netns},
    pins::{self, Pins},
    preflight,
    probes::Probes,
    record::{Record, Records},
    routing,
    sizes::MapUse,
    sockets::SocketTable,
    sysctl,
};
use crate::liveness::Pulse;

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
    /// The index of its interface that has these addresses.
    pub interface: u32,
}

/// The kernel's side of the mesh on this node: its programs, and every captured pod.
///
/// Dropping it detaches nothing: the kernel goes on to refuse, and the next agent adopts what
/// is pinned.
pub struct Capture {
    kernel: Kernel,
    heartbeat: Heartbeat,
    sockets: Arc<SocketTable>,
    pins: Pins,
    records: Records,
    finder: Finder,
    /// What shows whether a captured pod still has the namespace that it was captured in.
    places: HashMap<Arc<str>, Place>,
    /// The cookie of the node's network namespace, which is this agent's own.
    node_netns: u64,
    workers: usize,
    pods: HashMap<Arc<str>, Captured>,
    /// Pods of an earlier agent that have not been captured again yet.
    adopted: HashMap<Arc<str>, Record>,
    /// What refuses for those of them that an agent with other maps captured.
    layouts: OtherLayouts,
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
        let layouts = OtherLayouts::find(&pins).map_err(CaptureError::Pins)?;
        let sockets = SocketTable::open(&pins)
            .and_then(|sockets| sockets.clear().map(|()| sockets))
            .map_err(|source| CaptureError::Map { map: "ORIGINAL_DESTINATIONS", source })?;
        let mut capture = Self {
            kernel,
            heartbeat: Heartbeat::start(&pins).map_err(map("HEARTBEAT"))?,
            sockets: Arc::new(sockets),
            pins,
            records: Records::new(&config.state_dir, &config.node),
            finder: config.pod_netns.finder(),
            places: HashMap::new(),
            node_netns: netns::own_cookie().map_err(CaptureError::Own)?,
            workers: config.workers.max(1),
            pods: HashMap::new(),
            adopted: HashMap::new(),
            layouts,
        };
        capture.adopt()?;
        capture.layouts.keep_only(&capture.adopted).map_err(CaptureError::Pins)?;
        Ok(capture)
    }

    /// What the proxy asks of the kernel maps.
    pub fn sockets(&self) -> Arc<SocketTable> {
        Arc::clone(&self.sockets)
    }

    /// Shows whether the kernel programs are given signs of life.
    pub fn pulse(&self) -> Arc<Pulse> {
        self.heartbeat.pulse()
    }

    /// What the kernel programs tell; there is one reader a node.
    ///
    /// # Errors
    /// Where the ring cannot be mapped.
    pub fn events(&self) -> Result<Events, CaptureError> {
        Events::open(&self.pins).map_err(map("EVENTS"))
    }

    /// The uids of pods that an earlier agent captured and that were not captured again yet.
    /// Their new connections are refused. Those that shall not be in the mesh any more are to be
    /// released.
    pub fn adopted(&self) -> Vec<Arc<str>> {
        self.adopted.keys().cloned().collect()
    }

    /// Captures a pod: its new connections, both ways, go to the listeners that `serve` is
    /// given, one set a worker. Blocks for some milliseconds. A pod that is captured already
    /// stays so, with the new modes.
    ///
    /// # Errors
    /// Says what stands in the way; the pod is then as it was before.
    pub fn capture(
        &mut self,
        workload: &Workload,
        inbound: impl Into<InboundModes>,
        serve: impl FnOnce(Arc<Pod>, Vec<PodListeners>) -> io::Result<()>,
    ) -> Result<Arc<Pod>, CaptureError> {
        if let Some(captured) = self.pods.get(&workload.uid).filter(|pod| !pod.record.released) {
            let pod = Arc::clone(&captured.pod);
            self.set_inbound_modes(&workload.uid, inbound)?;
            return Ok(pod);
        }
        let NamespacedName { namespace, name } = &workload.name;
        let (netns, place) = self
            .finder
            .find(workload)
            .map_err(|source| CaptureError::Netns { pod: workload.name.clone(), source })?;
        let (Some(identity), false) = (&workload.identity, workload.addresses.is_empty()) else {
            return Err(CaptureError::NoPod(workload.name.clone()));
        };
        let ends = guard::link_of(&workload.name, &netns, &workload.addresses)?;
        let pod = Arc::new(Pod {
            name: workload.name.clone(),
            uid: Arc::clone(&workload.uid),
            identity: identity.clone(),
            addresses: workload.addresses.clone(),
            netns: Arc::new(netns),
            interface: ends.interface,
        });

        // A pod of an earlier agent: its settings have been changed already, and a failure must
        // not open what that agent closed.
        let cookie = pod.netns.cookie();
        let expected = self.expected_listeners(cookie);
        let earlier = self.earlier(cookie);
        let was_captured = earlier.is_some();
        let mut record = match earlier {
            Some(record) => record,
            None => Record::new(
                pod.netns.cookie(),
                &workload.uid,
                (namespace, name),
                place.path(),
                sysctl::read(&pod.netns)?,
            )?,
        };
        record.released = false;
        record.uid = workload.uid.to_string();
        record.netns = place.path();
        self.records.put(&record)?;
        match self.put_in_place(&pod, ends, record, &inbound.into(), expected, serve) {
            Ok(captured) => {
                self.adopted.retain(|_, adopted| adopted.cookie != cookie);
                self.pods.insert(Arc::clone(&pod.uid), captured);
                if let Err(error) = self.layouts.keep_only(&self.adopted) {
                    tracing::warn!(%error, "cannot remove hooks of another layout; restart the agent");
                }
                self.places.insert(Arc::clone(&pod.uid), place);
                tracing::info!(pod = %pod.name, cookie, "captured");
                Ok(pod)
            }
            Err(error) => {
                // What was there before the mesh is only in the record.
                if let Ok(Some(record)) = self.record(cookie) {
                    if was_captured {
                        self.adopted.insert(Arc::clone(&workload.uid), record);
                    } else {
                        self.take_away(&record)?;
                    }
                }
                Err(error)
            }
        }
    }

    /// Changes how a pod receives plaintext from now on.
    ///
    /// # Errors
    /// Where there is no such pod, or the kernel refuses.
    pub fn set_inbound_modes(
        &mut self,
        uid: &str,
        modes: impl Into<InboundModes>,
    ) -> Result<(), CaptureError> {
        let captured = self.pods.get(uid).ok_or_else(|| CaptureError::Unknown(uid.to_owned()))?;
        captured.set_modes(&modes.into(), &self.probes())
    }

    /// Stops capturing a pod's new connections, both ways. Those that the proxy has live on, and
    /// so do listeners, rule and settings, until [`Self::finish_release`].
    ///
    /// # Errors
    /// Where there is no such pod, or the kernel refuses.
    pub fn release(&mut self, uid: &str) -> Result<(), CaptureError> {
        if let Some(captured) = self.pods.get_mut(uid) {
            // The guards first: they must not see what is no longer captured.
            captured.let_everything_pass()?;
            self.kernel.pods.remove(&captured.record.cookie).map_err(map("PODS"))?;
            captured.record.released = true;
            self.records.put(&captured.record)?;
            tracing::info!(pod = %captured.pod.name, "released");
            return Ok(());
        }
        let adopted =
            self.adopted.get_mut(uid).ok_or_else(|| CaptureError::Unknown(uid.to_owned()))?;
        self.pins.remove_pod(adopted.cookie).map_err(CaptureError::Pins)?;
        self.layouts.release(adopted.cookie).map_err(CaptureError::Pins)?;
        self.kernel.pods.remove(&adopted.cookie).map_err(map("PODS"))?;
        adopted.released = true;
        Ok(self.records.put(adopted)?)
    }

    /// Leaves a released pod as it was before it was captured: after its last proxied connection.
    ///
    /// # Errors
    /// Where there is no such pod, or the kernel refuses.
    pub fn finish_release(&mut self, uid: &str) -> Result<(), CaptureError> {
        let captured = self.pods.get(uid).map(|captured| &captured.record);
        let record = captured.or_else(|| self.adopted.get(uid));
        let record = record.ok_or_else(|| CaptureError::Unknown(uid.to_owned()))?;
        self.take_away(record)?;
        // Only now: what could not be taken away must be found again.
        self.pods.remove(uid);
        self.places.remove(uid);
        self.adopted.remove(uid);
        self.layouts.keep_only(&self.adopted).map_err(CaptureError::Pins)
    }

    /// Whether a captured pod has left the network namespace that it was captured in: that one
    /// has ended, or the pod's sandbox was made anew.
    pub fn is_gone(&self, uid: &str) -> bool {
        let captured = self.pods.get(uid).zip(self.places.get(uid));
        captured.is_some_and(|(captured, place)| {
            self.finder.is_replaced(uid, &captured.pod.netns, place)
        })
    }

    /// Looks whether every hook is in place, and puts back what is not.
    pub fn verify_and_repair(&mut self) -> Vec<HookState> {
        let mut states: Vec<_> = self.kernel.verify_and_repair().collect();
        for captured in self.pods.values_mut() {
            states.extend(captured.verify_and_repair(&self.kernel.pods));
        }
        states
    }

    /// What the kernel programs counted, by name.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.kernel.counters()
    }

    /// What of a pod is not in the mesh, or not guarded, for people: no problems.
    pub fn notes(&self, uid: &str) -> &[String] {
        self.pods.get(uid).map(Captured::notes).unwrap_or_default()
    }

    /// Looks for what [`Self::notes`] tells in every pod.
    pub fn look_around(&mut self) {
        self.pods.values_mut().filter(|pod| !pod.record.released).for_each(Captured::look_around);
    }

    /// How full the kernel maps are that have a limit; takes some milliseconds.
    ///
    /// # Errors
    /// Where the kernel does not say.
    pub fn map_use(&self) -> io::Result<Vec<MapUse>> {
        self.kernel.map_use()
    }

    /// Sorts what an earlier agent left into pods that may be captured again and rubbish.
    fn adopt(&mut self) -> Result<(), CaptureError> {
        let mut alive = HashSet::new();
        for record in self.records.load()? {
            let is_alive = links::is_attached(&self.pins.pod(record.cookie, pins::INBOUND))
                || record.open_netns(&self.finder).is_some();
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
                self.pins.remove_pod(cookie).map_err(CaptureError::Pins)?;
            }
        }
        for cookie in self.kernel.pods.keys().map_err(map("PODS"))? {
            if !alive.contains(&cookie) {
                self.kernel.pods.remove(&cookie).map_err(map("PODS"))?;
            }
        }
        self.probes().forget(|_, pod| !alive.contains(&pod)).map_err(map("PROBES"))?;
        self.sockets.forget_passed(|cookie| alive.contains(&cookie)).map_err(map("PASSED"))
    }

    fn probes(&self) -> Probes<'_> {
        Probes { map: &self.kernel.probes, node: self.node_netns }
    }

    /// The record of a pod that this agent released or an earlier one captured.
    fn earlier(&mut self, cookie: u64) -> Option<Record> {
        let released = self.pods.iter().find(|(_, pod)| pod.record.cookie == cookie);
        if let Some(uid) = released.map(|(uid, _)| Arc::clone(uid)) {
            return self.pods.remove(&uid).map(|captured| captured.record);
        }
        self.adopted.values().find(|record| record.cookie == cookie).cloned()
    }

    /// Whose listeners a pod may have before it is captured: one that was released and drains has
    /// ours.
    fn expected_listeners(&self, cookie: u64) -> Expected {
        let drains = self.pods.values().any(|pod| pod.record.cookie == cookie);
        if drains { Expected::Ourselves } else { Expected::Nobody }
    }

    fn record(&self, cookie: u64) -> Result<Option<Record>, CaptureError> {
        Ok(self.records.load()?.into_iter().find(|record| record.cookie == cookie))
    }

    /// Everything from the settings to the hooks. Whoever serves gets the listeners last: what
    /// arrives before then waits in their queues, and a step that fails has not touched how an
    /// earlier capture of the pod is served.
    fn put_in_place(
        &mut self,
        pod: &Arc<Pod>,
        ends: PodLink,
        record: Record,
        modes: &InboundModes,
        expected: Expected,
        serve: impl FnOnce(Arc<Pod>, Vec<PodListeners>) -> io::Result<()>,
    ) -> Result<Captured, CaptureError> {
        let listeners = listeners::bind(pod, self.workers, expected, &self.sockets)?;
        sysctl::apply(&pod.netns, &record.sysctls)?;
        routing::add(&pod.netns, &pod.addresses)?;

        let prepared = Prepared::new(pod, record, modes, self.kernel.pod_programs()?, ends)?;
        if let Some(first) = listeners.first() {
            prepared.register(first)?;
        }
        self.probes().set(pod, &modes.probes)?;
        let captured = prepared.attach(&self.pins, &self.kernel.pods)?;
        serve(Arc::clone(pod), listeners).map_err(CaptureError::Serve)?;
        Ok(captured)
    }

    /// Removes everything that capturing a pod changed. A namespace that is gone needs nothing.
    fn take_away(&self, record: &Record) -> Result<(), CaptureError> {
        self.pins.remove_pod(record.cookie).map_err(CaptureError::Pins)?;
        self.kernel.pods.remove(&record.cookie).map_err(map("PODS"))?;
        self.sockets.forget_passed(|cookie| cookie != record.cookie).map_err(map("PASSED"))?;
        self.probes().forget(|_, pod| pod == record.cookie).map_err(map("PROBES"))?;
        if let Some(netns) = record.open_netns(&self.finder) {
            routing::remove(&netns)?;
            sysctl::restore(&netns, &record.sysctls)?;
        }
        Ok(self.records.remove(record.cookie)?)
    }
}
