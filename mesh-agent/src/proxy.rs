//! The node proxy: carries the connections of every captured pod of the node.
//!
//! ```text
//! application ─ outbound ─┬─ passed on as it is ───────── outside the mesh
//!                         ├─ verdict, admitted tuple ──── a pod of the same node
//!                         └─ hbone::client ── hbone::server ─ verdict ─ deliver ─ application
//! ```
//!
//! Every worker is one thread with a runtime of its own and owns every connection that it
//! accepts until it ends: nothing crosses between threads while bytes move. The kernel spreads
//! new connections over the workers' listeners, which share a `SO_REUSEPORT` group.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, RwLock},
    time::Duration,
};

use mesh_common::model::Workload;

use crate::{
    capture::{enroll::Pod, listeners::PodListeners, sockets::SocketTable},
    denials::Denials,
    identity::Certificates,
    observe::Observer,
    snapshot::Snapshot,
};

mod accept;
mod buffer;
mod deliver;
mod denied;
mod dial;
mod failure;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handshakes;
mod hbone;
mod http;
mod inbound;
mod meter;
mod outbound;
mod pod;
mod reach;
mod record;
mod refusal;
mod relay;
mod revoke;
mod route;
mod sniff;
mod worker;

use failure::Failure;
pub use pod::ServedPod;
use refusal::{RefusalLog, Seldom};
pub(crate) use revoke::Right;
use worker::Worker;

/// How long a connection attempt to an upstream may take (design: connect timeout 5 s).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a TLS or HTTP/2 handshake may take before the peer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the proxy is told once, at start.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The node's name, which flows carry.
    pub node: Arc<str>,
    /// Threads that carry connections; at least one.
    pub workers: usize,
    /// Whether HTTP to Services is routed request by request.
    pub http: bool,
}

/// The rooms of the agent that the proxy works with.
#[derive(Clone)]
pub struct Dependencies {
    /// What the kernel programs remember of connections.
    pub sockets: Arc<SocketTable>,
    /// Who is where, and who may call whom.
    pub snapshot: Arc<Snapshot>,
    /// Certificates of this node's accounts.
    pub certificates: Arc<Certificates>,
    /// Where flows go.
    pub observer: Arc<Observer>,
    /// Refusals that the kernel remembers.
    pub denials: Arc<Denials>,
}

/// What every worker shares.
struct Shared {
    node: Arc<str>,
    http: bool,
    sockets: Arc<SocketTable>,
    snapshot: Arc<Snapshot>,
    certificates: Arc<Certificates>,
    observer: Arc<Observer>,
    denials: Arc<Denials>,
    refusals: RefusalLog,
    /// Speaks of accepting that fails.
    failed_accepts: Seldom,
    /// Where clients wait for the server to speak.
    silent: sniff::Silent,
    pods: RwLock<HashMap<Arc<str>, Arc<ServedPod>>>,
}

impl Shared {
    /// `workload`, if it is captured on this node now.
    fn pod_of(&self, workload: &Workload) -> Option<Arc<ServedPod>> {
        let pods = self.pods.read().expect(LOCK);
        pods.get(&workload.uid).filter(|pod| !pod.is_draining()).cloned()
    }

    /// What policies say of `pod` at `address`. While an address moves from one pod to another,
    /// the snapshot may know it as somebody else's, whose policies are not this pod's.
    fn workload_of(&self, pod: &ServedPod, address: SocketAddr) -> Result<Arc<Workload>, Failure> {
        let workload = self.snapshot.workload_at(address.ip());
        workload.filter(|known| known.uid == pod.pod.uid).ok_or(Failure::NotOurs(address))
    }
}

/// Why taking the lock cannot fail: nothing panics while holding it.
const LOCK: &str = "no holder of this lock panics";

/// The running proxy.
pub struct Proxy {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
}

impl Proxy {
    /// Starts the worker threads.
    ///
    /// # Errors
    /// Where the system gives no thread or no epoll descriptor.
    pub fn start(config: ProxyConfig, dependencies: Dependencies) -> io::Result<Self> {
        let Dependencies { sockets, snapshot, certificates, observer, denials } = dependencies;
        let shared = Arc::new(Shared {
            node: config.node,
            http: config.http,
            sockets,
            snapshot,
            certificates,
            observer,
            denials,
            refusals: RefusalLog::default(),
            failed_accepts: Seldom::default(),
            silent: sniff::Silent::default(),
            pods: RwLock::default(),
        });
        let workers = (0..config.workers.max(1))
            .map(|index| Worker::start(index, shared.clone()))
            .collect::<io::Result<_>>()?;
        Ok(Self { shared, workers })
    }

    /// How many sets of listeners [`serve`](Self::serve) wants.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Serves a pod on its listeners, one set a worker.
    pub fn serve(&self, pod: Arc<Pod>, listeners: Vec<PodListeners>) {
        let mut pods = self.shared.pods.write().expect(LOCK);
        let earlier = pods.get(&pod.uid).cloned();
        let served = Arc::new(ServedPod::new(pod, earlier.as_deref()));
        pods.insert(served.pod.uid.clone(), served.clone());
        drop(pods);
        if let Some(earlier) = earlier {
            earlier.stop();
        }
        for (worker, listeners) in self.workers.iter().zip(listeners) {
            worker.serve(served.clone(), listeners);
        }
    }

    /// Lets a pod's connections end by themselves and closes its listeners after the last one.
    pub fn drain(&self, uid: &str) {
        if let Some(pod) = self.shared.pods.read().expect(LOCK).get(uid) {
            pod.drain();
            self.workers[0].stop_when_idle(pod.clone());
        }
    }

    /// Closes a pod's listeners, ends what is left of its connections and forgets it: its network
    /// namespace is gone, and the proxy's sockets keep nothing but its remains.
    pub fn forget(&self, uid: &str) {
        if let Some(pod) = self.shared.pods.write().expect(LOCK).remove(uid) {
            pod.stop();
            pod.end();
        }
    }

    /// Whether the pod has listeners or connections here.
    pub fn is_serving(&self, uid: &str) -> bool {
        self.shared.pods.read().expect(LOCK).contains_key(uid)
    }

    /// How many proxied connections a pod has now.
    pub fn connections(&self, uid: &str) -> usize {
        self.shared.pods.read().expect(LOCK).get(uid).map_or(0, |pod| pod.connections())
    }
}
