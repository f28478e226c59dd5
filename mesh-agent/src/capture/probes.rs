//! The ports of captured pods that probes of their node get to without the proxy.
//!
//! Only a socket of the agent's own network namespace is a probe's, whatever its address.

use std::{collections::HashSet, io};

use mesh_common::bpf::ProbeKey;

use super::{CaptureError, enroll::Pod, error::map};
use crate::sys::Map;

/// What the kernel knows of probes.
pub struct Probes<'k> {
    /// The map.
    pub map: &'k Map<ProbeKey, u64>,
    /// The cookie of the node's network namespace.
    pub node: u64,
}

impl Probes<'_> {
    /// Lets probes to `ports` of `pod` in, and no others.
    pub fn set(&self, pod: &Pod, ports: &[u16]) -> Result<(), CaptureError> {
        let cookie = pod.netns.cookie();
        let key = |address, port| ProbeKey { netns: self.node, address, port, reserved: 0 };
        let wanted: HashSet<ProbeKey> = pod
            .addresses
            .iter()
            .flat_map(|it| ports.iter().map(|port| key((*it).into(), (*port).into())))
            .collect();
        for probe in &wanted {
            self.map.insert(probe, &cookie).map_err(map("PROBES"))?;
        }
        self.forget(|probe, of| of == cookie && !wanted.contains(probe)).map_err(map("PROBES"))
    }

    /// Forgets every entry that `goes` takes, by key and by cookie of the pod.
    pub fn forget(&self, goes: impl Fn(&ProbeKey, u64) -> bool) -> io::Result<()> {
        for probe in self.map.keys()? {
            if self.map.get(&probe)?.is_some_and(|pod| goes(&probe, pod)) {
                self.map.remove(&probe)?;
            }
        }
        Ok(())
    }
}
