//! The maps, and what a missing entry means.
//!
//! The agent sets the sizes when it loads the programs; those here are for a bare loader. All
//! but [`INBOUND`], [`PORT_MODES`] and [`LISTENERS`] are pinned and shared by every instance on a node.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::{btf_map, map},
    maps::{Array, HashMap, PerCpuArray, RingBuf, SockMap},
};
use mesh_common::bpf::{
    ConnectionKey, Counter, DENIALS as MOST_DENIALS, DenialKey, Destination, EVENT_BYTES, Event,
    EventKind, HEARTBEAT_STALE, Inbound, MODE_PORTS, Pod, ProbeKey, ProxySocket,
};

use crate::raw::{INHERITED, SkStorage};

/// The enrolled pods of this node by network namespace cookie. Missing: not in the mesh.
#[map]
pub static PODS: HashMap<u64, Pod> = HashMap::with_max_entries(1024, 0);

/// Where captured connections were going, from the moment they are made until the proxy accepts
/// them. Missing at accept: the proxy resets the connection. Never LRU: an entry that vanishes
/// under load would be a connection that leads nowhere.
#[map]
pub static ORIGINAL_DESTINATIONS: HashMap<ConnectionKey, Destination> =
    HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);

/// Connections that the proxy itself or a probe makes to a pod, until the pod has taken them; the
/// value is a [`mesh_common::bpf::Admittance`]. Missing: treated as a stranger's.
#[map]
pub static ADMITTED: HashMap<ConnectionKey, u32> =
    HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);

/// Connections that the proxy is opening from a pod's namespace over the pod's link, until they
/// are open. Missing: not the proxy's.
#[map]
pub static UPSTREAMS: HashMap<ConnectionKey, u32> =
    HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);

/// Plaintext connections that applications of captured pods have got from others, for as long as
/// they live. Missing: not plaintext, or counted as unlisted.
#[map]
pub static PASSED: HashMap<ConnectionKey, u32> =
    HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);

/// Ports that the node's probes call, with the cookie of their pod. Missing: no probe.
#[map]
pub static PROBES: HashMap<ProbeKey, u64> = HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);

/// Addresses and ports of Services that nobody is ready to serve. Missing: the proxy finds out.
#[map]
pub static UNSERVED: HashMap<Destination, u32> =
    HashMap::with_max_entries(65536, BPF_F_NO_PREALLOC);

/// Calls that a policy does not allow, as the proxy said a moment ago; the value is until when that
/// holds, in nanoseconds of CLOCK_MONOTONIC. Missing: the proxy decides.
#[map]
pub static DENIALS: HashMap<DenialKey, u64> =
    HashMap::with_max_entries(MOST_DENIALS, BPF_F_NO_PREALLOC);

/// One entry: when the agent last gave a sign of life, in nanoseconds of CLOCK_MONOTONIC. Old: new
/// connections of captured pods are refused at once, as where it is dead.
#[map]
static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);

/// What the agent tells as flows, and nobody but these programs has seen.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_BYTES, 0);

/// What happened how often.
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// What a captured socket asked for. Missing: the socket's connection is not captured.
#[btf_map]
pub static ORIGIN: SkStorage<Destination> = SkStorage::new();

/// Sockets of probes, with the cookie of the pod that they were admitted to. Missing: no probe.
#[btf_map]
pub static SK_PROBE: SkStorage<u64> = SkStorage::new();

/// The proxy's own sockets, written by the agent; what its listeners accept is its own as well.
/// Missing: an application's socket.
#[btf_map]
pub static SK_PROXY: SkStorage<ProxySocket, INHERITED> = SkStorage::new();

/// One entry: the pod that this instance of `inbound` serves and those of `guard` watch.
#[map]
pub static INBOUND: Array<Inbound> = Array::with_max_entries(1, 0);

/// The [`mesh_common::bpf::InboundMode`] of single ports of this pod. Missing: that of the pod.
#[map]
pub static PORT_MODES: HashMap<u32, u32> = HashMap::with_max_entries(MODE_PORTS, BPF_F_NO_PREALLOC);

/// The proxy's listeners in this pod, indexed by [`mesh_common::bpf::Listener`]. Missing: the
/// agent is dead, and new connections are refused.
#[map]
pub static LISTENERS: SockMap = SockMap::with_max_entries(6, 0);

/// Whether the agent gives signs of life.
#[inline(always)]
pub fn is_agent_alive() -> bool {
    let beat = HEARTBEAT.get(0).copied().unwrap_or_default();
    // A beat from another CPU may be a little ahead of the clock here.
    crate::raw::monotonic().saturating_sub(beat) <= HEARTBEAT_STALE
}

/// Tells the agent of a connection.
#[inline(always)]
pub fn tell(kind: EventKind, connection: &ConnectionKey) {
    let event = Event { connection: *connection, kind: kind as u32, reserved: 0 };
    if EVENTS.output::<Event>(event, 0).is_err() {
        count(Counter::EventLost);
    }
}

/// Adds one to a counter.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        crate::raw::increment(value);
    }
}
