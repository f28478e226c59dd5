//! The only unsafe code: kernel contexts and helpers behind safe functions.
//!
//! aya's contexts of these program types have no fields. Everything is read with volatile loads
//! of four bytes or fewer: that is what the verifier accepts, and the compiler must not merge
//! two of them into one.

use core::{marker::PhantomData, ptr};

use aya_ebpf::{
    bindings::{
        BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type, bpf_sock,
        bpf_sock_addr, sockaddr,
    },
    helpers::{
        bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_map_lookup_elem,
        bpf_set_retval, bpf_sk_release,
        generated::{bpf_bind, bpf_sk_storage_delete, bpf_sk_storage_get, bpf_skc_to_mptcp_sock},
    },
    maps::{HashMap, SockMap},
    programs::{SkLookupContext, SockAddrContext, SockOpsContext},
};
use mesh_common::bpf::{Address, ConnectionKey, Destination, Listener, Pod, ProbeKey};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_MPTCP: u32 = 262;

/// Reads a field of a kernel context.
macro_rules! field {
    ($context:expr, $($field:tt)+) => {
        // SAFETY: the context lives as long as the program runs, and the field is in it.
        unsafe { core::ptr::addr_of!((*$context).$($field)+).read_volatile() }
    };
}

/// Reads an IPv6 address out of a kernel context, word by word.
macro_rules! address {
    ($context:expr, $field:ident) => {
        Address([
            field!($context, $field[0]),
            field!($context, $field[1]),
            field!($context, $field[2]),
            field!($context, $field[3]),
        ])
    };
}

/// Writes a field of a kernel context.
macro_rules! set_field {
    ($context:expr, $field:ident $([$index:literal])?, $value:expr) => {
        // SAFETY: as for reading; the verifier checks that the field may be written.
        unsafe { core::ptr::addr_of_mut!((*$context).$field $([$index])?).write_volatile($value) }
    };
}

mod packet;

pub use packet::{Frame, Packet};

/// Flags of a storage that every socket has for itself.
pub const OWN: usize = BPF_F_NO_PREALLOC as usize;
/// Flags of a storage that connections inherit from the listener that accepts them.
pub const INHERITED: usize = (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize;

/// A map of values that are kept with sockets. aya's own has no flags to choose. Loaders read type
/// and flags from the lengths of the arrays that it claims to point to.
#[repr(C)]
pub struct SkStorage<T, const FLAGS: usize = OWN> {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; FLAGS],
}

// SAFETY: nothing ever follows the pointers.
unsafe impl<T, const FLAGS: usize> Sync for SkStorage<T, FLAGS> {}

impl<T, const FLAGS: usize> SkStorage<T, FLAGS> {
    /// The definition of a map.
    pub const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }
}

/// A random word.
#[inline(always)]
pub fn random() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_prandom_u32() }
}

/// Nanoseconds of CLOCK_MONOTONIC.
#[inline(always)]
pub fn monotonic() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// The value of a key in a map whose values are single numbers.
#[inline(always)]
pub fn value<K, V: Copy>(map: &'static HashMap<K, V>, key: &K) -> Option<V> {
    // SAFETY: the value is copied at once, and the kernel writes a number in one piece.
    unsafe { map.get(key).copied() }
}

/// Adds one to a value of a per-CPU map.
#[inline(always)]
pub fn increment(value: *mut u64) {
    // SAFETY: the pointer is of this CPU's entry, which lives as long as the map.
    unsafe { *value += 1 }
}

/// Whether a listener of the proxy is there.
#[inline(always)]
pub fn is_listening(listeners: &'static SockMap, listener: Listener) -> bool {
    let index = listener as u32;
    // SAFETY: map and key are valid; a socket that is found is released and not used again.
    unsafe {
        let socket = bpf_map_lookup_elem(
            ptr::from_ref(listeners).cast_mut().cast(),
            ptr::from_ref(&index).cast(),
        );
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket);
    }
    true
}

/// A call of connect() or getpeername().
pub struct Call<'a> {
    sock_addr: *mut bpf_sock_addr,
    context: PhantomData<&'a SockAddrContext>,
}

