//! Moving bytes between two connections until both directions end.
//!
//! As without a mesh: the end of one direction ends that direction of the other side and no
//! more; a reset on one side resets the other, also after that side had ended its direction; a
//! slow reader slows its writer and nobody else.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::atomic::{AtomicU8, Ordering},
    task::Poll,
    time::Duration,
};

use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

use super::revoke::Leash;

mod backlog;
mod pace;
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
    /// Why it lost its right on the way, where it did.
    pub(super) revoked: Option<String>,
}

impl Transferred {
    /// The same seen from the other side.
    pub(super) fn swapped(self) -> Self {
        Self { from_client: self.to_client, to_client: self.from_client, ..self }
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

/// How many directions of a connection have ended.
#[derive(Default)]
struct Ended(AtomicU8);

impl Ended {
    /// One more has.
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn both(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 2
    }
}

/// Runs two directions until both have ended, one broke, or the connection lost its right; what
/// ended it early.
///
/// A direction that has ended says so through `ended` and goes on watching its source: a reset
/// there still has to reach the other side.
async fn run(
    one: impl Future<Output = Result<Infallible, String>>,
    other: impl Future<Output = Result<Infallible, String>>,
    ended: &Ended,
    leash: &mut Leash,
) -> Option<String> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| {
        if let Poll::Ready(Err(broken)) = one.as_mut().poll(cx) {
            return Poll::Ready(Some(broken));
        }
        if let Poll::Ready(Err(broken)) = other.as_mut().poll(cx) {
            return Poll::Ready(Some(broken));
        }
        if ended.both() {
            return Poll::Ready(None);
        }
        leash.poll_revoked(cx).map(Some)
    })
    .await
}

/// Waits until a connection breaks, without reading from it.
async fn failure(stream: &TcpStream) -> io::Error {
    loop {
        if let Err(error) = stream.ready(Interest::ERROR).await {
            return error;
        }
        match stream.take_error() {
            Ok(Some(error)) | Err(error) => return error,
            Ok(None) => {}
        }
        // Nothing is wrong any more; wait for the next event.
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = stream.try_io(Interest::ERROR, nothing);
    }
}

/// Tells the peer that no more data comes; the other direction goes on.
fn shutdown_write(stream: &TcpStream) -> io::Result<()> {
    match SockRef::from(stream).shutdown(std::net::Shutdown::Write) {
        // The peer has closed both directions meanwhile: there is nobody left to tell.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        shut => shut,
    }
}

#[cfg(test)]
mod tests;
