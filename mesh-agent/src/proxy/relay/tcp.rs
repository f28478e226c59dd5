//! Between two TCP connections.

use std::io;

use bytes::{Buf, Bytes};
use tokio::net::TcpStream;

use super::{Transferred, broken, reset};
use crate::proxy::buffer;

/// Relays until both directions end, or one side breaks and the other is reset.
pub(in crate::proxy) async fn relay(client: TcpStream, upstream: TcpStream) -> Transferred {
    let (mut from_client, mut to_client) = (0, 0);
    let both = tokio::try_join!(
        copy(&client, &upstream, &mut from_client, ["client", "upstream"]),
        copy(&upstream, &client, &mut to_client, ["upstream", "client"]),
    );
    let broken = both.err();
    if broken.is_some() {
        reset(client);
        reset(upstream);
    }
    Transferred { from_client, to_client, broken }
}

/// Copies one direction to its end, then ends that direction of `to`.
async fn copy(
    from: &TcpStream,
    to: &TcpStream,
    moved: &mut u64,
    [reader, writer]: [&str; 2],
) -> Result<(), String> {
    loop {
        let chunk = read(from).await.map_err(|error| broken(reader, &error))?;
        if chunk.is_empty() {
            return shutdown_write(to).map_err(|error| broken(writer, &error));
        }
        *moved += chunk.len() as u64;
        write_all(to, chunk).await.map_err(|error| broken(writer, &error))?;
    }
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

/// Writes all of `chunk`, as fast as the peer reads.
pub(super) async fn write_all(stream: &TcpStream, mut chunk: Bytes) -> io::Result<()> {
    while chunk.has_remaining() {
        match stream.try_write(&chunk) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => chunk.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Tells the peer that no more data comes; the other direction goes on.
pub(super) fn shutdown_write(stream: &TcpStream) -> io::Result<()> {
    match socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write) {
        // The peer has closed both directions meanwhile: there is nobody left to tell.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        shut => shut,
    }
}
