//! The system calls that no safe crate offers: bpf(2) on links, pins and typed maps, and the
//! cookie of a network namespace.
//!
//! This is the only unsafe code of the agent. Layouts and numbers: `union bpf_attr` and the
//! enums around it in the kernel's include/uapi/linux/bpf.h, which never change.

#![allow(unsafe_code)]

use std::{
    ffi::CString,
    io,
    marker::PhantomData,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use mesh_common::bpf::{
    ConnectionKey, DenialKey, Destination, Event, Inbound, Pod, ProbeKey, ProxySocket,
};

pub mod table;

/// `enum bpf_cmd`, as far as it is used here.
#[derive(Clone, Copy)]
#[repr(i32)]
enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    MapNextKey = 4,
    Pin = 6,
    Get = 7,
    Info = 15,
    ProgramQuery = 16,
    MapTake = 21,
    MapLookupBatch = 24,
    MapUpdateBatch = 26,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkDetach = 34,
}

/// Where a program is attached: `enum bpf_attach_type`, as far as it is used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// TCP events of the sockets under a cgroup.
    SockOps = 3,
    /// connect() of IPv4 sockets under a cgroup.
    Connect4 = 10,
    /// connect() of IPv6 sockets under a cgroup.
    Connect6 = 11,
    /// getpeername() of IPv4 sockets under a cgroup.
    Getpeername4 = 29,
    /// getpeername() of IPv6 sockets under a cgroup.
    Getpeername6 = 30,
    /// Socket lookup in a network namespace.
    SkLookup = 36,
    /// Frames that arrive at an interface (Linux 6.6).
    TcxIngress = 46,
    /// Frames that leave through an interface (Linux 6.6).
    TcxEgress = 47,
}

impl Hook {
    /// At an interface several programs run one after the other, and any may end the row.
    fn is_ordered(self) -> bool {
        matches!(self, Self::TcxIngress | Self::TcxEgress)
    }
}

/// What a link is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A cgroup, by id; 0 once the link is detached.
    Cgroup(u64),
    /// A network namespace, by inode; 0 once the link is detached or the namespace gone.
    Netns(u32),
    /// An interface, by index; 0 once the link is detached or the interface gone.
    Interface(u32),
    /// Something that we never attach to.
    Other,
}

impl Target {
    /// Whether the link is attached to anything.
    pub fn is_attached(self) -> bool {
        !matches!(self, Self::Cgroup(0) | Self::Netns(0) | Self::Interface(0) | Self::Other)
    }
}

/// What the kernel says about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The program that runs.
    pub program: u32,
    /// Where it runs.
    pub target: Target,
}

/// What a program is to be attached to.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// A cgroup or a network namespace, open.
    Open(BorrowedFd<'a>),
    /// An interface of this thread's network namespace, by index.
    Interface(u32),
}

/// Attaches a program, before all others where there is an order; it runs until the link and all
/// its pins are gone.
pub fn link_create(program: BorrowedFd<'_>, place: Place<'_>, hook: Hook) -> io::Result<OwnedFd> {
    /// `BPF_F_BEFORE`; before nothing in particular: at the head.
    const BEFORE: u32 = 1 << 3;
    #[repr(C)]
    struct Attr {
        program: i32,
        target: u32,
        hook: u32,
        flags: u32,
        // Hook-specific options, all of which may be zero.
        rest: [u64; 6],
    }
    let mut attr = Attr {
        program: program.as_raw_fd(),
        target: match place {
            Place::Open(descriptor) => descriptor.as_raw_fd() as u32,
            Place::Interface(index) => index,
        },
        hook: hook as u32,
        flags: if hook.is_ordered() { BEFORE } else { 0 },
        rest: [0; 6],
    };
    // SAFETY: the attribute holds no pointers.
    let fd = unsafe { bpf(Command::LinkCreate, &mut attr) }?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The id of the program that runs first at an interface of this thread's network namespace.
pub fn first_program(interface: u32, hook: Hook) -> io::Result<Option<u32>> {
    /// `BPF_MPROG_MAX`: the most that an interface takes.
    const MOST: usize = 64;
    #[repr(C)]
    struct Attr {
        target: u32,
        hook: u32,
        query_flags: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        padding: u32,
        rest: [u64; 4],
    }
    let mut programs = [0_u32; MOST];
    let mut attr = Attr {
        target: interface,
        hook: hook as u32,
        query_flags: 0,
        attach_flags: 0,
        programs: programs.as_mut_ptr() as u64,
        count: MOST as u32,
        padding: 0,
        rest: [0; 4],
    };
    // SAFETY: the array outlives the call and has room for as many ids as `count` says.
    unsafe { bpf(Command::ProgramQuery, &mut attr) }?;
    Ok((attr.count > 0).then_some(programs[0]))
}

/// Replaces the program of a link; no event is missed.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link: i32,
        program: i32,
        flags: u32,
        old_program: i32,
    }
    let mut attr =
        Attr { link: link.as_raw_fd(), program: program.as_raw_fd(), flags: 0, old_program: 0 };
    // SAFETY: the attribute holds no pointers.
    unsafe { bpf(Command::LinkUpdate, &mut attr) }?;
    Ok(())
}

