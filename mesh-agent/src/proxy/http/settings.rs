//! How HTTP/2 is spoken to applications.

use std::time::Duration;

use crate::{http1::MAX_HEAD, proxy::buffer};

/// How many streams a client may have at once on a connection: what Go's and nginx's servers let
/// them have, and a little more.
const STREAMS: u32 = 256;
/// How much a peer may send on a stream before the other side takes it.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The window of a connection: enough for every stream at once, so that streams whose readers are
/// slow never stop the others.
const WINDOW: u32 = STREAMS * STREAM_WINDOW;
/// How many streams that were reset here are remembered, and for how long, as in a tunnel.
const REMEMBERED_RESETS: usize = 20 * STREAMS as usize;
const RESET_MEMORY: Duration = Duration::from_secs(30);

/// Towards endpoints.
pub(super) fn client() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(buffer::BLOCK as u32)
        .max_header_list_size(MAX_HEAD as u32)
        .max_send_buffer_size(2 * buffer::BLOCK)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .reset_stream_duration(RESET_MEMORY)
        .enable_push(false);
    builder
}

/// Towards clients.
pub(super) fn server() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_frame_size(buffer::BLOCK as u32)
        .max_header_list_size(MAX_HEAD as u32)
        .max_send_buffer_size(2 * buffer::BLOCK)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .reset_stream_duration(RESET_MEMORY)
        .enable_connect_protocol();
    builder
}
