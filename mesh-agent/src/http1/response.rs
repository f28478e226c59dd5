//! Heads of responses.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version, header::CONTENT_LENGTH};

use super::{Framing, HeadReader, Malformed, fields, fields::first_line, request::version_of};

/// A response's head.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// What was said of it, which some read.
    pub reason: Bytes,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// The fields, as they came.
    pub headers: HeaderMap,
    /// How long the body is.
    pub framing: Framing,
}

/// Takes a whole head out of `buffer`, of a response to a request with `method`; `None` where more
/// has to arrive first.
///
/// # Errors
/// Where it is malformed.
pub fn read_response(
    reader: &mut HeadReader,
    buffer: &mut BytesMut,
    method: &Method,
) -> Result<Option<Response>, Malformed> {
    let Some(mut head) = reader.take(buffer)? else { return Ok(None) };
    let line = first_line(&mut head);
    let (version, status, reason) = status_line(&line)?;
    let mut headers = fields::fields(head)?;
    let framing = Framing::of_response(method, version, status, &headers)?;
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        // RFC 9110, section 8.6: it means nothing here, and some would wait for a body.
        headers.remove(CONTENT_LENGTH);
    }
    Ok(Some(Response { status, reason, version, headers, framing }))
}

fn status_line(line: &Bytes) -> Result<(Version, StatusCode, Bytes), Malformed> {
    // `HTTP/1.1 200`, then a space and a reason; servers that send no reason often leave the
    // space out as well.
    let (version, status) = match (line.get(..8), line.get(8), line.get(9..12)) {
        (Some(version), Some(b' '), Some(status)) => (version, status),
        _ => return Err(Malformed::StatusLine),
    };
    let version = version_of(version, Malformed::StatusLine)?;
    let status = StatusCode::from_bytes(status).map_err(|_| Malformed::StatusLine)?;
    let reason = match line.get(12) {
        None => Bytes::new(),
        Some(b' ') => line.slice(13..),
        Some(_) => return Err(Malformed::StatusLine),
    };
    let is_text = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    if status.as_u16() > 599 || !reason.iter().all(is_text) {
        return Err(Malformed::StatusLine);
    }
    Ok((version, status, reason))
}