/// Detaches a link, whoever else holds it.
pub fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = link.as_raw_fd();
    // SAFETY: the attribute, the link's descriptor, holds no pointers.
    unsafe { bpf(Command::LinkDetach, &mut attr) }?;
    Ok(())
}

/// Asks what a link runs, and where.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    const CGROUP: u32 = 3;
    const NETNS: u32 = 5;
    const TCX: u32 = 11;
    #[derive(Clone, Copy, Default)]
    #[repr(C)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        padding: u32,
        target: u64,
        rest: [u64; 4],
    }
    let mut info = Info::default();
    object_info(link, &mut info)?;
    let target = match info.kind {
        CGROUP => Target::Cgroup(info.target),
        NETNS => Target::Netns(first_field(info.target)),
        TCX => Target::Interface(first_field(info.target)),
        _ => Target::Other,
    };
    Ok(LinkInfo { program: info.program, target })
}

/// The inode or the interface is the first of two 32-bit fields.
fn first_field(fields: u64) -> u32 {
    let [a, b, c, d, ..] = fields.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// Gives a link or map a name on a bpffs, which keeps it alive.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, object: object.as_raw_fd(), flags: 0 };
    // SAFETY: the path outlives the call and ends with a NUL.
    unsafe { bpf(Command::Pin, &mut attr) }?;
    Ok(())
}

/// Opens what is pinned at `path`.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, object: 0, flags: 0 };
    // SAFETY: the path outlives the call and ends with a NUL.
    let fd = unsafe { bpf(Command::Get, &mut attr) }?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
struct ObjectAttr {
    path: u64,
    object: i32,
    flags: u32,
}

/// How many bytes wait in a TCP socket to be sent for the first time (Linux 2.6.32).
pub fn unsent_bytes(socket: BorrowedFd<'_>) -> io::Result<u64> {
    /// `SIOCOUTQNSD`, linux/sockios.h.
    const REQUEST: libc::Ioctl = 0x894B;
    let mut unsent: libc::c_int = 0;
    // SAFETY: this request writes one int, to where the pointer says.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), REQUEST, &raw mut unsent) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::try_from(unsent).unwrap_or_default())
}

/// The cookie of the network namespace that a socket belongs to (Linux 5.14).
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: pointer and length are of a u64, which is what the option gives.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// Nanoseconds of CLOCK_MONOTONIC, as the kernel programs see it.
pub fn monotonic() -> io::Result<u64> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is of a timespec that outlives the call.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Neither part of this clock is ever negative.
    Ok(now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs())
}

/// A type that the kernel may read and write byte by byte.
///
/// # Safety
/// Every bit pattern is a value, and there is no padding.
pub unsafe trait Plain: Copy + Default {}

// SAFETY: integers.
unsafe impl Plain for i32 {}
// SAFETY: integers.
unsafe impl Plain for u32 {}
// SAFETY: integers.
unsafe impl Plain for u64 {}
// SAFETY: repr(C) of integers without padding, which mesh-common tests.
unsafe impl Plain for ConnectionKey {}
// SAFETY: as above.
unsafe impl Plain for Destination {}
// SAFETY: as above.
unsafe impl Plain for Inbound {}
// SAFETY: as above.
unsafe impl Plain for Pod {}
// SAFETY: as above.
unsafe impl Plain for ProxySocket {}
// SAFETY: as above.
unsafe impl Plain for ProbeKey {}
// SAFETY: as above.
unsafe impl Plain for DenialKey {}
// SAFETY: as above.
unsafe impl Plain for Event {}

/// Reads a value that the kernel has written; `None` where there are too few bytes.
pub fn read<T: Plain>(bytes: &[u8]) -> Option<T> {
    let whole = bytes.len() >= size_of::<T>();
    // SAFETY: there are enough bytes, and any are a value.
    whole.then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// What the kernel says about a map: the beginning of `struct bpf_map_info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MapShape {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    /// How many entries there is room for.
    pub max_entries: u32,
    flags: u32,
}

