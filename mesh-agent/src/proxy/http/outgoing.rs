//! What waits to be written to a connection: small pieces joined, large ones as they came.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes, BytesMut};

use crate::proxy::buffer::COPY;

/// How many slices are given to one write; Linux takes 1024, and nothing here has more than a few.
pub(super) const SLICES: usize = 16;

/// Bytes in order.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    chunks: VecDeque<Bytes>,
    /// How many bytes `chunks` hold.
    chunked: usize,
    /// What follows them; heads are written straight into it.
    tail: BytesMut,
}

impl Outgoing {
    /// Where text is appended.
    pub(super) fn text(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends `data`.
    pub(super) fn push(&mut self, data: Bytes) {
        if data.len() <= COPY {
            return self.tail.extend_from_slice(&data);
        }
        self.close_tail();
        self.chunked += data.len();
        self.chunks.push_back(data);
    }

    /// How many bytes wait.
    pub(super) fn len(&self) -> usize {
        self.chunked + self.tail.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first bytes, for one write; how many slices they are.
    pub(super) fn slices<'s>(&'s self, slices: &mut [IoSlice<'s>; SLICES]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&*self.tail);
        let parts = self.chunks.iter().map(|chunk| &**chunk).chain(tail);
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
            count += 1;
        }
        count
    }

    /// Forgets the first `count` bytes.
    pub(super) fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.chunks.front_mut() {
            let taken = count.min(first.len());
            first.advance(taken);
            self.chunked -= taken;
            count -= taken;
            if !first.is_empty() {
                return;
            }
            self.chunks.pop_front();
        }
        self.tail.advance(count);
        if self.tail.is_empty() {
            // Idle connections hold no memory.
            self.tail = BytesMut::new();
        }
    }

    /// Takes the first chunk, at most `limit` bytes of it.
    pub(super) fn take(&mut self, limit: usize) -> Option<Bytes> {
        if self.chunks.is_empty() {
            self.close_tail();
        }
        let first = self.chunks.front_mut()?;
        let taken = first.split_to(first.len().min(limit));
        self.chunked -= taken.len();
        if first.is_empty() {
            self.chunks.pop_front();
        }
        Some(taken)
    }

    /// The length of what [`take`](Self::take) would take without a limit.
    pub(super) fn first_len(&self) -> usize {
        self.chunks.front().map_or(self.tail.len(), Bytes::len)
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail).freeze();
            self.chunked += tail.len();
            self.chunks.push_back(tail);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pieces of text and data, and all of their bytes.
    fn filled(pieces: &[(bool, usize)]) -> (Outgoing, Vec<u8>) {
        let (mut outgoing, mut all) = (Outgoing::default(), Vec::new());
        for (at, (is_text, length)) in pieces.iter().enumerate() {
            let piece = vec![at as u8; *length];
            all.extend_from_slice(&piece);
            if *is_text {
                outgoing.text().extend_from_slice(&piece);
            } else {
                outgoing.push(piece.into());
            }
        }
        (outgoing, all)
    }

    fn any_pieces() -> impl Strategy<Value = Vec<(bool, usize)>> {
        prop::collection::vec((any::<bool>(), 0..3 * COPY), 0..20)
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_was_pushed(pieces in any_pieces(), step in 1..9000_usize) {
            let (mut outgoing, all) = filled(&pieces);
            let mut written = Vec::new();
            while !outgoing.is_empty() {
                prop_assert_eq!(outgoing.len(), all.len() - written.len());
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = outgoing.slices(&mut slices);
                let first: Vec<u8> =
                    slices[..count].iter().flat_map(|it| it.iter().copied()).take(step).collect();
                prop_assert!(!first.is_empty());
                written.extend_from_slice(&first);
                outgoing.advance(first.len());
            }
            prop_assert_eq!(written, all);
        }

        #[test]
        fn what_is_taken_is_what_was_pushed(pieces in any_pieces(), limit in 1..9000_usize) {
            let (mut outgoing, all) = filled(&pieces);
            let mut taken = Vec::new();
            while !outgoing.is_empty() {
                let expected = outgoing.first_len().min(limit);
                let chunk = outgoing.take(limit).expect("not empty");
                prop_assert_eq!(chunk.len(), expected);
                taken.extend_from_slice(&chunk);
            }
            prop_assert_eq!(taken, all);
        }
    }
}
