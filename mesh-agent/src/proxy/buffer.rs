//! Reading from a socket without a buffer for each connection.
//!
//! A thousand idle connections with 16 KiB each way would hold 32 MiB. A worker's connections
//! read one after the other, so they share one block: what was read is split off it and handed
//! on without a copy, and the block is used again once everything split off is gone.

use std::{cell::RefCell, io};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::net::TcpStream;

/// The size of the block, and the most that one read returns.
pub(super) const BLOCK: usize = 64 * 1024;
/// Reads up to this size are copied out: a few bytes that wait for a slow peer shall not keep a
/// whole block alive.
pub(super) const COPY: usize = 2 * 1024;

thread_local! {
    static SHARED: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Reads what is there, at most `limit` bytes; `WouldBlock` where there is nothing, and an empty
/// chunk at the end of the stream.
pub(super) fn try_read(stream: &TcpStream, limit: usize) -> io::Result<Bytes> {
    SHARED.with_borrow_mut(|block| {
        block.reserve(limit.min(BLOCK));
        let read = stream.try_read_buf(&mut (&mut *block).limit(limit.min(BLOCK)))?;
        if read <= COPY {
            let chunk = Bytes::copy_from_slice(block);
            block.clear();
            Ok(chunk)
        } else {
            Ok(block.split().freeze())
        }
    })
}
