//! Layouts of the maps that the agent and the kernel programs share.
//!
//! Every type is `repr(C)` without implicit padding, so that the kernel may hash and compare it
//! byte by byte. Addresses are 16 bytes, IPv4 mapped into IPv6, in network order; ports are in
//! host order. A change of any layout raises [`LAYOUT_VERSION`], which is part of the pin path:
//! an agent never adopts maps that it would misread.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Version of all layouts here; part of the path under which maps and links are pinned.
pub const LAYOUT_VERSION: u32 = 4;

/// The loopback interface has this index in every namespace (LOOPBACK_IFINDEX in the kernel).
pub const LOOPBACK: u32 = 1;

/// An IP address as four words in network order; IPv4 is `::ffff:a.b.c.d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Address(pub [u32; 4]);

impl Address {
    /// The unspecified address: what a pod without an address of some family has there.
    pub const NONE: Self = Self([0; 4]);

    /// The address whose IPv4 word, in network order as the kernel hands it out, is `word`.
    #[inline]
    pub const fn from_ipv4_word(word: u32) -> Self {
        Self([0, 0, 0xffff_u32.to_be(), word])
    }

    /// The IPv4 word in network order; `None` for IPv6 proper.
    #[inline]
    pub const fn ipv4_word(&self) -> Option<u32> {
        if self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0xffff_u32.to_be() {
            Some(self.0[3])
        } else {
            None
        }
    }

    /// Whether this is 127.0.0.0/8, mapped or not, or ::1.
    #[inline]
    pub const fn is_loopback(&self) -> bool {
        match self.ipv4_word() {
            Some(word) => u32::from_be(word) >> 24 == 127,
            None => {
                self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && self.0[3] == 1_u32.to_be()
            }
        }
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        let octets = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let word = |at: usize| {
            u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
        };
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        match address.ipv4_word() {
            Some(word) => Self::V4(Ipv4Addr::from(u32::from_be(word))),
            None => {
                let mut octets = [0; 16];
                for (chunk, word) in octets.chunks_exact_mut(4).zip(address.0) {
                    chunk.copy_from_slice(&word.to_ne_bytes());
                }
                Self::V6(Ipv6Addr::from(octets))
            }
        }
    }
}

/// Where a captured connection was going, before its destination was rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Destination {
    /// The address that the application asked for.
    pub address: Address,
    /// The port that the application asked for.
    pub port: u32,
}

impl From<SocketAddr> for Destination {
    fn from(address: SocketAddr) -> Self {
        Self { address: address.ip().into(), port: u32::from(address.port()) }
    }
}

impl Destination {
    /// The destination as the standard library's type; `None` if the port does not fit.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.address.into(), u16::try_from(self.port).ok()?))
    }
}

/// One TCP connection as seen from its client, told apart from an equal one elsewhere by a
/// network namespace cookie.
///
/// In `ORIGINAL_DESTINATIONS` and `UPSTREAMS` the cookie is of the client's namespace, in
/// `ADMITTED` and `PASSED` it is of the namespace of the pod that is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ConnectionKey {
    /// Network namespace cookie (`SO_NETNS_COOKIE`).
    pub netns: u64,
    /// The address of the side that connects.
    pub client: Address,
    /// The address of the side that is connected to.
    pub server: Address,
    /// The port of the side that connects.
    pub client_port: u32,
    /// The port of the side that is connected to.
    pub server_port: u32,
}

impl ConnectionKey {
    /// The key of the connection from `client` to `server`.
    pub fn new(netns: u64, client: SocketAddr, server: SocketAddr) -> Self {
        Self {
            netns,
            client: client.ip().into(),
            server: server.ip().into(),
            client_port: u32::from(client.port()),
            server_port: u32::from(server.port()),
        }
    }
}

/// A port of a pod that is called from one network namespace without the proxy: that of the node,
/// where its kubelet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ProbeKey {
    /// Cookie of the namespace that calls.
    pub netns: u64,
    /// The pod's address.
    pub address: Address,
    /// The port.
    pub port: u32,
    /// Zero.
    pub reserved: u32,
}

/// A place that a pod may not call: the key of `DENIALS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct DenialKey {
    /// Cookie of the caller's network namespace.
    pub netns: u64,
    /// The address that the application asks for.
    pub address: Address,
    /// The port that it asks for.
    pub port: u32,
    /// Zero.
    pub reserved: u32,
}

