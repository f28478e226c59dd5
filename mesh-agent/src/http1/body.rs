//! Bodies: RFC 9112, sections 6 and 7.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::{Framing, HeadReader, Malformed, fields};

/// How many digits a chunk's size may have: more do not fit 64 bits.
const MAX_DIGITS: usize = 16;

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Some of it, never empty.
    Data(Bytes),
    /// All of it was read; fields that came behind it, which only chunked bodies have.
    End(Option<HeaderMap>),
}

/// Reads one body.
#[derive(Debug)]
pub struct Decoder(State);

#[derive(Debug)]
enum State {
    Left(u64),
    UntilClose,
    /// Before the line with a chunk's size.
    Size,
    /// Within a chunk, of which this much is left.
    Chunk(u64),
    /// Before the CRLF behind a chunk.
    ChunkEnd,
    /// Behind the last chunk, before the fields or the empty line.
    Trailers(HeadReader),
    Ended,
}

impl Decoder {
    /// For a body with that framing.
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::None => State::Left(0),
            Framing::Length(length) => State::Left(length),
            Framing::Chunked => State::Size,
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// Whether the end was read.
    pub fn is_ended(&self) -> bool {
        matches!(self.0, State::Ended | State::Left(0))
    }

    /// Whether the end of the connection would end the body as it should.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.0, State::UntilClose)
    }

    /// Takes the next piece out of `buffer`; `None` where more has to arrive first. After the end it
    /// says so again.
    ///
    /// # Errors
    /// Where it is malformed.
    pub fn read(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
        loop {
            match &mut self.0 {
                State::Ended | State::Left(0) => {
                    self.0 = State::Ended;
                    return Ok(Some(Frame::End(None)));
                }
                State::Left(left) => return Ok(take(buffer, left).map(Frame::Data)),
                State::UntilClose => {
                    let mut left = u64::MAX;
                    return Ok(take(buffer, &mut left).map(Frame::Data));
                }
                State::Size => {
                    let Some(size) = chunk_size(buffer)? else { return Ok(None) };
                    self.0 = match size {
                        0 => State::Trailers(HeadReader::default()),
                        size => State::Chunk(size),
                    };
                }
                State::Chunk(0) => self.0 = State::ChunkEnd,
                State::Chunk(left) => return Ok(take(buffer, left).map(Frame::Data)),
                State::ChunkEnd => {
                    if !take_line_end(buffer)? {
                        return Ok(None);
                    }
                    self.0 = State::Size;
                }
                State::Trailers(reader) => {
                    // Without fields there is only the empty line, which a head never is.
                    let trailers = if buffer.starts_with(b"\r") && reader.is_new() {
                        if !take_line_end(buffer)? {
                            return Ok(None);
                        }
                        None
                    } else {
                        let Some(block) = reader.take(buffer)? else { return Ok(None) };
                        Some(fields::trailers(block)?)
                    };
                    self.0 = State::Ended;
                    return Ok(Some(Frame::End(trailers)));
                }
            }
        }
    }
}

/// Takes at most `left` bytes.
fn take(buffer: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    *left -= length as u64;
    (length > 0).then(|| buffer.split_to(length).freeze())
}

fn take_line_end(buffer: &mut BytesMut) -> Result<bool, Malformed> {
    match buffer.get(..2) {
        Some(b"\r\n") => {
            buffer.advance(2);
            Ok(true)
        }
        None if buffer.is_empty() || **buffer == *b"\r" => Ok(false),
        _ => Err(Malformed::Chunk),
    }
}

fn chunk_size(buffer: &mut BytesMut) -> Result<Option<u64>, Malformed> {
    let window = &buffer[..buffer.len().min(MAX_DIGITS + 2)];
    let digits = window.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let rest = &window[digits..];
    let may_go_on = digits <= MAX_DIGITS && (rest.is_empty() || digits > 0 && rest == b"\r");
    if may_go_on {
        return Ok(None);
    }
    if digits == 0 || digits > MAX_DIGITS || !rest.starts_with(b"\r\n") {
        return Err(Malformed::Chunk);
    }
    let text = str::from_utf8(&window[..digits]).map_err(|_| Malformed::Chunk)?;
    let size = u64::from_str_radix(text, 16).map_err(|_| Malformed::Chunk)?;
    buffer.advance(digits + 2);
    Ok(Some(size))
}