impl MapShape {
    fn of(map: BorrowedFd<'_>) -> io::Result<Self> {
        let mut shape = Self::default();
        object_info(map, &mut shape)?;
        Ok(shape)
    }
}

/// Removes a key from a pinned map, whatever its values are; one that is not there, or no map, is no
/// error.
///
/// # Errors
/// Where the map has other keys.
pub fn remove_key<K: Plain>(path: &Path, key: &K) -> io::Result<()> {
    let map = match open_pin(path) {
        Ok(map) => map,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if MapShape::of(map.as_fd())?.key_size as usize != size_of::<K>() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the map has other keys"));
    }
    // Of a key that goes the value is not looked at.
    Map::<K, u32> { fd: map, layout: PhantomData }.remove(key)
}

/// A kernel map whose keys are `K` and whose values are `V`. All calls go straight to the
/// kernel, from any thread, and allocate nothing.
#[derive(Debug)]
pub struct Map<K, V> {
    fd: OwnedFd,
    layout: PhantomData<fn(K) -> V>,
}

impl<K: Plain, V: Plain> Map<K, V> {
    /// Takes a descriptor of a map.
    ///
    /// # Errors
    /// Where it is no map, or one of another layout.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let info = MapShape::of(fd.as_fd())?;
        if info.key_size as usize != size_of::<K>() || info.value_size as usize != size_of::<V>() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "the map has keys of {} and values of {} bytes, not {} and {}",
                    info.key_size,
                    info.value_size,
                    size_of::<K>(),
                    size_of::<V>()
                ),
            ));
        }
        Ok(Self { fd, layout: PhantomData })
    }

    /// Opens a pinned map.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::new(open_pin(path)?)
    }

    /// The value at `key`.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = V::default();
        Ok(found(self.element(Command::MapLookup, key, &raw mut value))?.then_some(value))
    }

    /// Takes the value at `key` out of the map, in one system call (hash maps, Linux 5.14).
    pub fn take(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = V::default();
        Ok(found(self.element(Command::MapTake, key, &raw mut value))?.then_some(value))
    }

    /// Puts a value into the map, over one that is there.
    pub fn insert(&self, key: &K, value: &V) -> io::Result<()> {
        self.element(Command::MapUpdate, key, (&raw const *value).cast_mut())
    }

    /// Removes a key; one that is not there is no error.
    pub fn remove(&self, key: &K) -> io::Result<()> {
        found(self.element(Command::MapDelete, key, std::ptr::null_mut()))?;
        Ok(())
    }

    /// Every key. A map that changes meanwhile may give some twice and some not at all.
    pub fn keys(&self) -> io::Result<Vec<K>> {
        let mut keys = Vec::new();
        let mut next = K::default();
        let mut previous: *const K = std::ptr::null();
        loop {
            let mut attr = ElementAttr {
                map: self.fd.as_raw_fd() as u32,
                padding: 0,
                key: previous as u64,
                value: (&raw mut next) as u64,
                flags: 0,
            };
            // SAFETY: both keys outlive the call and have the map's size; null asks for the first.
            match unsafe { bpf(Command::MapNextKey, &mut attr) } {
                Ok(_) => keys.push(next),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
                Err(error) => return Err(error),
            }
            previous = keys.last().map_or(std::ptr::null(), std::ptr::from_ref);
        }
    }

    fn element(&self, command: Command, key: &K, value: *mut V) -> io::Result<()> {
        let mut attr = ElementAttr {
            map: self.fd.as_raw_fd() as u32,
            padding: 0,
            key: (&raw const *key) as u64,
            value: value as u64,
            flags: 0,
        };
        // SAFETY: key and value outlive the call and have the map's sizes, which `new` checked;
        // the kernel writes to the value only where the command says so.
        unsafe { bpf(command, &mut attr) }?;
        Ok(())
    }
}

impl<K, V> AsFd for Map<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[repr(C)]
struct ElementAttr {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Whether a key was there.
fn found(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Fills `info` with what the kernel says about an object.
fn object_info<T: Copy + Default>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        object: i32,
        length: u32,
        info: u64,
    }
    let mut attr = Attr {
        object: object.as_raw_fd(),
        length: size_of::<T>() as u32,
        info: (&raw mut *info) as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes; the callers' types hold only integers.
    unsafe { bpf(Command::Info, &mut attr) }?;
    Ok(())
}

/// # Safety
/// `attr` is the attribute that `command` takes, and what it points to outlives the call.
unsafe fn bpf<T>(command: Command, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as i32, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
