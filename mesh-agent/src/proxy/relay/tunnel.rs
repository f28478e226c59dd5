//! Between a TCP connection and one stream, of a tunnel or of an application.
//!
//! Half-close is END_STREAM, a reset is RST_STREAM. A chunk is given back to the stream's flow
//! control window only after the socket took it, so a slow reader stops the far writer and no
//! other stream of the tunnel.

use std::{
    future::{pending, poll_fn},
    io,
    pin::pin,
    task::Poll,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::{net::TcpStream, time};

use super::{
    Transferred,
    backlog::Backlog,
    close,
    ends::{Ends, Halt},
    failure,
    pace::Pace,
    peer::Peer,
    reset, reset_at_close, sent, shutdown_write,
};
use crate::proxy::{
    buffer,
    hbone::Stream,
    meter::{Count, Meter},
    revoke::Leash,
};

/// Relays until both directions end, or one side breaks and the other is reset.
///
/// `client` in the result is the side of `socket`.
pub(in crate::proxy) async fn relay(
    socket: TcpStream,
    stream: Stream,
    peer: Peer,
    mut leash: Leash,
    meter: Meter,
) -> Transferred {
    let Stream { mut send, mut receive, lease } = stream;
    let (from_client, to_client) = meter.directions();
    reset_at_close(&socket);
    let (pace, ends) = (Pace::default(), Ends::default());
    let is_cut = ends
        .run(
            [peer.socket_side(), peer.side()],
            upload(&socket, (&mut send, peer), &pace, from_client, &ends),
            download((&mut receive, peer), &socket, to_client, &ends),
            &mut leash,
        )
        .await;
    let broken = ends.into_broken();
    match &broken {
        _ if is_cut => {}
        Some(broken) if broken.side == peer.side() => sent(&socket, broken.deadline).await,
        Some(broken) => {
            // A reset of the stream discards what the tunnel has not taken.
            let taken = poll_fn(|cx| pace.poll_empty(cx));
            let _ = time::timeout_at(broken.deadline, taken).await;
        }
        None => {}
    }
    if is_cut || broken.is_some() {
        send.send_reset(peer.told(&leash));
        reset(socket);
    } else {
        close(socket);
    }
    drop(lease);
    Transferred {
        from_client: from_client.get(),
        to_client: to_client.get(),
        revoked: Ends::revocation(broken.as_ref(), leash),
        broken: Ends::reason(broken, is_cut),
    }
}

/// From the socket to the tunnel; then watches both for a reset.
async fn upload(
    socket: &TcpStream,
    (send, peer): (&mut SendStream<Bytes>, Peer),
    pace: &Pace,
    moved: &Count,
    ends: &Ends,
) -> Halt {
    loop {
        let capacity = match room(socket, (send, peer), pace, ends).await {
            Ok(capacity) => capacity,
            Err(halt) => return halt,
        };
        let chunk = match read(socket, (send, peer), capacity, ends).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(halt) => return halt,
        };
        moved.add(chunk.len());
        if let Err(error) = send.send_data(pace.count(chunk), false) {
            return peer.broke(ends, &error);
        }
    }
    if !ends.is_true_end() {
        return Halt::Source;
    }
    if let Err(error) = send.send_data(pace.count(Bytes::new()), true) {
        return peer.broke(ends, &error);
    }
    if ends.is_broken() {
        return Halt::Source;
    }
    ends.end(peer.socket_side());
    tokio::select! {
        error = failure(socket) => ends.source(peer.socket_side(), &error),
        reason = poll_fn(|cx| send.poll_reset(cx)) => peer.has_reset(ends, reason),
    }
}

