//! One write for everything that a turn of the tunnel has to say.
//!
//! The `h2` crate writes and flushes each larger DATA frame by itself; over TLS that is a record
//! and a system call a frame, which is what costs with many small streams. [`Coalesce`] keeps what
//! is written until the tunnel's [`Flusher`] is asked at the end of its turn, and writes it then.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is kept at most: four full TLS records.
const KEEP: usize = 64 * 1024;
/// How much is read in one turn, before the connections inside the tunnel get theirs. As frames
/// of one byte, the smallest there are, it is a quarter of what the `h2` crate lets wait for them
/// (its `data_frame_budget`: half of our `TUNNEL_WINDOW`, of which each takes 255 bytes, so that
/// 102,000 small frames are the most memory that a tunnel's peer can claim).
const READ: usize = 256 * 1024;

/// A connection that keeps writes until its [`Flusher`] is asked.
pub(in crate::proxy) struct Coalesce<T>(Arc<Mutex<Inner<T>>>);

/// Writes what a [`Coalesce`] keeps.
pub(in crate::proxy) struct Flusher<T>(Arc<Mutex<Inner<T>>>);

struct Inner<T> {
    io: T,
    kept: BytesMut,
    /// What was read in this turn.
    read: usize,
}

/// Wraps a connection; both halves live in one task, so the lock is never waited for.
pub(in crate::proxy) fn coalesce<T>(io: T) -> (Coalesce<T>, Flusher<T>) {
    let inner = Arc::new(Mutex::new(Inner { io, kept: BytesMut::new(), read: 0 }));
    (Coalesce(inner.clone()), Flusher(inner))
}

fn lock<T>(inner: &Mutex<Inner<T>>) -> MutexGuard<'_, Inner<T>> {
    inner.lock().expect("no holder of this lock panics")
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    fn poll_write_kept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.kept.has_remaining() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.kept))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.kept.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Flusher<T> {
    /// Ends the turn: writes everything kept; pending where the peer takes no more now.
    pub(in crate::proxy) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        inner.read = 0;
        ready!(inner.poll_write_kept(cx))?;
        Pin::new(&mut inner.io).poll_flush(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Coalesce<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        if inner.read >= READ {
            // The flusher ends the turn; then it goes on.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut inner.io).poll_read(cx, buffer))?;
        inner.read += buffer.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Coalesce<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = lock(&self.0);
        if inner.kept.len() >= KEEP {
            ready!(inner.poll_write_kept(cx))?;
        }
        let taken = data.len().min(KEEP - inner.kept.len());
        inner.kept.extend_from_slice(&data[..taken]);
        Poll::Ready(Ok(taken))
    }

    /// Keeps: the driver flushes when the turn is over.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(inner.poll_write_kept(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}
