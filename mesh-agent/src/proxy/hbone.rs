//! HBONE: TCP connections as HTTP/2 CONNECT streams over TLS 1.3 with mutual SPIFFE
//! certificates, wire-compatible with Istio ambient.
//!
//! Istio's own description: <https://istio.io/latest/docs/ambient/architecture/hbone/>.

use bytes::Bytes;
use h2::{RecvStream, SendStream};

pub(super) mod client;
pub(super) mod coalesce;
pub(super) mod pool;
pub(super) mod server;
pub(super) mod settle;
pub(super) mod status;

pub(super) use pool::{Key, Lease, Pool};

/// One connection inside a tunnel.
pub(super) struct Stream {
    pub(super) send: SendStream<Bytes>,
    pub(super) receive: RecvStream,
    /// The caller's place in its tunnel; the called side has none.
    pub(super) lease: Option<Lease>,
}

/// How many streams share a tunnel (ztunnel's `POOL_MAX_STREAMS_PER_CONNECTION` default).
const STREAMS_A_TUNNEL: u32 = 100;
/// How much a peer may send on a stream before the application reads it: what keeps
/// 4 Gbit/s going over 1 ms.
const STREAM_WINDOW: u32 = 512 * 1024;
/// The window of a whole tunnel: enough for every stream at once, so that streams whose readers
/// are slow never stop the others.
const TUNNEL_WINDOW: u32 = STREAMS_A_TUNNEL * STREAM_WINDOW;
/// The largest frame we take: as large as what one read takes off a socket.
const FRAME: u32 = super::buffer::BLOCK as u32;
/// The most that headers of a CONNECT may take; a peer's need a few hundred bytes.
const HEADER_LIST: u32 = 16 * 1024;
/// How many streams that were reset here are remembered, and for how long. What arrives late for
/// a forgotten one counts against the peer, and h2 closes a tunnel at 1,024 such frames: a burst
/// of clients that go away with their uploads under way must not do that.
const REMEMBERED_RESETS: usize = 20 * STREAMS_A_TUNNEL as usize;
const RESET_MEMORY: std::time::Duration = std::time::Duration::from_secs(30);
/// How much of a stream may wait in user space for the tunnel.
const SEND_BUFFER: usize = 2 * super::buffer::BLOCK;
