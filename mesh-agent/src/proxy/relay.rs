//! Moving bytes between two connections until both directions end.
//!
//! As without a mesh: the end of one direction ends that direction of the other side and no
//! more; a reset on one side resets the other, also after that side had ended its direction; a
//! slow reader slows its writer and nobody else.

use std::{io, os::fd::AsFd, time::Duration};

use socket2::SockRef;
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{self, Instant},
};

use super::{hbone::Stream, meter::Meter, revoke::Leash};
use crate::sys;

mod backlog;
mod ends;
mod pace;
mod peer;
pub(super) mod streams;
pub(super) mod tcp;
pub(super) mod tunnel;

pub(super) use backlog::Backlog;
pub(super) use pace::Pace;
pub(super) use peer::Peer;

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

/// One side of a relay.
pub(super) enum End {
    Socket(TcpStream),
    Stream(Stream, Peer),
}

/// Relays until both directions end, or one side breaks and the other is reset.
pub(super) async fn relay(client: End, upstream: End, leash: Leash, meter: Meter) -> Transferred {
    match (client, upstream) {
        (End::Socket(client), End::Socket(upstream)) => {
            tcp::relay(client, upstream, leash, meter).await
        }
        (End::Socket(client), End::Stream(upstream, peer)) => {
            tunnel::relay(client, upstream, peer, leash, meter).await
        }
        (End::Stream(client, peer), End::Socket(upstream)) => {
            tunnel::relay(upstream, client, peer, leash, meter.swapped()).await.swapped()
        }
        (End::Stream(client, caller), End::Stream(upstream, callee)) => {
            streams::relay((client, caller), (upstream, callee), leash, meter).await
        }
    }
}

/// Closes a connection so that its peer sees a reset, not an end of data.
pub(super) fn reset(stream: TcpStream) {
    reset_at_close(&stream);
}

/// Has the peer see a reset where this process ends with the connection in its hands: what was
/// carried until then must not be taken for all that there was.
fn reset_at_close(stream: &TcpStream) {
    // A socket that cannot be set up for a reset is closed already.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Closes a connection whose both directions have ended; what it has not sent yet still goes out.
fn close(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(None);
}

/// When a socket is first asked again whether everything has left it, and how seldom it is in the
/// end: many connections may break at once.
const UNSENT_CHECKS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(128));

/// Waits until what was written to `socket` has left: a reset discards what has not.
pub(super) async fn sent(socket: &TcpStream, deadline: Instant) {
    let sent = async {
        // The kernel tells of room in the queue, not of its end.
        let (mut pause, longest) = UNSENT_CHECKS;
        while sys::unsent_bytes(socket.as_fd()).is_ok_and(|unsent| unsent > 0) {
            time::sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    };
    tokio::select! {
        // What has not left by then is lost, as it is where the kernel resets a connection.
        _ = time::timeout_at(deadline, sent) => {}
        _ = failure(socket) => {}
    }
}

/// Waits until a connection breaks, without reading from it.
pub(super) async fn failure(stream: &TcpStream) -> io::Error {
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
pub(super) fn shutdown_write(stream: &TcpStream) -> io::Result<()> {
    match SockRef::from(stream).shutdown(std::net::Shutdown::Write) {
        // The peer has closed both directions meanwhile: there is nobody left to tell.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        shut => shut,
    }
}

#[cfg(test)]
mod tests;
