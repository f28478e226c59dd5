//! Reading from a socket without a buffer for each connection.
//!
//! A thousand idle connections with 16 KiB each way would hold 32 MiB. A worker's connections
//! read one after the other, so they share one block: what was read is split off it and handed
//! on without a copy, and the block is used again once everything split off is gone.

use std::{
    cell::RefCell,
    io,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::{io::AsyncReadExt, net::TcpStream};

/// The size of the block, and the most that one read returns.
pub(super) const BLOCK: usize = 64 * 1024;
/// Reads up to this size are copied out: a few bytes that wait for a slow peer shall not keep a
/// whole block alive.
pub(super) const COPY: usize = 2 * 1024;

/// The least room for which a block is read into: where less is left of it, the next one is taken.
/// A new block for each read, on the other hand, would have every chunk that waits hold a block.
const LEAST: usize = 8 * 1024;

thread_local! {
    static SHARED: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Reads what is there, at most `limit` bytes; `WouldBlock` where there is nothing, and an empty
/// chunk at the end of the stream.
pub(super) fn try_read(stream: &TcpStream, limit: usize) -> io::Result<Bytes> {
    SHARED.with_borrow_mut(|block| {
        make_room(block);
        let room = block.capacity() - block.len();
        let read = stream.try_read_buf(&mut (&mut *block).limit(limit.min(room)))?;
        if read <= COPY {
            let chunk = Bytes::copy_from_slice(block);
            block.clear();
            Ok(chunk)
        } else {
            Ok(block.split().freeze())
        }
    })
}

/// Appends what is there to `into`, at most a block; ready with 0 at the end of the stream.
///
/// Where a read fills less than the block, the next one waits for the kernel's word instead of asking
/// once more in vain, which is what `try_read` has to do.
pub(super) fn poll_read(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    into: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    SHARED.with_borrow_mut(|block| {
        make_room(block);
        let read = ready!(pin!(stream.read_buf(block)).poll(cx))?;
        if into.is_empty() && read > COPY {
            *into = block.split();
        } else {
            into.extend_from_slice(block);
            block.clear();
        }
        Poll::Ready(Ok(read))
    })
}

fn make_room(block: &mut BytesMut) {
    if block.capacity() - block.len() < LEAST {
        block.reserve(BLOCK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_that_wait_share_blocks() {
        let mut block = BytesMut::new();
        let mut waiting = Vec::new();
        for _ in 0..200 {
            make_room(&mut block);
            block.put_bytes(1, COPY + 1);
            waiting.push(block.split().freeze());
        }
        let begins_a_block = |pair: &&[Bytes]| {
            let end = pair[0].as_ptr().wrapping_add(pair[0].len());
            end != pair[1].as_ptr()
        };
        let blocks = 1 + waiting.windows(2).filter(begins_a_block).count();
        let least = 200 * (COPY + 1) / BLOCK;
        assert!(blocks <= 2 * least, "{blocks} blocks hold what fits into {least}");
    }

    #[test]
    fn a_block_that_nobody_holds_is_used_again() {
        let mut block = BytesMut::new();
        make_room(&mut block);
        let first = block.as_ptr();
        block.put_bytes(1, BLOCK);
        drop(block.split());
        make_room(&mut block);
        assert_eq!(block.as_ptr(), first);
    }
}
