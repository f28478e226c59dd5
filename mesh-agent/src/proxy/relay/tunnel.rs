//! Between a TCP connection and one stream of a tunnel.
//!
//! Half-close is END_STREAM, a reset is RST_STREAM. A chunk is given back to the stream's flow
//! control window only after the socket took it, so a slow reader stops the far writer and no
//! other stream of the tunnel.

use std::{convert::Infallible, future::poll_fn, io, task::Poll};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::net::TcpStream;

use super::{
    Ended, Transferred, backlog::Backlog, broken, failure, pace::Pace, reset, run, shutdown_write,
};
use crate::proxy::{buffer, hbone::Stream, revoke::Leash};

/// Relays until both directions end, or one side breaks and the other is reset.
///
/// `client` in the result is the side of `socket`.
pub(in crate::proxy) async fn relay(
    socket: TcpStream,
    stream: Stream,
    mut leash: Leash,
) -> Transferred {
    let Stream { mut send, mut receive, lease } = stream;
    let (mut from_client, mut to_client) = (0, 0);
    let ended = Ended::default();
    let broken = run(
        upload(&socket, &mut send, &mut from_client, &ended),
        download(&mut receive, &socket, &mut to_client, &ended),
        &ended,
        &mut leash,
    )
    .await;
    if broken.is_some() {
        send.send_reset(Reason::CANCEL);
        reset(socket);
    }
    drop(lease);
    Transferred { from_client, to_client, broken, revoked: leash.into_reason() }
}

/// From the socket to the tunnel; then watches both for a reset.
async fn upload(
    socket: &TcpStream,
    send: &mut SendStream<Bytes>,
    moved: &mut u64,
    ended: &Ended,
) -> Result<Infallible, String> {
    let pace = Pace::default();
    loop {
        let capacity = room(socket, send, &pace).await?;
        let Some(chunk) = read(socket, send, capacity).await? else { break };
        *moved += chunk.len() as u64;
        send.send_data(pace.count(chunk), false).map_err(|error| broken("tunnel", &error))?;
    }
    send.send_data(Bytes::new(), true).map_err(|error| broken("tunnel", &error))?;
    ended.add();
    tokio::select! {
        error = failure(socket) => Err(broken("socket", &error)),
        reason = poll_fn(|cx| send.poll_reset(cx)) => Err(stream_reset(reason)),
    }
}

/// How much may be sent now: waits until the peer's windows have room and what was sent before
/// has left.
async fn room(
    socket: &TcpStream,
    send: &mut SendStream<Bytes>,
    pace: &Pace,
) -> Result<usize, String> {
    send.reserve_capacity(buffer::BLOCK);
    if send.capacity() > 0 && pace.has_room() {
        return Ok(send.capacity());
    }
    let room = poll_fn(|cx| {
        if let Poll::Ready(reason) = send.poll_reset(cx) {
            return Poll::Ready(Err(stream_reset(reason)));
        }
        if pace.poll_room(cx).is_pending() {
            return Poll::Pending;
        }
        if send.capacity() > 0 {
            return Poll::Ready(Ok(send.capacity()));
        }
        match send.poll_capacity(cx) {
            Poll::Ready(Some(Ok(0))) | Poll::Pending => Poll::Pending,
            Poll::Ready(Some(capacity)) => {
                Poll::Ready(capacity.map_err(|error| broken("tunnel", &error)))
            }
            Poll::Ready(None) => Poll::Ready(Err(stream_reset(Ok(Reason::CANCEL)))),
        }
    });
    tokio::select! {
        room = room => room,
        error = failure(socket) => Err(broken("socket", &error)),
    }
}

/// Waits for data or the end of data, which is `None`, and for a reset of the stream.
async fn read(
    socket: &TcpStream,
    send: &mut SendStream<Bytes>,
    capacity: usize,
) -> Result<Option<Bytes>, String> {
    loop {
        poll_fn(|cx| {
            if let Poll::Ready(reason) = send.poll_reset(cx) {
                return Poll::Ready(Err(stream_reset(reason)));
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

fn stream_reset(reason: Result<Reason, h2::Error>) -> String {
    let reason = reason.unwrap_or(Reason::CANCEL);
    broken("tunnel", &format_args!("reset: {reason}"))
}

/// From the tunnel to the socket.
///
/// What the tunnel has is taken out of it at once, also while the socket takes nothing: the
/// `h2` crate closes a whole tunnel where too many small frames wait in it.
async fn download(
    receive: &mut RecvStream,
    socket: &TcpStream,
    moved: &mut u64,
    ended: &Ended,
) -> Result<Infallible, String> {
    let mut backlog = Backlog::default();
    loop {
        let chunk = if backlog.is_empty() {
            receive.data().await
        } else {
            tokio::select! {
                biased;
                ready = socket.writable() => {
                    ready.map_err(|error| broken("socket", &error))?;
                    deliver(&mut backlog, socket, receive, moved)?;
                    continue;
                }
                chunk = receive.data() => chunk,
            }
        };
        let Some(chunk) = chunk else { break };
        let is_first = backlog.is_empty();
        backlog.push(chunk.map_err(|error| broken("tunnel", &error))?);
        if is_first {
            deliver(&mut backlog, socket, receive, moved)?;
        }
    }
    while !backlog.is_empty() {
        socket.writable().await.map_err(|error| broken("socket", &error))?;
        deliver(&mut backlog, socket, receive, moved)?;
    }
    shutdown_write(socket).map_err(|error| broken("socket", &error))?;
    ended.add();
    std::future::pending().await
}

/// Gives the socket what it takes now, and the room for that back to the far writer.
fn deliver(
    backlog: &mut Backlog,
    socket: &TcpStream,
    receive: &mut RecvStream,
    moved: &mut u64,
) -> Result<(), String> {
    while let Some(chunk) = backlog.front() {
        match socket.try_write(chunk) {
            Ok(written) => {
                backlog.advance(written);
                *moved += written as u64;
                let released = receive.flow_control().release_capacity(written);
                released.map_err(|error| broken("tunnel", &error))?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(broken("socket", &error)),
        }
    }
    Ok(())
}