impl<'a> Call<'a> {
    /// The call that the program was started for.
    #[inline(always)]
    pub fn new(ctx: &'a SockAddrContext) -> Self {
        Self { sock_addr: ctx.sock_addr, context: PhantomData }
    }

    /// Whether it is about TCP, MPTCP's subflows included.
    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        let protocol = field!(self.sock_addr, protocol);
        field!(self.sock_addr, type_) == SOCK_STREAM
            && (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP)
    }

    /// The network namespace of the socket.
    #[inline(always)]
    pub fn netns_cookie(&self) -> u64 {
        // SAFETY: the helper takes this kind of context.
        unsafe { bpf_get_netns_cookie(self.sock_addr.cast()) }
    }

    /// The enrolled pod that the socket is in.
    #[inline(always)]
    pub fn pod(&self, pods: &'static HashMap<u64, Pod>) -> Option<Pod> {
        // SAFETY: the entry is copied at once. One that is replaced meanwhile is of the same pod.
        unsafe { pods.get(self.netns_cookie()).copied() }
    }

    /// The socket.
    #[inline(always)]
    pub fn socket(&self) -> Socket {
        Socket(field!(self.sock_addr, __bindgen_anon_1.sk))
    }

    /// The IPv4 address and port of the call.
    #[inline(always)]
    pub fn destination4(&self) -> Destination {
        Destination {
            address: Address::from_ipv4_word(field!(self.sock_addr, user_ip4)),
            port: self.port(),
        }
    }

    /// The IPv6 address and port of the call.
    #[inline(always)]
    pub fn destination6(&self) -> Destination {
        Destination { address: address!(self.sock_addr, user_ip6), port: self.port() }
    }

    /// The kernel keeps the port in network order in the first two bytes of the field.
    #[inline(always)]
    fn port(&self) -> u32 {
        u16::from_be(field!(self.sock_addr, user_port) as u16).into()
    }

    /// Replaces address and port. Anything but IPv4 is left out: there is no room for it.
    #[inline(always)]
    pub fn set_destination4(&self, destination: &Destination) {
        if let Some(word) = destination.address.ipv4_word() {
            set_field!(self.sock_addr, user_ip4, word);
            self.set_port(destination.port);
        }
    }

    /// Replaces address and port; an IPv4 address stays mapped.
    #[inline(always)]
    pub fn set_destination6(&self, destination: &Destination) {
        let Address(words) = destination.address;
        set_field!(self.sock_addr, user_ip6[0], words[0]);
        set_field!(self.sock_addr, user_ip6[1], words[1]);
        set_field!(self.sock_addr, user_ip6[2], words[2]);
        set_field!(self.sock_addr, user_ip6[3], words[3]);
        self.set_port(destination.port);
    }

    #[inline(always)]
    fn set_port(&self, port: u32) {
        set_field!(self.sock_addr, user_port, u32::from((port as u16).to_be()));
    }

    /// Binds the socket to `address` and to no port; whether that worked.
    #[inline(always)]
    pub fn bind(&self, address: &Address) -> bool {
        // A struct sockaddr_in, and a struct sockaddr_in6 without its last field, which the
        // kernel lets callers leave out (RFC 2133 had none).
        #[repr(C)]
        struct Sockaddr4 {
            family: u16,
            port: u16,
            address: u32,
            zero: [u32; 2],
        }
        #[repr(C)]
        struct Sockaddr6 {
            family: u16,
            port: u16,
            flow: u32,
            address: Address,
        }
        let bind = |address: *mut sockaddr, length: usize| {
            // SAFETY: the address is initialised and as long as we say.
            unsafe { bpf_bind(self.sock_addr, address, length as i32) == 0 }
        };
        if field!(self.sock_addr, family) == AF_INET {
            let Some(word) = address.ipv4_word() else { return false };
            let mut name =
                Sockaddr4 { family: AF_INET as u16, port: 0, address: word, zero: [0; 2] };
            bind(ptr::from_mut(&mut name).cast(), size_of::<Sockaddr4>())
        } else {
            let mut name =
                Sockaddr6 { family: AF_INET6 as u16, port: 0, flow: 0, address: *address };
            bind(ptr::from_mut(&mut name).cast(), size_of::<Sockaddr6>())
        }
    }

    /// What the call fails with, if the program then refuses it.
    #[inline(always)]
    pub fn fail_with(&self, errno: i32) {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_set_retval(-errno) };
    }
}

