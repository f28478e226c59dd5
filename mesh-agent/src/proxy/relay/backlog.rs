//! What came out of a tunnel and waits for a slow socket.
//!
//! At most a stream's window (`STREAM_WINDOW`) of payload: the far side may send no more before
//! the socket took some. Small chunks are joined, so that a window full of single bytes costs
//! no more memory than a window full of one large chunk.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::proxy::buffer::{BLOCK, COPY};

/// Chunks in order.
#[derive(Default)]
pub(in crate::proxy) struct Backlog {
    chunks: VecDeque<Bytes>,
    /// Small chunks after the last of `chunks`, joined.
    tail: BytesMut,
}

impl Backlog {
    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.tail.is_empty()
    }

    /// Adds a chunk at the end.
    pub(in crate::proxy) fn push(&mut self, chunk: Bytes) {
        if chunk.len() > COPY || self.is_empty() {
            self.close_tail();
            self.chunks.push_back(chunk);
        } else {
            self.tail.extend_from_slice(&chunk);
            if self.tail.len() >= BLOCK {
                self.close_tail();
            }
        }
    }

    /// The oldest bytes; `None` where there are none.
    pub(in crate::proxy) fn front(&mut self) -> Option<&[u8]> {
        if self.chunks.is_empty() {
            self.close_tail();
        }
        // An empty chunk, which a tunnel may carry, is nothing that could be written.
        while self.chunks.front().is_some_and(Bytes::is_empty) {
            self.chunks.pop_front();
        }
        self.chunks.front().map(|chunk| &**chunk)
    }

    /// Forgets that many bytes of the front.
    pub(in crate::proxy) fn advance(&mut self, count: usize) {
        if let Some(chunk) = self.chunks.front_mut() {
            chunk.advance(count);
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
        if self.is_empty() {
            // Idle connections hold no memory.
            *self = Self::default();
        }
    }

    /// Takes the oldest bytes out, at most `limit`.
    pub(in crate::proxy) fn take(&mut self, limit: usize) -> Option<Bytes> {
        let length = self.front()?.len();
        let chunk = self.chunks.front_mut()?.split_to(length.min(limit));
        self.advance(0);
        Some(chunk)
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(backlog: &mut Backlog, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(front) = backlog.front() {
            let taken = front.len().min(step);
            all.extend_from_slice(&front[..taken]);
            backlog.advance(taken);
        }
        all
    }

    #[test]
    fn bytes_leave_in_the_order_in_which_they_came() {
        for step in [1, 3, 4096, usize::MAX] {
            let mut backlog = Backlog::default();
            let mut expected = Vec::new();
            for (at, length) in [1, 1, 5000, 1, 0, 2, 3000, 4000, 1].into_iter().enumerate() {
                let chunk = vec![at as u8; length];
                expected.extend_from_slice(&chunk);
                backlog.push(chunk.into());
            }
            assert_eq!(drain(&mut backlog, step), expected);
            assert!(backlog.is_empty());
        }
    }

    #[test]
    fn many_small_chunks_become_few() {
        let mut backlog = Backlog::default();
        for _ in 0..100_000 {
            backlog.push(Bytes::from_static(b"x"));
        }
        assert!(backlog.chunks.len() <= 3, "{}", backlog.chunks.len());
        assert_eq!(drain(&mut backlog, usize::MAX).len(), 100_000);
    }
}
