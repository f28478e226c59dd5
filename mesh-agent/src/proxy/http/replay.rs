//! What was sent of a request, kept as long as it may have to be sent again.

use bytes::Bytes;
use http::HeaderMap;

use crate::http1::Frame;

/// How much of a body is kept; of a larger one nothing is sent twice.
const KEEP: usize = 64 * 1024;

/// The pieces of a body that were read from the client.
#[derive(Debug, Default)]
pub(super) struct Replay {
    data: Vec<Bytes>,
    size: usize,
    end: Option<Option<HeaderMap>>,
    /// Whether something was read and not kept.
    has_lost: bool,
}

impl Replay {
    /// Keeps `frame`, where `is_wanted` and there is room.
    pub(super) fn keep(&mut self, frame: &Frame, is_wanted: bool) {
        match frame {
            Frame::Data(data) if !self.has_lost && is_wanted && self.size + data.len() <= KEEP => {
                self.size += data.len();
                self.data.push(data.clone());
            }
            Frame::Data(_) => self.lose(),
            Frame::End(trailers) => self.end = Some(trailers.clone()),
        }
    }

    /// The piece at place `at`.
    pub(super) fn frame(&self, at: usize) -> Option<Frame> {
        match self.data.get(at) {
            Some(data) => Some(Frame::Data(data.clone())),
            None if at == self.data.len() => self.end.clone().map(Frame::End),
            None => None,
        }
    }

    /// Whether everything that was read can be sent once more.
    pub(super) fn is_whole(&self) -> bool {
        !self.has_lost
    }

    fn lose(&mut self) {
        self.has_lost = true;
        self.data = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(replay: &Replay) -> Vec<Frame> {
        (0..).map_while(|at| replay.frame(at)).collect()
    }

    #[test]
    fn what_is_kept_comes_again_in_order() {
        let mut replay = Replay::default();
        let sent = [Frame::Data("a".into()), Frame::Data("b".into()), Frame::End(None)];
        for frame in &sent {
            replay.keep(frame, true);
        }
        assert_eq!(frames(&replay), sent);
        assert!(replay.is_whole());
    }

    #[test]
    fn what_nobody_wants_or_is_too_large_is_lost() {
        for (size, is_wanted) in [(1, false), (KEEP + 1, true)] {
            let mut replay = Replay::default();
            assert!(replay.is_whole(), "nothing was read yet");
            replay.keep(&Frame::Data(vec![0; size].into()), is_wanted);
            assert!(!replay.is_whole());
        }
    }
}
