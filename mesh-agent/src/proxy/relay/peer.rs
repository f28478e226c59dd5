//! Who has the other end of a stream, and so what its resets mean.

use h2::Reason;

use super::ends::{Ends, Halt, Side};
use crate::proxy::{hbone::status, revoke::Leash};

/// Who has the other end of a stream.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) enum Peer {
    /// The proxy of the other pod. It says, and is told, that policies ended a connection.
    Proxy,
    /// The application that connected, which is told by this that its connection broke.
    Client(Reason),
    /// The application that was connected to.
    Server,
}

impl Peer {
    /// The side that it is.
    pub(super) fn side(self) -> Side {
        match self {
            Self::Proxy => Side::Tunnel,
            Self::Client(_) => Side::Client,
            Self::Server => Side::Upstream,
        }
    }

    /// The side that a socket is which is relayed with it.
    pub(super) fn socket_side(self) -> Side {
        match self {
            Self::Proxy => Side::Socket,
            Self::Client(_) => Side::Upstream,
            Self::Server => Side::Client,
        }
    }

    /// It has reset its stream.
    pub(super) fn has_reset(self, ends: &Ends, reason: Result<Reason, h2::Error>) -> Halt {
        match (self, reason.unwrap_or(Reason::CANCEL)) {
            // From an application it means nothing.
            (Self::Proxy, reason) if reason == status::revoked() => ends.revoked(),
            (_, reason) => ends.stream_broke(self.side(), &format_args!("reset: {reason}")),
        }
        Halt::Sink
    }

    /// Its stream broke, or what carries that.
    pub(super) fn broke(self, ends: &Ends, error: &h2::Error) -> Halt {
        ends.stream_broke(self.side(), error);
        Halt::Sink
    }

    /// What it is told where the connection breaks, or loses its right.
    pub(super) fn told(self, leash: &Leash) -> Reason {
        match self {
            Self::Proxy if leash.is_revoked() => status::revoked(),
            // CONNECT_ERROR is what a TCP error is called in a tunnel (RFC 9113, section 8.5). ztunnel
            // takes CANCEL for an orderly end of data (docs/interop.md).
            Self::Proxy => Reason::CONNECT_ERROR,
            Self::Client(reason) => reason,
            Self::Server => Reason::CANCEL,
        }
    }
}
