//! Between two TCP connections.

use std::{convert::Infallible, io};

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;

use super::{Ended, Transferred, broken, failure, reset, run, shutdown_write};
use crate::proxy::{buffer, revoke::Leash};

/// Relays until both directions end, or one side breaks and the other is reset.
pub(in crate::proxy) async fn relay(
    client: TcpStream,
    upstream: TcpStream,
    mut leash: Leash,
) -> Transferred {
    let (mut from_client, mut to_client) = (0, 0);
    let ended = Ended::default();
    let broken = run(
        copy(&client, &upstream, &mut from_client, ["client", "upstream"], &ended),
        copy(&upstream, &client, &mut to_client, ["upstream", "client"], &ended),
        &ended,
        &mut leash,
    )
    .await;
    if broken.is_some() {
        reset(client);
        reset(upstream);
    }
    Transferred { from_client, to_client, broken, revoked: leash.into_reason() }
}

/// Copies one direction to its end, ends that direction of `to`, and watches `from`.
async fn copy(
    from: &TcpStream,
    to: &TcpStream,
    moved: &mut u64,
    names: [&str; 2],
    ended: &Ended,
) -> Result<Infallible, String> {
    let [reader, writer] = names;
    loop {
        let chunk = read(from).await.map_err(|error| broken(reader, &error))?;
        if chunk.is_empty() {
            break;
        }
        *moved += chunk.len() as u64;
        write_all(from, to, chunk, names).await?;
    }
    shutdown_write(to).map_err(|error| broken(writer, &error))?;
    ended.add();
    Err(broken(reader, &failure(from).await))
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

/// Writes all of `chunk`, as fast as the peer reads; gives up where `from` breaks meanwhile.
async fn write_all(
    from: &TcpStream,
    to: &TcpStream,
    mut chunk: Bytes,
    [reader, writer]: [&str; 2],
) -> Result<(), String> {
    while chunk.has_remaining() {
        match to.try_write(&chunk) {
            Ok(written) => chunk.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::select! {
                    ready = to.writable() => ready.map_err(|error| broken(writer, &error))?,
                    error = failure(from) => return Err(broken(reader, &error)),
                }
            }
            Err(error) => return Err(broken(writer, &error)),
        }
    }
    Ok(())
}
