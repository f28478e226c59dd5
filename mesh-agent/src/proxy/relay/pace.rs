//! How many small chunks of one connection may wait for a tunnel that takes nothing.
//!
//! Each chunk costs the tunnel more than its bytes, so an application that writes single bytes
//! would fill memory while the network is slow. While a few wait nothing more is read, and the
//! next read then finds all that was written meanwhile in one chunk.
//!
//! Large chunks are counted as well, so that a stream is not reset before they have left.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use crate::proxy::buffer::COPY;

/// Small chunks that may wait: enough that a tunnel which is only busy never runs dry.
const WAITING: usize = 8;

/// Counts the chunks that a tunnel has not written yet.
#[derive(Default)]
pub(in crate::proxy) struct Pace(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    chunks: AtomicUsize,
    small: AtomicUsize,
    waker: AtomicWaker,
}

/// A chunk; the tunnel drops it when it has written it.
struct Chunk {
    bytes: Bytes,
    waiting: Arc<Waiting>,
}

impl Pace {
    /// Counts `chunk` for as long as it exists.
    pub(in crate::proxy) fn count(&self, chunk: Bytes) -> Bytes {
        self.0.chunks.fetch_add(1, Ordering::AcqRel);
        self.0.small.fetch_add(is_small(&chunk).into(), Ordering::AcqRel);
        Bytes::from_owner(Chunk { bytes: chunk, waiting: self.0.clone() })
    }

    /// Whether another chunk may be sent.
    pub(in crate::proxy) fn has_room(&self) -> bool {
        self.0.small.load(Ordering::Acquire) < WAITING
    }

    /// Ready once another chunk may be sent.
    pub(in crate::proxy) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        self.0.waker.register(cx.waker());
        if self.has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ready once every chunk has left.
    pub(in crate::proxy) fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.waker.register(cx.waker());
        if self.0.chunks.load(Ordering::Acquire) == 0 { Poll::Ready(()) } else { Poll::Pending }
    }
}

fn is_small(chunk: &[u8]) -> bool {
    chunk.len() <= COPY
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.waiting.small.fetch_sub(is_small(&self.bytes).into(), Ordering::AcqRel);
        self.waiting.chunks.fetch_sub(1, Ordering::AcqRel);
        self.waiting.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_written_chunk_makes_room() {
        let pace = Pace::default();
        let mut chunks: Vec<_> =
            (0..WAITING).map(|_| pace.count(Bytes::from_static(b"x"))).collect();
        assert!(!pace.has_room());
        let room = poll_fn(|cx| {
            let polled = pace.poll_room(cx);
            chunks.pop();
            polled
        });
        room.await;
        assert!(pace.has_room());
    }

    #[test]
    fn large_chunks_take_no_room() {
        let pace = Pace::default();
        let chunks: Vec<_> =
            (0..2 * WAITING).map(|_| pace.count(Bytes::from(vec![0; COPY + 1]))).collect();
        assert!(pace.has_room());
        assert!(chunks.iter().all(|chunk| chunk.len() == COPY + 1));
        assert_eq!(pace.0.chunks.load(Ordering::Acquire), chunks.len());
    }
}
