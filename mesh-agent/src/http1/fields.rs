//! Heads: lines until an empty one, and the fields in them.

use bytes::{Buf, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING},
};

use super::Malformed;

/// How many bytes a head may have: what Envoy and most servers take, and then some.
pub const MAX_HEAD: usize = 64 * 1024;
/// How many fields a head may have.
pub const MAX_FIELDS: usize = 128;

/// Finds the end of a head that arrives in pieces, looking at each byte once.
#[derive(Debug, Default)]
pub struct HeadReader {
    /// Where the line begins that is not complete yet.
    line: usize,
    /// Up to where no line feed was found.
    seen: usize,
}

impl HeadReader {
    /// Whether nothing of a head has arrived yet.
    pub(super) fn is_new(&self) -> bool {
        self.seen == 0
    }

    /// Takes a whole head out of `buffer`, without the empty line at its end; `None` where more has
    /// to arrive first.
    ///
    /// # Errors
    /// Where it is too large, or a line ends with anything but CRLF.
    pub(super) fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
        while let Some(at) = memchr::memchr(b'\n', &buffer[self.seen..]) {
            let feed = self.seen + at;
            if feed == self.line || buffer[feed - 1] != b'\r' {
                return Err(Malformed::LineEnd);
            }
            if feed > MAX_HEAD {
                return Err(Malformed::TooLarge);
            }
            let is_empty = feed == self.line + 1;
            if is_empty && self.line == 0 {
                // RFC 9112, section 2.2: old clients end a body with an empty line too many.
                buffer.advance(feed + 1);
                *self = Self::default();
                continue;
            }
            if is_empty {
                let head = buffer.split_to(self.line).freeze();
                buffer.advance(2);
                *self = Self::default();
                return Ok(Some(head));
            }
            self.line = feed + 1;
            self.seen = self.line;
        }
        self.seen = buffer.len();
        if self.seen > MAX_HEAD { Err(Malformed::TooLarge) } else { Ok(None) }
    }
}

/// Takes the first line off `head`, without its CRLF.
pub(super) fn first_line(head: &mut Bytes) -> Bytes {
    let end = memchr::memchr(b'\n', head).unwrap_or(head.len());
    let line = head.split_to(end);
    head.advance(usize::from(!head.is_empty()));
    line.slice(..line.len().saturating_sub(1))
}

/// The fields of `block`, lines that each end with CRLF.
///
/// # Errors
/// Where a line is no field.
pub(super) fn fields(mut block: Bytes) -> Result<HeaderMap, Malformed> {
    let mut fields = HeaderMap::with_capacity(16);
    while !block.is_empty() {
        if fields.len() == MAX_FIELDS {
            return Err(Malformed::TooLarge);
        }
        let line = first_line(&mut block);
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(Malformed::Folded);
        }
        let colon = memchr::memchr(b':', &line).ok_or(Malformed::FieldName)?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| Malformed::FieldName)?;
        let value = trimmed(line.slice(colon + 1..));
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Malformed::FieldValue)?;
        fields.append(name, value);
    }
    Ok(fields)
}

/// The fields behind a body. Those that would say how to read it, or who it is for, come too late:
/// RFC 9110, section 6.5.1.
///
/// # Errors
/// Where a line is no field.
pub(super) fn trailers(block: Bytes) -> Result<HeaderMap, Malformed> {
    let mut trailers = fields(block)?;
    for name in [CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING] {
        trailers.remove(name);
    }
    Ok(trailers)
}

/// Without the spaces and tabs around it.
fn trimmed(value: Bytes) -> Bytes {
    let is_inner = |byte: &u8| !matches!(byte, b' ' | b'\t');
    match (value.iter().position(is_inner), value.iter().rposition(is_inner)) {
        (Some(first), Some(last)) => value.slice(first..=last),
        _ => Bytes::new(),
    }
}
