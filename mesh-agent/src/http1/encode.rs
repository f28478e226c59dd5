//! Messages written anew.

use std::fmt::Write;

use bytes::BytesMut;
use http::{
    HeaderMap, Method, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    uri::PathAndQuery,
};

use super::{Framing, Persistence};

/// Appends the head of a request. `headers` are without what is for a hop alone, and without Host.
pub fn write_request(
    out: &mut BytesMut,
    method: &Method,
    target: &PathAndQuery,
    host: &[u8],
    headers: &HeaderMap,
    framing: Framing,
    persistence: &Persistence,
) {
    let target = if *method == Method::CONNECT { host } else { target.as_str().as_bytes() };
    put(out, &[method.as_str().as_bytes(), b" ", target, b" HTTP/1.1\r\n"]);
    put_field(out, HOST.as_str(), host);
    put_rest(out, headers, framing, persistence);
}

/// Appends the head of a response. `headers` are without what is for a hop alone.
pub fn write_response(
    out: &mut BytesMut,
    status: StatusCode,
    reason: &[u8],
    headers: &HeaderMap,
    framing: Framing,
    persistence: &Persistence,
) {
    put(out, &[b"HTTP/1.1 ", status.as_str().as_bytes(), b" ", reason, b"\r\n"]);
    put_rest(out, headers, framing, persistence);
}

/// Appends a chunk with `data`, which is not empty: an empty one would be the last.
pub fn write_chunk(out: &mut BytesMut, data: &[u8]) {
    begin_chunk(out, data.len());
    put(out, &[data, b"\r\n"]);
}

/// Appends what stands before a chunk's data of this length, which is not 0. CRLF follows the data.
pub fn begin_chunk(out: &mut BytesMut, length: usize) {
    debug_assert!(length > 0);
    // Writing to a buffer that grows cannot fail.
    let _ = write!(out, "{length:x}\r\n");
}

/// Appends the end of a chunked body, and the fields behind it.
pub fn end_chunks(out: &mut BytesMut, trailers: Option<&HeaderMap>) {
    put(out, &[b"0\r\n"]);
    for (name, value) in trailers.into_iter().flatten() {
        put_field(out, name.as_str(), value.as_bytes());
    }
    put(out, &[b"\r\n"]);
}

/// The fields, those for the next hop, and the empty line.
fn put_rest(out: &mut BytesMut, headers: &HeaderMap, framing: Framing, persistence: &Persistence) {
    for (name, value) in headers {
        // Where there is no body it says how long that of another answer would be: to a GET instead
        // of this HEAD, say.
        if framing == Framing::None || *name != CONTENT_LENGTH {
            put_field(out, name.as_str(), value.as_bytes());
        }
    }
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            put_field(out, CONTENT_LENGTH.as_str(), length.to_string().as_bytes());
        }
        Framing::Chunked => put_field(out, TRANSFER_ENCODING.as_str(), b"chunked"),
    }
    match &persistence.upgrade {
        Some(protocol) => {
            let options: &[u8] =
                if persistence.keep_alive { b"upgrade" } else { b"upgrade, close" };
            put_field(out, CONNECTION.as_str(), options);
            put_field(out, http::header::UPGRADE.as_str(), protocol.as_bytes());
        }
        None if !persistence.keep_alive => put_field(out, CONNECTION.as_str(), b"close"),
        None => {}
    }
    put(out, &[b"\r\n"]);
}

fn put_field(out: &mut BytesMut, name: &str, value: &[u8]) {
    put(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
}

fn put(out: &mut BytesMut, parts: &[&[u8]]) {
    out.reserve(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        out.extend_from_slice(part);
    }
}
