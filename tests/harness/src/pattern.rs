//! A long stream of bytes that both ends can make, so that every single byte is checked.

/// Bytes that depend on their position and on a seed: loss, doubling, reordering and mixing up
/// of connections all show.
#[derive(Clone, Debug)]
pub struct Pattern {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Pattern {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        // Any state but zero will do for xorshift.
        Self { state: seed.wrapping_mul(2).wrapping_add(1), word: [0; 8], used: 8 }
    }

    /// Fills `buffer` with what comes next.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            if self.used == self.word.len() {
                self.word = self.next_word().to_le_bytes();
                self.used = 0;
            }
            *byte = self.word[self.used];
            self.used += 1;
        }
    }

    /// Where `bytes` first differ from what comes next, if they do.
    pub fn first_difference(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut expected = vec![0; bytes.len()];
        self.fill(&mut expected);
        // Comparing whole slices first: the common case by far, and much faster.
        if expected == bytes {
            return None;
        }
        expected.iter().zip(bytes).position(|(expected, byte)| expected != byte)
    }

    /// Marsaglia, "Xorshift RNGs" (2003), the 64-bit generator with shifts 13, 7, 17.
    fn next_word(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_give_the_same_stream() {
        let mut whole = [0; 100];
        Pattern::new(7).fill(&mut whole);
        let mut pieces = Pattern::new(7);
        for piece in whole.chunks(13) {
            assert_eq!(pieces.first_difference(piece), None);
        }
    }

    #[test]
    fn a_changed_byte_and_another_seed_are_seen() {
        let mut bytes = [0; 64];
        Pattern::new(7).fill(&mut bytes);
        assert!(Pattern::new(8).first_difference(&bytes).is_some());
        bytes[40] ^= 1;
        assert_eq!(Pattern::new(7).first_difference(&bytes), Some(40));
    }
}