/// A socket, as long as the program runs.
pub struct Socket(*mut bpf_sock);

impl Socket {
    /// What the socket's storage in `map` holds.
    #[inline(always)]
    pub fn recall<T: Copy, const FLAGS: usize>(
        &self,
        map: &'static SkStorage<T, FLAGS>,
    ) -> Option<T> {
        // SAFETY: the socket is valid, and the value lives as long as the socket.
        unsafe {
            let value = bpf_sk_storage_get(pointer(map), self.0.cast(), ptr::null_mut(), 0);
            value.cast::<T>().as_ref().copied()
        }
    }

    /// Puts a value into the socket's storage; whether there was memory for it.
    #[inline(always)]
    pub fn remember<T: Copy>(&self, map: &'static SkStorage<T>, value: &T) -> bool {
        let initial = ptr::from_ref(value).cast_mut().cast();
        // SAFETY: the socket is valid, the helper only reads the initial value, and the storage
        // is written before anything else can see this connect.
        unsafe {
            let flags = BPF_SK_STORAGE_GET_F_CREATE.into();
            let stored = bpf_sk_storage_get(pointer(map), self.0.cast(), initial, flags);
            match stored.cast::<T>().as_mut() {
                Some(stored) => {
                    *stored = *value;
                    true
                }
                None => false,
            }
        }
    }

    /// The connection that this socket is a subflow of, if it is one. The application's
    /// descriptor is that connection: getpeername() asks it, and connect() only the subflow.
    #[inline(always)]
    pub fn multipath(&self) -> Option<Socket> {
        // SAFETY: the socket is valid; so is what it belongs to.
        let connection = unsafe { bpf_skc_to_mptcp_sock(self.0.cast()) };
        (!connection.is_null()).then_some(Socket(connection.cast()))
    }

    /// Empties the socket's storage in `map`.
    #[inline(always)]
    pub fn forget<T>(&self, map: &'static SkStorage<T>) {
        // SAFETY: the socket is valid; deleting what is not there is harmless.
        unsafe { bpf_sk_storage_delete(pointer(map), self.0.cast()) };
    }

    /// The interface that SO_BINDTODEVICE or the like keeps it to.
    #[inline(always)]
    pub fn device(&self) -> Option<u32> {
        match field!(self.0, bound_dev_if) {
            0 => None,
            interface => Some(interface),
        }
    }

    /// Whether the socket has a source address.
    #[inline(always)]
    pub fn is_bound_to_address(&self) -> bool {
        if field!(self.0, family) == AF_INET {
            field!(self.0, src_ip4) != 0
        } else {
            address!(self.0, src_ip6) != Address::NONE
        }
    }

    /// Whether the socket has a source port.
    #[inline(always)]
    pub fn is_bound_to_port(&self) -> bool {
        field!(self.0, src_port) != 0
    }
}

/// A map as helpers want it.
#[inline(always)]
fn pointer<T, const FLAGS: usize>(map: &'static SkStorage<T, FLAGS>) -> *mut core::ffi::c_void {
    ptr::from_ref(map).cast_mut().cast()
}

/// Something that happened to a TCP socket.
pub struct Event<'a>(&'a SockOpsContext);

impl<'a> Event<'a> {
    /// The event that the program was started for.
    #[inline(always)]
    pub fn new(ctx: &'a SockOpsContext) -> Self {
        Self(ctx)
    }

    /// The socket, if it is a full one.
    #[inline(always)]
    pub fn socket(&self) -> Option<Socket> {
        let socket = field!(self.0.ops, __bindgen_anon_2.sk);
        (!socket.is_null()).then_some(Socket(socket))
    }

    /// The network namespace of the socket.
    #[inline(always)]
    pub fn netns_cookie(&self) -> u64 {
        // SAFETY: the helper takes this kind of context.
        unsafe { bpf_get_netns_cookie(self.0.ops.cast()) }
    }

