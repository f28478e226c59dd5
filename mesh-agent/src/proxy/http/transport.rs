//! The two ways to an endpoint as one: a TCP connection, or a stream of a tunnel.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, SendStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    outgoing::{Outgoing, SLICES},
    stream2::Receiving,
};
use crate::proxy::{
    buffer,
    hbone::{self, Lease, status},
    relay::{self, End, Pace, Peer, streams::poll_room},
};

/// A connection; both directions may be used at the same time.
pub(in crate::proxy) enum Transport {
    /// Straight to the peer.
    Tcp(TcpStream),
    /// To a pod of another node.
    Tunnel(Box<Tunnelled>),
}

/// A stream of a tunnel.
pub(in crate::proxy) struct Tunnelled {
    send: SendStream<Bytes>,
    pace: Pace,
    receive: Receiving,
    lease: Option<Lease>,
}

impl Transport {
    pub(super) fn tunnel(stream: hbone::Stream) -> Self {
        let hbone::Stream { send, receive, lease } = stream;
        let receive = Receiving::new(receive);
        Self::Tunnel(Box::new(Tunnelled { send, pace: Pace::default(), receive, lease }))
    }

    /// Appends what has arrived to `into`; ready with 0 at the end of data.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => buffer::poll_read(stream, cx, into),
            Self::Tunnel(stream) => {
                let chunk = ready!(stream.receive.poll_chunk(cx, buffer::BLOCK)).map_err(lost)?;
                let chunk = chunk.unwrap_or_default();
                into.extend_from_slice(&chunk);
                Poll::Ready(Ok(chunk.len()))
            }
        }
    }

    /// Takes in what arrives, where nobody wants it now.
    pub(super) fn stock(&mut self, cx: &mut Context<'_>) {
        if let Self::Tunnel(stream) = self {
            stream.receive.stock(cx);
        }
    }

    /// What was taken in by [`stock`](Self::stock).
    pub(super) fn take_stock(&mut self) -> Bytes {
        match self {
            Self::Tcp(_) => Bytes::new(),
            Self::Tunnel(stream) => stream.receive.take_all(),
        }
    }

    /// The side of a relay that it is, after [`take_stock`](Self::take_stock).
    pub(super) fn into_end(self) -> End {
        match self {
            Self::Tcp(stream) => End::Socket(stream),
            Self::Tunnel(stream) => {
                let Tunnelled { send, receive, lease, .. } = *stream;
                let receive = receive.into_stream();
                End::Stream(hbone::Stream { send, receive, lease }, Peer::Proxy)
            }
        }
    }

    /// Writes all of `outgoing`.
    pub(super) fn poll_write_all(
        &mut self,
        cx: &mut Context<'_>,
        outgoing: &mut Outgoing,
    ) -> Poll<io::Result<()>> {
        while !outgoing.is_empty() {
            match self {
                Self::Tcp(stream) => {
                    let mut slices = [IoSlice::new(&[]); SLICES];
                    let written = match outgoing.slices(&mut slices) {
                        1 => Pin::new(stream).poll_write(cx, &slices[0]),
                        count => Pin::new(stream).poll_write_vectored(cx, &slices[..count]),
                    };
                    outgoing.advance(ready!(written)?);
                }
                Self::Tunnel(stream) => {
                    let room = ready!(stream.poll_room(cx, outgoing.first_len()))?;
                    if let Some(chunk) = outgoing.take(room) {
                        stream.send(chunk, false)?;
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Tells the peer that no more data comes.
    pub(super) fn end_write(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => relay::shutdown_write(stream),
            Self::Tunnel(stream) => stream.send(Bytes::new(), true),
        }
    }

    /// Ends the connection so that the peer sees a reset.
    pub(super) fn reset(self) {
        match self {
            Self::Tcp(stream) => relay::reset(stream),
            Self::Tunnel(mut stream) => stream.send.send_reset(Reason::CONNECT_ERROR),
        }
    }
}

impl Tunnelled {
    /// How much of `wanted` may be sent now.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        ready!(self.pace.poll_room(cx));
        poll_room(&mut self.send, cx, wanted.min(buffer::BLOCK)).map_err(lost)
    }

    fn send(&mut self, chunk: Bytes, is_end: bool) -> io::Result<()> {
        self.send.send_data(self.pace.count(chunk), is_end).map_err(lost)
    }
}

/// A stream that ended early; where policies did that the kind of error is `PermissionDenied`.
fn lost(error: h2::Error) -> io::Error {
    if error.reason() == Some(status::revoked()) {
        let reason = "revoked: by a changed policy, as the proxy of the called pod says";
        return io::Error::new(io::ErrorKind::PermissionDenied, reason);
    }
    if error.is_io() {
        error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
    } else {
        io::Error::new(io::ErrorKind::ConnectionReset, error)
    }
}

/// For the `h2` crate.
impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tunnel(stream) => {
                let chunk =
                    ready!(stream.receive.poll_chunk(cx, into.remaining())).map_err(lost)?;
                into.put_slice(&chunk.unwrap_or_default());
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Tunnel(stream) => {
                let room = ready!(stream.poll_room(cx, data.len()))?.min(data.len());
                stream.send(Bytes::copy_from_slice(&data[..room]), false)?;
                Poll::Ready(Ok(room))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Neither way keeps anything back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().end_write())
    }
}