impl DenialKey {
    /// The key of calls from the pod of namespace `netns` to `place`.
    pub fn new(netns: u64, place: SocketAddr) -> Self {
        let Destination { address, port } = place.into();
        Self { netns, address, port, reserved: 0 }
    }
}

/// How many denials the kernel remembers; of the others the proxy is asked each time.
pub const DENIALS: u32 = 8192;

/// Whose connection it is that `ADMITTED` has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Admittance {
    /// The proxy's.
    Proxy = 1,
    /// A probe of the node.
    Probe = 2,
}

/// Something that the kernel programs did and that the proxy never sees: an entry of `EVENTS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// The connection; its cookie is of the pod that an [`EventKind`] says.
    pub connection: ConnectionKey,
    /// An [`EventKind`].
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
}

/// What an [`Event`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// A pod got a connection of a probe. The cookie is the pod's.
    Probe = 1,
    /// connect() of a pod failed: no ready endpoint is behind the Service. The cookie is the
    /// caller's, and its port is 0.
    NoEndpoint = 2,
    /// The same, as the agent gives no sign of life.
    AgentLost = 3,
    /// The same, as the proxy has refused such a call a moment ago.
    Denied = 4,
}

/// After how many nanoseconds without a heartbeat the agent counts as lost. It writes one a second.
pub const HEARTBEAT_STALE: u64 = 5_000_000_000;

/// Bytes of the ring of events: some thousands of them.
pub const EVENT_BYTES: u32 = 256 * 1024;

/// An enrolled pod, as `connect4` and `connect6` see it; the map's key is its namespace cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Pod {
    /// The pod's IPv4 address, mapped, or [`Address::NONE`].
    pub ipv4: Address,
    /// The pod's IPv6 address, or [`Address::NONE`].
    pub ipv6: Address,
    /// The index of the pod's interface that has these addresses.
    pub interface: u32,
    /// Zero.
    pub reserved: u32,
}

/// What the agent writes into the storage of each of its own sockets; connections inherit it from
/// the listener that accepts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ProxySocket {
    /// Namespace cookie of the pod whose `sk_lookup` program shall let this connection through
    /// to the application; 0 where the socket leads to no enrolled pod of this node.
    pub admit: u64,
}

/// How a pod receives connections that are neither admitted nor HBONE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum InboundMode {
    /// Plaintext reaches the application without the proxy.
    Pass = 0,
    /// The proxy judges plaintext.
    Proxy = 1,
    /// Plaintext is refused.
    Refuse = 2,
}

/// How many ports of a pod may have an [`InboundMode`] of their own: the size of its `PORT_MODES`.
/// A container rarely has ten.
pub const MODE_PORTS: u32 = 256;

/// The configuration of one pod's own programs: entry 0 of its own `INBOUND` array. Without any
/// address the pod is released, and everything passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Inbound {
    /// The pod's namespace cookie, which a `sk_lookup` program may not ask for itself.
    pub netns: u64,
    /// The pod's IPv4 address, mapped, or [`Address::NONE`].
    pub ipv4: Address,
    /// The pod's IPv6 address, or [`Address::NONE`].
    pub ipv6: Address,
    /// The [`InboundMode`] of every port that `PORT_MODES` does not have.
    pub mode: u32,
    /// Zero.
    pub reserved: u32,
}

/// Indices of a pod's own `LISTENERS` socket map.
///
/// A listener of its own for each purpose: the one a connection arrives on is what the proxy
/// trusts, so no address is ever looked up to guess a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Listener {
    /// Captured outbound connections over IPv4.
    Outbound4 = 0,
    /// Captured outbound connections over IPv6.
    Outbound6 = 1,
    /// Inbound plaintext over IPv4.
    Inbound4 = 2,
    /// Inbound plaintext over IPv6.
    Inbound6 = 3,
    /// HBONE over IPv4.
    Hbone4 = 4,
    /// HBONE over IPv6.
    Hbone6 = 5,
}

impl Listener {
    /// Every index, in order.
    pub const ALL: [Self; 6] = [
        Self::Outbound4,
        Self::Outbound6,
        Self::Inbound4,
        Self::Inbound6,
        Self::Hbone4,
        Self::Hbone6,
    ];
}

