//! HTTP/1.1 on the wire, without I/O: bytes in, heads and bodies out, and back.
//!
//! Stricter than most readers, because two readers that disagree on where a message ends can be
//! made to disagree on who sent the next one. What RFC 9112 allows a recipient to tolerate (bare
//! line feeds, folded lines, both lengths at once) is refused instead of being repaired, and nothing
//! is passed on as it came: every message is written anew from what was understood.
//!
//! The general HTTP libraries repair what this refuses.

mod body;
mod connection;
mod encode;
mod fields;
mod framing;
mod malformed;
mod request;
mod response;

pub use body::{Decoder, Frame};
pub use connection::{Persistence, take_hop_by_hop};
pub use encode::{begin_chunk, end_chunks, write_chunk, write_request, write_response};
pub use fields::{HeadReader, MAX_FIELDS, MAX_HEAD};
pub use framing::Framing;
pub use malformed::Malformed;
pub use request::{Request, is_place, read_request};
pub use response::{Response, read_response};

#[cfg(test)]
mod tests;
