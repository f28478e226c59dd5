//! The agent's sign of life: without one the kernel programs refuse new connections at once instead
//! of letting them wait for an agent that is stuck.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Duration,
};

use super::pins::Pins;
use crate::{
    liveness::Pulse,
    sys::{self, Map},
};

/// Well within [`mesh_common::bpf::HEARTBEAT_STALE`].
const INTERVAL: Duration = Duration::from_secs(1);

/// A thread that writes the time into the kernel, until this is dropped.
pub struct Heartbeat {
    pulse: Arc<Pulse>,
    _stop: Sender<()>,
}

impl Heartbeat {
    /// Writes the first sign of life and starts the thread.
    pub fn start(pins: &Pins) -> io::Result<Self> {
        let map: Map<u32, u64> = Map::open(&pins.map("HEARTBEAT"))?;
        map.insert(&0, &sys::monotonic()?)?;
        let (stop, stopped) = channel();
        let pulse = Arc::<Pulse>::default();
        let beating = Arc::clone(&pulse);
        thread::Builder::new().name("heartbeat".to_owned()).spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(INTERVAL) {
                let beat = sys::monotonic().and_then(|now| map.insert(&0, &now));
                match beat {
                    Ok(()) => beating.beat(),
                    Err(error) => tracing::error!(
                        %error, "cannot write a sign of life for the kernel programs"
                    ),
                }
            }
        })?;
        Ok(Self { pulse, _stop: stop })
    }

    /// Shows whether the thread turns and the kernel takes what it writes.
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }
}
