//! Between a TCP connection and one stream of a tunnel.
//!
//! Half-close is END_STREAM, a reset is RST_STREAM. A chunk is given back to the stream's flow
//! control window only after the socket took it, so a slow reader stops the far writer and no
//! other stream of the tunnel.

use std::{future::poll_fn, io, task::Poll};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::net::TcpStream;

use super::{
    Transferred, broken, reset,
    tcp::{shutdown_write, write_all},
};
use crate::proxy::{buffer, hbone::Stream};

/// Relays until both directions end, or one side breaks and the other is reset.
///
/// `client` in the result is the side of `socket`.
pub(in crate::proxy) async fn relay(socket: TcpStream, stream: Stream) -> Transferred {
    let Stream { mut send, mut receive, lease } = stream;
    let (mut from_client, mut to_client) = (0, 0);
    let both = tokio::try_join!(
        upload(&socket, &mut send, &mut from_client),
        download(&mut receive, &socket, &mut to_client),
    );
    let broken = both.err();
    if broken.is_some() {
        send.send_reset(Reason::CANCEL);
        reset(socket);
    }
    drop(lease);
    Transferred { from_client, to_client, broken }
}

/// From the socket to the tunnel.
async fn upload(
    socket: &TcpStream,
    send: &mut SendStream<Bytes>,
    moved: &mut u64,
) -> Result<(), String> {
    loop {
        let capacity = capacity(send).await.map_err(|error| broken("tunnel", &error))?;
        let Some(chunk) = read(socket, send, capacity).await? else {
            return send.send_data(Bytes::new(), true).map_err(|error| broken("tunnel", &error));
        };
        *moved += chunk.len() as u64;
        send.send_data(chunk, false).map_err(|error| broken("tunnel", &error))?;
    }
}

/// Waits until the peer's windows have room.
async fn capacity(send: &mut SendStream<Bytes>) -> Result<usize, h2::Error> {
    send.reserve_capacity(buffer::BLOCK);
    if send.capacity() > 0 {
        return Ok(send.capacity());
    }
    poll_fn(|cx| match send.poll_capacity(cx) {
        Poll::Ready(Some(Ok(0))) => Poll::Pending,
        Poll::Ready(Some(capacity)) => Poll::Ready(capacity),
        Poll::Ready(None) => Poll::Ready(Err(Reason::CANCEL.into())),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Waits for data or the end of data, which is `None`, and for a reset of the stream.
async fn read(
    socket: &TcpStream,
    send: &mut SendStream<Bytes>,
    capacity: usize,
) -> Result<Option<Bytes>, String> {
    loop {
        poll_fn(|cx| {
            if let Poll::Ready(reset) = send.poll_reset(cx) {
                let reason = reset.unwrap_or(Reason::CANCEL);
                return Poll::Ready(Err(broken("tunnel", &format_args!("reset: {reason}"))));
            }
            socket.poll_read_ready(cx).map_err(|error| broken("socket", &error))
        })
        .await?;
        match buffer::try_read(socket, capacity) {
            Ok(chunk) if chunk.is_empty() => return Ok(None),
            Ok(chunk) => return Ok(Some(chunk)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(broken("socket", &error)),
        }
    }
}

/// From the tunnel to the socket.
async fn download(
    receive: &mut RecvStream,
    socket: &TcpStream,
    moved: &mut u64,
) -> Result<(), String> {
    while let Some(chunk) = receive.data().await {
        let chunk = chunk.map_err(|error| broken("tunnel", &error))?;
        let length = chunk.len();
        write_all(socket, chunk).await.map_err(|error| broken("socket", &error))?;
        *moved += length as u64;
        receive.flow_control().release_capacity(length).map_err(|e| broken("tunnel", &e))?;
    }
    shutdown_write(socket).map_err(|error| broken("socket", &error))
}
