//! Moving bytes between two connections until both directions end.
//!
//! As without a mesh: the end of one direction ends that direction of the other side and no
//! more; a reset on one side resets the other; a slow reader slows its writer and nobody else.

use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

pub(super) mod tcp;
pub(super) mod tunnel;

/// What a finished relay moved.
#[derive(Debug, Default)]
pub(super) struct Transferred {
    /// Payload from the side that connected.
    pub(super) from_client: u64,
    /// Payload to the side that connected.
    pub(super) to_client: u64,
    /// Which side ended it early, and how; `None` where both directions were closed.
    pub(super) broken: Option<String>,
}

impl Transferred {
    /// The same seen from the other side.
    pub(super) fn swapped(self) -> Self {
        Self { from_client: self.to_client, to_client: self.from_client, broken: self.broken }
    }
}

/// Closes a connection so that its peer sees a reset, not an end of data.
pub(super) fn reset(stream: TcpStream) {
    // A socket that cannot be set up for a reset is closed already.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// Which side failed, for the flow.
pub(super) fn broken(side: &str, error: &impl std::fmt::Display) -> String {
    format!("{side}: {error}")
}

#[cfg(test)]
mod tests;