    /// The enrolled pod that the socket is in.
    #[inline(always)]
    pub fn pod(&self, pods: &'static HashMap<u64, Pod>) -> Option<Pod> {
        // SAFETY: as for a call.
        unsafe { pods.get(self.netns_cookie()).copied() }
    }

    /// The socket's connection, of which it is the client.
    #[inline(always)]
    pub fn connection(&self, netns: u64) -> ConnectionKey {
        let (local, remote) = self.ends();
        ConnectionKey {
            netns,
            client: local.address,
            server: remote.address,
            client_port: local.port,
            server_port: remote.port,
        }
    }

    /// The place that the socket calls, as a probe would.
    #[inline(always)]
    pub fn probe(&self) -> ProbeKey {
        let (_, remote) = self.ends();
        ProbeKey {
            netns: self.netns_cookie(),
            address: remote.address,
            port: remote.port,
            reserved: 0,
        }
    }

    /// The socket's connection, of which it is the server.
    #[inline(always)]
    pub fn accepted(&self) -> ConnectionKey {
        let (local, remote) = self.ends();
        ConnectionKey {
            netns: self.netns_cookie(),
            client: remote.address,
            server: local.address,
            client_port: remote.port,
            server_port: local.port,
        }
    }

    /// The socket's own end and the other one.
    #[inline(always)]
    fn ends(&self) -> (Destination, Destination) {
        let ops = self.0.ops;
        let (local4, remote4) = (field!(ops, local_ip4), field!(ops, remote_ip4));
        let (local6, remote6) = (address!(ops, local_ip6), address!(ops, remote_ip6));
        // An IPv6 socket that speaks IPv4 keeps its addresses in the IPv4 fields.
        let is_ipv4 = field!(ops, family) == AF_INET || remote6.ipv4_word().is_some();
        let (local, remote) = if is_ipv4 {
            (Address::from_ipv4_word(local4), Address::from_ipv4_word(remote4))
        } else {
            (local6, remote6)
        };
        let local = Destination { address: local, port: field!(ops, local_port) };
        // In network order in the last two bytes of the field, unlike everywhere else.
        let remote = Destination { address: remote, port: u32::from_be(field!(ops, remote_port)) };
        (local, remote)
    }
}

/// A new TCP connection that arrives in a network namespace.
pub struct Arrival {
    is_ipv4: bool,
    /// The interface that it says it came through.
    pub interface: u32,
    /// The address and port that are called.
    pub server: Destination,
    /// The address and port that call.
    pub client: Destination,
}

impl Arrival {
    /// The connection that the program was started for; `None` if it is not TCP.
    #[inline(always)]
    pub fn new(ctx: &SkLookupContext) -> Option<Self> {
        let lookup = ctx.lookup;
        if field!(lookup, protocol) != IPPROTO_TCP {
            return None;
        }
        // Both families, of which one is zero: were only one read, the compiler would choose the
        // field's offset at run time, and the verifier would refuse that.
        let (server4, client4) = (field!(lookup, local_ip4), field!(lookup, remote_ip4));
        let (server6, client6) = (address!(lookup, local_ip6), address!(lookup, remote_ip6));
        let is_ipv4 = field!(lookup, family) == AF_INET;
        let (server, client) = if is_ipv4 {
            (Address::from_ipv4_word(server4), Address::from_ipv4_word(client4))
        } else {
            (server6, client6)
        };
        let client_port = u16::from_be(field!(lookup, remote_port)).into();
        Some(Self {
            is_ipv4,
            interface: field!(lookup, ingress_ifindex),
            server: Destination { address: server, port: field!(lookup, local_port) },
            client: Destination { address: client, port: client_port },
        })
    }

    /// Whether it came as IPv4.
    #[inline(always)]
    pub fn is_ipv4(&self) -> bool {
        self.is_ipv4
    }

    /// Whether `connections` holds it for the pod of this namespace.
    #[inline(always)]
    pub fn is_in(&self, connections: &'static HashMap<ConnectionKey, u32>, netns: u64) -> bool {
        let connection = ConnectionKey {
            netns,
            client: self.client.address,
            server: self.server.address,
            client_port: self.client.port,
            server_port: self.server.port,
        };
        value(connections, &connection).is_some()
    }
}
