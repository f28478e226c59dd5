//! What the proxy asks of the kernel maps, on the path of each connection.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

use mesh_common::bpf::{ConnectionKey, DenialKey, Destination, ProxySocket};

use super::pins::Pins;
use crate::sys::Map;

/// The maps that the proxy reads and writes. Every call is one system call, from any thread.
#[derive(Debug)]
pub struct SocketTable {
    original_destinations: Map<ConnectionKey, Destination>,
    proxy_sockets: Map<i32, ProxySocket>,
    admitted: Map<ConnectionKey, u32>,
    passed: Map<ConnectionKey, u32>,
    unserved: Map<Destination, u32>,
    denials: Map<DenialKey, u64>,
}

impl SocketTable {
    pub(super) fn open(pins: &Pins) -> io::Result<Self> {
        Ok(Self {
            original_destinations: Map::open(&pins.map("ORIGINAL_DESTINATIONS"))?,
            proxy_sockets: Map::open(&pins.map("SK_PROXY"))?,
            admitted: Map::open(&pins.map("ADMITTED"))?,
            passed: Map::open(&pins.map("PASSED"))?,
            unserved: Map::open(&pins.map("UNSERVED"))?,
            denials: Map::open(&pins.map("DENIALS"))?,
        })
    }

    /// Where a captured connection was going, and forgets it.
    ///
    /// `None`: nothing captured this connection, or the map was full. It leads nowhere.
    ///
    /// # Errors
    /// Where the kernel refuses the lookup.
    pub fn take_original_destination(
        &self,
        connection: &ConnectionKey,
    ) -> io::Result<Option<SocketAddr>> {
        let destination = self.original_destinations.take(connection)?;
        Ok(destination.and_then(|destination| destination.socket_addr()))
    }

    /// Marks a socket as the proxy's own, to be called before it connects or listens.
    ///
    /// `admit` is the cookie of the local pod whose application the connection shall reach, or
    /// 0. The mark is in the kernel's storage of this very socket: no program in a pod can set it.
    ///
    /// # Errors
    /// Where the kernel has no memory for it, or the descriptor is no socket.
    pub fn mark_proxy_socket(&self, socket: BorrowedFd<'_>, admit: u64) -> io::Result<()> {
        self.proxy_sockets.insert(&socket.as_raw_fd(), &ProxySocket { admit })
    }

    /// Whether a connection that a pod has not got yet is the proxy's, or a probe's.
    pub fn is_admitted(&self, connection: &ConnectionKey) -> bool {
        // What cannot be asked is left alone.
        self.admitted.get(connection).map_or(true, |found| found.is_some())
    }

    /// The plaintext connections that applications of a pod have got without the proxy and that
    /// live, by the cookie of the pod's namespace. Reads the whole map: not for every connection.
    ///
    /// # Errors
    /// Where the kernel refuses to list them.
    pub fn passed(&self, netns: u64) -> io::Result<Vec<ConnectionKey>> {
        let mut passed = self.passed.keys()?;
        passed.retain(|connection| connection.netns == netns);
        Ok(passed)
    }

    /// Has connect() to these places fail at once, and to no others: nobody is ready to serve them.
    ///
    /// # Errors
    /// Where the map is full; what it has no room for, the proxy resets.
    pub fn set_unserved(&self, places: &HashSet<SocketAddr>) -> io::Result<()> {
        let wanted: HashSet<Destination> = places.iter().map(|place| (*place).into()).collect();
        let known: HashSet<Destination> = self.unserved.keys()?.into_iter().collect();
        // Whoever is ready now is reached before anything else.
        for served in known.difference(&wanted) {
            self.unserved.remove(served)?;
        }
        for unserved in wanted.difference(&known) {
            self.unserved.insert(unserved, &1)?;
        }
        Ok(())
    }

    /// Has connect() to a place fail until `until`, in nanoseconds of CLOCK_MONOTONIC.
    ///
    /// # Errors
    /// Where the map is full; the proxy then decides.
    pub fn deny(&self, call: &DenialKey, until: u64) -> io::Result<()> {
        self.denials.insert(call, &until)
    }

    /// Leaves such calls to the proxy again.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn forget_denial(&self, call: &DenialKey) -> io::Result<()> {
        self.denials.remove(call)
    }

    /// The same of every pod, by the cookie of its namespace.
    ///
    /// # Errors
    /// Where the kernel refuses to list them.
    pub fn passed_by_pod(&self) -> io::Result<HashMap<u64, HashSet<ConnectionKey>>> {
        let mut pods: HashMap<u64, HashSet<ConnectionKey>> = HashMap::new();
        for connection in self.passed.keys()? {
            pods.entry(connection.netns).or_default().insert(connection);
        }
        Ok(pods)
    }

    /// Forgets the plaintext connections of every pod but those whose cookie `keep` takes.
    pub(super) fn forget_passed(&self, keep: impl Fn(u64) -> bool) -> io::Result<()> {
        let passed = self.passed.keys()?.into_iter();
        for connection in passed.filter(|connection| !keep(connection.netns)) {
            self.passed.remove(&connection)?;
        }
        Ok(())
    }

    /// Forgets every destination and denial: of connections that died with an earlier agent, and of
    /// policies that may have changed since.
    pub(super) fn clear(&self) -> io::Result<()> {
        for call in self.denials.keys()? {
            self.denials.remove(&call)?;
        }
        for connection in self.original_destinations.keys()? {
            self.original_destinations.remove(&connection)?;
        }
        Ok(())
    }
}