/// How much may be sent now: waits until the peer's windows have room and what was sent before
/// has left.
async fn room(
    socket: &TcpStream,
    (send, peer): (&mut SendStream<Bytes>, Peer),
    pace: &Pace,
    ends: &Ends,
) -> Result<usize, Halt> {
    send.reserve_capacity(buffer::BLOCK);
    if send.capacity() > 0 && pace.has_room() {
        return Ok(send.capacity());
    }
    let mut room = pin!(poll_fn(|cx| {
        if let Poll::Ready(reason) = send.poll_reset(cx) {
            return Poll::Ready(Err(peer.has_reset(ends, reason)));
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
                Poll::Ready(capacity.map_err(|error| peer.broke(ends, &error)))
            }
            Poll::Ready(None) => Poll::Ready(Err(peer.has_reset(ends, Ok(Reason::CANCEL)))),
        }
    }));
    tokio::select! {
        room = &mut room => return room,
        error = failure(socket), if !ends.is_broken() => ends.socket_broke(peer.socket_side(), &error),
    }
    room.await
}

/// Waits for data or the end of data, which is `None`, and for a reset of the stream.
async fn read(
    socket: &TcpStream,
    (send, peer): (&mut SendStream<Bytes>, Peer),
    capacity: usize,
    ends: &Ends,
) -> Result<Option<Bytes>, Halt> {
    loop {
        poll_fn(|cx| {
            if let Poll::Ready(reason) = send.poll_reset(cx) {
                return Poll::Ready(Err(peer.has_reset(ends, reason)));
            }
            socket.poll_read_ready(cx).map_err(|error| ends.source(peer.socket_side(), &error))
        })
        .await?;
        match buffer::try_read(socket, capacity) {
            Ok(chunk) if chunk.is_empty() => return Ok(None),
            Ok(chunk) => return Ok(Some(chunk)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(ends.source(peer.socket_side(), &error)),
        }
    }
}

/// From the tunnel to the socket.
///
/// What the tunnel has is taken out of it at once, also while the socket takes nothing: the
/// `h2` crate closes a whole tunnel where too many small frames wait in it.
async fn download(
    (receive, peer): (&mut RecvStream, Peer),
    socket: &TcpStream,
    moved: &Count,
    ends: &Ends,
) -> Halt {
    let delivered = deliver_all((receive, peer), socket, moved, ends).await;
    let ended = match delivered {
        Ok(true) => shutdown_write(socket),
        Ok(false) => return Halt::Source,
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        return ends.sink(peer.socket_side(), &error);
    }
    if ends.is_broken() {
        return Halt::Source;
    }
    ends.end(peer.side());
    pending().await
}

/// Delivers what comes out of the tunnel; whether all did that the far side sent.
async fn deliver_all(
    (receive, peer): (&mut RecvStream, Peer),
    socket: &TcpStream,
    moved: &Count,
    ends: &Ends,
) -> io::Result<bool> {
    let mut backlog = Backlog::default();
    let is_whole = loop {
        let chunk = if backlog.is_empty() {
            receive.data().await
        } else {
            tokio::select! {
                biased;
                ready = socket.writable() => {
                    ready?;
                    deliver(&mut backlog, socket, receive, moved)?;
                    continue;
                }
                chunk = receive.data() => chunk,
            }
        };
        let chunk = match chunk {
            Some(Ok(chunk)) => chunk,
            Some(Err(error)) if error.is_reset() => {
                peer.has_reset(ends, error.reason().ok_or(error));
                break false;
            }
            Some(Err(error)) => {
                peer.broke(ends, &error);
                break false;
            }
            None => break true,
        };
        let is_first = backlog.is_empty();
        backlog.push(chunk);
        if is_first {
            deliver(&mut backlog, socket, receive, moved)?;
        }
    };
    while !backlog.is_empty() {
        socket.writable().await?;
        deliver(&mut backlog, socket, receive, moved)?;
    }
    Ok(is_whole)
}

/// Gives the socket what it takes now, and the room for that back to the far writer.
fn deliver(
    backlog: &mut Backlog,
    socket: &TcpStream,
    receive: &mut RecvStream,
    moved: &Count,
) -> io::Result<()> {
    while let Some(chunk) = backlog.front() {
        match socket.try_write(chunk) {
            Ok(written) => {
                backlog.advance(written);
                moved.add(written);
                // A stream that is over wants no room.
                let _ = receive.flow_control().release_capacity(written);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