/// Indices of the `COUNTERS` per-CPU array: what the kernel programs did, each only growing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Outbound connections redirected to the proxy.
    Captured = 0,
    /// Outbound connections refused because their original destination could not be stored.
    CaptureFailed = 1,
    /// Original destinations published for the proxy.
    Published = 2,
    /// Publications that failed: the connection will be reset by the proxy.
    PublishFailed = 3,
    /// Connections of the proxy recorded as admitted to a pod.
    Admitted = 4,
    /// Admissions that could not be recorded: the connection is treated as a stranger's.
    AdmitFailed = 5,
    /// Inbound connections handed to the proxy.
    InboundProxied = 6,
    /// Inbound connections that an application has got as plaintext, without the proxy.
    InboundPassed = 7,
    /// Inbound connections refused: the mode asks for it, or no proxy is there.
    InboundRefused = 8,
    /// First packets of connections that were not the proxy's, dropped where they left a pod.
    GuardPodDropped = 9,
    /// The same, dropped where they arrived on the node: raw frames.
    GuardHostDropped = 10,
    /// First packets that did not come from an address of their pod, dropped there as well.
    GuardHostSpoofed = 11,
    /// Connections of the proxy that `guard_host` could not be told of: they will time out.
    UpstreamFailed = 12,
    /// Plaintext connections that `PASSED` had no room for: they live, and cannot be ended when
    /// their right is taken away.
    PassUnlisted = 13,
    /// Probes of the node admitted to a pod.
    ProbeAdmitted = 14,
    /// Events that were lost because the agent did not read them in time: flows are missing.
    EventLost = 15,
    /// Calls of connect() refused because they were known to fail.
    ConnectRefused = 16,
    /// Packets of UDP that left captured pods, outside of the mesh.
    UdpPassed = 17,
    /// Packets of SCTP that did.
    SctpPassed = 18,
    /// Calls of connect() refused because a policy does not allow them.
    ConnectDenied = 19,
}

impl Counter {
    /// Every counter with its name in metrics and status.
    pub const ALL: [(Self, &'static str); 20] = [
        (Self::Captured, "captured"),
        (Self::CaptureFailed, "capture_failed"),
        (Self::Published, "published"),
        (Self::PublishFailed, "publish_failed"),
        (Self::Admitted, "admitted"),
        (Self::AdmitFailed, "admit_failed"),
        (Self::InboundProxied, "inbound_proxied"),
        (Self::InboundPassed, "inbound_passed"),
        (Self::InboundRefused, "inbound_refused"),
        (Self::GuardPodDropped, "guard_pod_dropped"),
        (Self::GuardHostDropped, "guard_host_dropped"),
        (Self::GuardHostSpoofed, "guard_host_spoofed"),
        (Self::UpstreamFailed, "upstream_failed"),
        (Self::PassUnlisted, "pass_unlisted"),
        (Self::ProbeAdmitted, "probe_admitted"),
        (Self::EventLost, "event_lost"),
        (Self::ConnectRefused, "connect_refused"),
        (Self::UdpPassed, "udp_passed"),
        (Self::SctpPassed, "sctp_passed"),
        (Self::ConnectDenied, "connect_denied"),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["10.1.2.3", "0.0.0.0", "fd00::1", "::", "::1"] {
            let address: IpAddr = text.parse().expect("a literal");
            assert_eq!(IpAddr::from(Address::from(address)), address);
        }
    }

    #[test]
    fn loopback_is_recognised_in_both_families() {
        let is_loopback =
            |text: &str| Address::from(text.parse::<IpAddr>().expect("a literal")).is_loopback();
        assert!(is_loopback("127.0.0.1"));
        assert!(is_loopback("127.255.3.4"));
        assert!(is_loopback("::ffff:127.0.0.1"));
        assert!(is_loopback("::1"));
        assert!(!is_loopback("128.0.0.1"));
        assert!(!is_loopback("::2"));
    }

    #[test]
    fn layouts_have_no_implicit_padding() {
        assert_eq!(size_of::<Destination>(), 16 + 4);
        assert_eq!(size_of::<ConnectionKey>(), 8 + 16 + 16 + 4 + 4);
        assert_eq!(size_of::<ProbeKey>(), 8 + 16 + 4 + 4);
        assert_eq!(size_of::<DenialKey>(), 8 + 16 + 4 + 4);
        assert_eq!(size_of::<Event>(), size_of::<ConnectionKey>() + 4 + 4);
        assert_eq!(size_of::<Pod>(), 32 + 4 + 4);
        assert_eq!(size_of::<ProxySocket>(), 8);
        assert_eq!(size_of::<Inbound>(), 8 + 32 + 4 + 4);
    }
}
