//! Between two TCP connections.

use std::io;

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;

use super::{
    Transferred, close,
    ends::{Ends, Halt, Side},
    failure, reset, reset_at_close, sent, shutdown_write,
};
use crate::proxy::{
    buffer,
    meter::{Count, Meter},
    revoke::Leash,
};

/// Relays until both directions end, or one side breaks and the other is reset.
pub(in crate::proxy) async fn relay(
    client: TcpStream,
    upstream: TcpStream,
    mut leash: Leash,
    meter: Meter,
) -> Transferred {
    let (from_client, to_client) = meter.directions();
    reset_at_close(&client);
    reset_at_close(&upstream);
    let ends = Ends::default();
    let sides = [Side::Client, Side::Upstream];
    let is_cut = ends
        .run(
            sides,
            copy(&client, &upstream, from_client, sides, &ends),
            copy(&upstream, &client, to_client, [Side::Upstream, Side::Client], &ends),
            &mut leash,
        )
        .await;
    let broken = ends.into_broken();
    if let Some(broken) = &broken
        && !is_cut
    {
        let left = if broken.side == Side::Client { &upstream } else { &client };
        sent(left, broken.deadline).await;
    }
    if is_cut || broken.is_some() {
        reset(client);
        reset(upstream);
    } else {
        close(client);
        close(upstream);
    }
    let broken = Ends::reason(broken, is_cut);
    Transferred {
        from_client: from_client.get(),
        to_client: to_client.get(),
        broken,
        revoked: leash.into_reason(),
    }
}

/// Copies one direction to its end, ends that direction of `to`, and watches `from`.
async fn copy(
    from: &TcpStream,
    to: &TcpStream,
    moved: &Count,
    [reader, writer]: [Side; 2],
    ends: &Ends,
) -> Halt {
    loop {
        let chunk = match read(from).await {
            Ok(chunk) => chunk,
            Err(error) => return ends.source(reader, &error),
        };
        if chunk.is_empty() {
            break;
        }
        moved.add(chunk.len());
        if let Err(error) = write_all(from, to, chunk, reader, ends).await {
            return ends.sink(writer, &error);
        }
    }
    if !ends.is_true_end() {
        return Halt::Source;
    }
    if let Err(error) = shutdown_write(to) {
        return ends.sink(writer, &error);
    }
    if ends.is_broken() {
        return Halt::Source;
    }
    ends.end(reader);
    ends.source(reader, &failure(from).await)
}

/// Waits for data without holding a buffer; empty at the end of the stream.
async fn read(stream: &TcpStream) -> io::Result<Bytes> {
    loop {
        stream.readable().await?;
        match buffer::try_read(stream, buffer::BLOCK) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}

/// Writes all of `chunk`, as fast as the peer reads; tells where `from` breaks meanwhile.
async fn write_all(
    from: &TcpStream,
    to: &TcpStream,
    mut chunk: Bytes,
    reader: Side,
    ends: &Ends,
) -> io::Result<()> {
    while chunk.has_remaining() {
        match to.try_write(&chunk) {
            Ok(written) => chunk.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::select! {
                    ready = to.writable() => ready?,
                    error = failure(from), if !ends.is_broken() => {
                        ends.socket_broke(reader, &error);
                    }
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
