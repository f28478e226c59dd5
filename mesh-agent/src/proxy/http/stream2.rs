//! One direction of one HTTP/2 stream, with flow control from end to end.

use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

use super::outgoing::Outgoing;
use crate::{
    http1::Frame,
    proxy::{
        buffer,
        relay::{Backlog, Pace, streams::poll_room},
    },
};

/// How much may wait to be sent before no more is taken from the other side.
const FULL: usize = 64 * 1024;

/// A body on its way out.
pub(super) struct Sending {
    stream: SendStream<Bytes>,
    queue: Outgoing,
    /// The end, and the fields behind it, once they may follow.
    end: Option<Option<HeaderMap>>,
    pace: Pace,
}

impl Sending {
    pub(super) fn new(stream: SendStream<Bytes>) -> Self {
        Self { stream, queue: Outgoing::default(), end: None, pace: Pace::default() }
    }

    /// Appends a piece.
    pub(super) fn send(&mut self, frame: Frame) {
        match frame {
            Frame::Data(data) => self.queue.push(data),
            Frame::End(trailers) => self.end = Some(trailers),
        }
    }

    /// Ready once more may be sent.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        if self.queue.len() >= FULL {
            ready!(self.poll_flush(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Gives the connection everything, as far as the peer's windows allow.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while !self.queue.is_empty() {
            ready!(self.pace.poll_room(cx));
            let room = ready!(poll_room(&mut self.stream, cx, self.queue.first_len()))?;
            let Some(chunk) = self.queue.take(room.min(buffer::BLOCK)) else { break };
            let is_last = self.queue.is_empty() && matches!(self.end, Some(None));
            if is_last {
                self.end = None;
            }
            self.stream.send_data(self.pace.count(chunk), is_last)?;
        }
        match self.end.take() {
            None => {}
            Some(None) => self.stream.send_data(Bytes::new(), true)?,
            Some(Some(trailers)) => self.stream.send_trailers(trailers)?,
        }
        Poll::Ready(Ok(()))
    }

    /// Ready once the peer wants no more.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        self.stream.poll_reset(cx).map(|reason| reason.unwrap_or(Reason::CANCEL))
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    /// Back to the stream, after everything has left.
    pub(super) fn into_stream(self) -> SendStream<Bytes> {
        self.stream
    }
}

/// What comes in. It is taken out of the connection at once and kept here, because the `h2` crate
/// closes a connection in which too many small frames wait. Its sender gets room for more only for
/// what was taken from here.
pub(super) struct Receiving {
    stream: RecvStream,
    backlog: Backlog,
    end: Option<Result<(), h2::Error>>,
}

impl Receiving {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, backlog: Backlog::default(), end: None }
    }

    /// Takes in what has arrived.
    pub(super) fn stock(&mut self, cx: &mut Context<'_>) {
        while self.end.is_none()
            && let Poll::Ready(chunk) = self.stream.poll_data(cx)
        {
            match chunk {
                Some(Ok(chunk)) => self.backlog.push(chunk),
                Some(Err(error)) => self.end = Some(Err(error)),
                None => self.end = Some(Ok(())),
            }
        }
    }

    /// The next bytes, at most `limit`; `None` at the end of data.
    pub(super) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<Option<Bytes>, h2::Error>> {
        self.stock(cx);
        if let Some(chunk) = self.backlog.take(limit) {
            // A stream that is over wants no room.
            let _ = self.stream.flow_control().release_capacity(chunk.len());
            return Poll::Ready(Ok(Some(chunk)));
        }
        match self.end.take() {
            None => Poll::Pending,
            Some(Ok(())) => {
                self.end = Some(Ok(()));
                Poll::Ready(Ok(None))
            }
            Some(Err(error)) => Poll::Ready(Err(error)),
        }
    }

    /// The next piece of a body.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, h2::Error>> {
        match ready!(self.poll_chunk(cx, buffer::BLOCK))? {
            Some(chunk) => Poll::Ready(Ok(Frame::Data(chunk))),
            None => self.stream.poll_trailers(cx).map_ok(Frame::End),
        }
    }

    /// Whether nothing comes.
    pub(super) fn is_empty(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// Takes out what has come, and gives its sender room for more.
    pub(super) fn take_all(&mut self) -> Bytes {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.backlog.take(usize::MAX) {
            all.extend_from_slice(&chunk);
        }
        // A stream that is over wants no room.
        let _ = self.stream.flow_control().release_capacity(all.len());
        all.freeze()
    }

    /// Back to the stream, after [`take_all`](Self::take_all). Its end, or what broke it, it says again.
    pub(super) fn into_stream(self) -> RecvStream {
        self.stream
    }
}
