//! How many small chunks of one connection may wait for a tunnel that takes nothing.
//!
//! Each chunk costs the tunnel more than its bytes, so an application that writes single bytes
//! would fill memory while the network is slow. While a few wait nothing more is read, and the
//! next read then finds all that was written meanwhile in one chunk.

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

/// Counts the small chunks that a tunnel has not written yet.
#[derive(Default)]
pub(super) struct Pace(Arc<Waiting>);

#[derive(Default)]
struct Waiting {
    chunks: AtomicUsize,
    waker: AtomicWaker,
}

/// A small chunk; the tunnel drops it when it has written it.
struct Small {
    bytes: Bytes,
    waiting: Arc<Waiting>,
}

impl Pace {
    /// Counts `chunk` if it is small, for as long as it exists.
    pub(super) fn count(&self, chunk: Bytes) -> Bytes {
        if chunk.len() > COPY {
            return chunk;
        }
        self.0.chunks.fetch_add(1, Ordering::AcqRel);
        Bytes::from_owner(Small { bytes: chunk, waiting: self.0.clone() })
    }

    /// Whether another chunk may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.0.chunks.load(Ordering::Acquire) < WAITING
    }

    /// Ready once another chunk may be sent.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        self.0.waker.register(cx.waker());
        if self.has_room() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl AsRef<[u8]> for Small {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Small {
    fn drop(&mut self) {
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
    fn large_chunks_are_not_counted() {
        let pace = Pace::default();
        let chunks: Vec<_> =
            (0..2 * WAITING).map(|_| pace.count(Bytes::from(vec![0; COPY + 1]))).collect();
        assert!(pace.has_room());
        assert!(chunks.iter().all(|chunk| chunk.len() == COPY + 1));
    }
}
