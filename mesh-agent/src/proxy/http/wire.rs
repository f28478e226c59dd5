//! One HTTP/1.1 connection, as seen from either of its ends.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;

use super::{outgoing::Outgoing, transport::Transport};
use crate::http1::{Decoder, Frame, Framing, HeadReader, Malformed, begin_chunk, end_chunks};

/// How much may wait to be written before no more is taken from the other side.
const FULL: usize = 64 * 1024;
/// How much of what nobody has asked for yet is taken in.
const AHEAD: usize = 8 * 1024;

/// A connection and what is under way on it.
pub(in crate::proxy) struct Wire {
    pub(super) transport: Transport,
    /// What has arrived and was not read.
    pub(super) input: BytesMut,
    pub(super) heads: HeadReader,
    pub(super) output: Outgoing,
    incoming: Decoder,
    outgoing: Framing,
    /// Whether the peer sends no more.
    pub(super) is_ended: bool,
}

/// Why nothing more can be read.
#[derive(Debug)]
pub(super) enum Broken {
    /// The connection broke, or ended where it may not.
    Io(io::Error),
    Malformed(Malformed),
}

impl Wire {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            transport,
            input: BytesMut::new(),
            heads: HeadReader::default(),
            output: Outgoing::default(),
            incoming: Decoder::new(Framing::None),
            outgoing: Framing::None,
            is_ended: false,
        }
    }

    /// Reads what has arrived; ready with `false` at the end of data.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.is_ended {
            return Poll::Ready(Ok(false));
        }
        if self.input.is_empty() {
            // Whoever waits holds no memory.
            self.input = BytesMut::new();
        }
        let read = ready!(self.transport.poll_fill(cx, &mut self.input))?;
        self.is_ended = read == 0;
        Poll::Ready(Ok(read > 0))
    }

    /// Reads ahead, a little, to learn whether the peer is still there; ready once the connection
    /// has broken. An end of data is no breaking.
    pub(super) fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while !self.is_ended && self.input.len() < AHEAD {
            if let Err(error) = ready!(self.poll_fill(cx)) {
                return Poll::Ready(error);
            }
        }
        Poll::Pending
    }

    /// Says how the body is framed that comes in next.
    pub(super) fn expect_body(&mut self, framing: Framing) {
        self.incoming = Decoder::new(framing);
    }

    /// Whether the body that comes in was read to its end.
    pub(super) fn is_body_read(&self) -> bool {
        self.incoming.is_ended()
    }

    /// The next piece of the body that comes in.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Broken>> {
        loop {
            if let Some(frame) = self.incoming.read(&mut self.input).map_err(Broken::Malformed)? {
                return Poll::Ready(Ok(frame));
            }
            if ready!(self.poll_fill(cx)).map_err(Broken::Io)? {
                continue;
            }
            return Poll::Ready(if self.incoming.ends_with_connection() {
                self.incoming = Decoder::new(Framing::None);
                Ok(Frame::End(None))
            } else {
                Err(Broken::Io(io::ErrorKind::UnexpectedEof.into()))
            });
        }
    }

    /// Says how the body is framed that goes out next.
    pub(super) fn begin_body(&mut self, framing: Framing) {
        self.outgoing = framing;
    }

    /// Appends a piece of the body that goes out.
    pub(super) fn send(&mut self, frame: Frame) {
        match (frame, self.outgoing) {
            (Frame::Data(data), Framing::Chunked) => self.send_chunk(data),
            (Frame::Data(data), _) => self.output.push(data),
            (Frame::End(trailers), Framing::Chunked) => self.end_chunks(trailers.as_ref()),
            (Frame::End(_), _) => {}
        }
    }

    /// Ready once more may be sent.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.output.len() >= FULL {
            ready!(self.poll_flush(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes everything.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.poll_write_all(cx, &mut self.output)
    }

    fn send_chunk(&mut self, data: Bytes) {
        begin_chunk(self.output.text(), data.len());
        self.output.push(data);
        self.output.text().put_slice(b"\r\n");
    }

    fn end_chunks(&mut self, trailers: Option<&HeaderMap>) {
        end_chunks(self.output.text(), trailers);
    }
}
