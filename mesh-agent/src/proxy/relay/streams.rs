//! Between two streams: an application's, and one of a tunnel or of another application.
//!
//! Half-close is END_STREAM, a reset is RST_STREAM, both ways. A chunk is given back to the flow
//! control window of its writer only after it was sent on, so a slow reader stops the far writer.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::time;

use super::{
    Transferred,
    backlog::Backlog,
    ends::{Ends, Halt},
    pace::Pace,
    peer::Peer,
};
use crate::proxy::{
    buffer,
    hbone::Stream,
    meter::{Count, Meter},
    revoke::Leash,
};

/// Relays until both directions end, or one side breaks and the other is reset.
pub(super) async fn relay(
    (client, caller): (Stream, Peer),
    (upstream, callee): (Stream, Peer),
    mut leash: Leash,
    meter: Meter,
) -> Transferred {
    let Stream { send: mut to_client, receive: mut from_client, lease: _ } = client;
    let Stream { send: mut to_upstream, receive: mut from_upstream, lease } = upstream;
    let (uploaded, downloaded) = meter.directions();
    let (upload_pace, download_pace, ends) = (Pace::default(), Pace::default(), Ends::default());
    let mut upload = Direction {
        from: (&mut from_client, caller),
        to: (&mut to_upstream, callee),
        pace: &upload_pace,
        moved: uploaded,
        backlog: Backlog::default(),
        progress: Progress::Reading,
    };
    let mut download = Direction {
        from: (&mut from_upstream, callee),
        to: (&mut to_client, caller),
        pace: &download_pace,
        moved: downloaded,
        backlog: Backlog::default(),
        progress: Progress::Reading,
    };
    let is_cut = ends
        .run(
            [caller.side(), callee.side()],
            poll_fn(|cx| upload.poll(cx, &ends)),
            poll_fn(|cx| download.poll(cx, &ends)),
            &mut leash,
        )
        .await;
    let broken = ends.into_broken();
    if let Some(broken) = &broken
        && !is_cut
    {
        // A reset of a stream discards what its connection has not taken.
        let left = if broken.side == caller.side() { &upload_pace } else { &download_pace };
        let taken = poll_fn(|cx| left.poll_empty(cx));
        let _ = time::timeout_at(broken.deadline, taken).await;
    }
    if is_cut || broken.is_some() {
        to_client.send_reset(caller.told(&leash));
        to_upstream.send_reset(callee.told(&leash));
    }
    drop(lease);
    Transferred {
        from_client: uploaded.get(),
        to_client: downloaded.get(),
        revoked: Ends::revocation(broken.as_ref(), leash),
        broken: Ends::reason(broken, is_cut),
    }
}

/// One direction.
struct Direction<'d> {
    from: (&'d mut RecvStream, Peer),
    to: (&'d mut SendStream<Bytes>, Peer),
    pace: &'d Pace,
    moved: &'d Count,
    backlog: Backlog,
    progress: Progress,
}

/// How far a direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Reading,
    /// The source says no more; what it said may not have been sent on yet.
    SaidAll,
    /// The source broke; the same.
    Broke,
    Ended,
}

impl Direction<'_> {
    /// Moves what can be moved; a direction that has ended goes on watching for resets.
    fn poll(&mut self, cx: &mut Context<'_>, ends: &Ends) -> Poll<Halt> {
        self.stock(cx, ends);
        let (send, reader) = &mut self.to;
        if let Poll::Ready(reason) = send.poll_reset(cx) {
            return Poll::Ready(reader.has_reset(ends, reason));
        }
        if let Err(halt) = ready!(self.poll_send(cx, ends)) {
            return Poll::Ready(halt);
        }
        match self.progress {
            Progress::Reading | Progress::Ended => Poll::Pending,
            Progress::Broke => Poll::Ready(Halt::Source),
            Progress::SaidAll => {
                let (send, reader) = &mut self.to;
                if let Err(error) = send.send_data(self.pace.count(Bytes::new()), true) {
                    return Poll::Ready(reader.broke(ends, &error));
                }
                if ends.is_broken() {
                    return Poll::Ready(Halt::Source);
                }
                self.progress = Progress::Ended;
                ends.end(self.from.1.side());
                Poll::Pending
            }
        }
    }

    /// Takes in what has come, at once and also where nothing can be sent: the `h2` crate closes a
    /// whole connection where too many small frames wait in it.
    fn stock(&mut self, cx: &mut Context<'_>, ends: &Ends) {
        let (receive, writer) = &mut self.from;
        while self.progress == Progress::Reading
            && let Poll::Ready(chunk) = receive.poll_data(cx)
        {
            self.progress = match chunk {
                Some(Ok(chunk)) => {
                    self.backlog.push(chunk);
                    continue;
                }
                None => Progress::SaidAll,
                Some(Err(error)) => {
                    match error.reason().filter(|_| error.is_reset()) {
                        Some(reason) => writer.has_reset(ends, Ok(reason)),
                        None => writer.broke(ends, &error),
                    };
                    Progress::Broke
                }
            };
        }
    }

    /// Ready once everything that has come is sent.
    fn poll_send(&mut self, cx: &mut Context<'_>, ends: &Ends) -> Poll<Result<(), Halt>> {
        let (send, reader) = &mut self.to;
        while let Some(waiting) = self.backlog.front().map(<[u8]>::len) {
            ready!(self.pace.poll_room(cx));
            let room = match ready!(poll_room(send, cx, waiting)) {
                Ok(room) => room,
                Err(error) => return Poll::Ready(Err(reader.broke(ends, &error))),
            };
            let Some(chunk) = self.backlog.take(room.min(buffer::BLOCK)) else { break };
            // A stream that is over wants no room.
            let _ = self.from.0.flow_control().release_capacity(chunk.len());
            self.moved.add(chunk.len());
            if let Err(error) = send.send_data(self.pace.count(chunk), false) {
                return Poll::Ready(Err(reader.broke(ends, &error)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// How much of `wanted` bytes `send` takes now; ready once that is some.
pub(in crate::proxy) fn poll_room(
    send: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
    wanted: usize,
) -> Poll<Result<usize, h2::Error>> {
    send.reserve_capacity(wanted);
    loop {
        if send.capacity() > 0 {
            return Poll::Ready(Ok(send.capacity()));
        }
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => {
                // The stream is over.
                let reason = match send.poll_reset(cx) {
                    Poll::Ready(Ok(reason)) => reason,
                    _ => Reason::CANCEL,
                };
                return Poll::Ready(Err(reason.into()));
            }
        }
    }
}
