//! Moving one request and its response, both directions at the same time.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::StatusCode;
use tokio::time::{Sleep, sleep};

use super::{
    exchange::Seen,
    message::{Client, Gone, Request, Response},
    mirror::Mirrors,
    replay::Replay,
    trouble::{Seconds, Trouble},
    upstream::Upstream,
    wire::Broken,
};
use crate::{http1::Frame, proxy::failure::Failure};

/// Why a transfer ended early.
#[derive(Debug)]
pub(super) enum Lost {
    Client(Gone),
    /// Before or within the response.
    Upstream(Broken),
    Revoked(String),
    /// The whole request took too long.
    RequestTimeout(Duration),
    /// This try took too long.
    BackendTimeout(Duration),
}

impl Lost {
    /// The trouble that this is, before there was a response or within it.
    pub(super) fn into_trouble(self, has_responded: bool) -> Trouble {
        match self {
            Self::Client(Gone::Left) => Trouble::ClientLeft,
            Self::Client(Gone::Malformed(malformed)) => Trouble::MalformedRequest(malformed),
            Self::Upstream(broken) if has_responded => Trouble::within_response(broken),
            Self::Upstream(broken) => Trouble::before_response(broken),
            Self::Revoked(reason) => Trouble::NoConnection(Failure::Denied(reason)),
            Self::RequestTimeout(after) => Trouble::RequestTimeout(Seconds(after)),
            Self::BackendTimeout(after) => Trouble::BackendTimeout(Seconds(after)),
        }
    }
}

/// When something took too long; costs nothing where it may take as long as it likes.
#[derive(Default)]
pub(super) struct Deadline(Option<(Duration, Pin<Box<Sleep>>)>);

impl Deadline {
    pub(super) fn after(limit: Option<Duration>) -> Self {
        Self(limit.map(|limit| (limit, Box::pin(sleep(limit)))))
    }

    /// Ready once the time is over; how much that was.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        match &mut self.0 {
            Some((limit, sleep)) => sleep.as_mut().poll(cx).map(|()| *limit),
            None => Poll::Pending,
        }
    }
}

/// How long a request and one try may take.
#[derive(Default)]
pub(super) struct Deadlines {
    pub(super) request: Deadline,
    pub(super) backend: Deadline,
}

impl Deadlines {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        if let Poll::Ready(limit) = self.request.poll(cx) {
            return Poll::Ready(Lost::RequestTimeout(limit));
        }
        self.backend.poll(cx).map(Lost::BackendTimeout)
    }
}

/// Payload that was moved.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proxy) struct Moved {
    pub(in crate::proxy) sent: u64,
    pub(in crate::proxy) received: u64,
}

/// How far the request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upload {
    /// This piece of what was read before is next.
    Replaying(usize),
    Reading,
    Ended,
    /// The server takes no more. What it has said, or still says, is the answer.
    Stopped,
}

/// One try of one exchange.
pub(super) struct Transfer<'t, C> {
    pub(super) client: &'t mut C,
    pub(super) upstream: &'t mut Upstream,
    pub(super) replay: &'t mut Replay,
    pub(super) deadlines: &'t mut Deadlines,
    pub(super) seen: &'t mut Seen,
    mirrors: &'t mut Mirrors,
    /// Whether the request may have to be sent once more.
    is_kept: bool,
    upload: Upload,
    is_half_closed: bool,
}

impl<'t, C: Client> Transfer<'t, C> {
    pub(super) fn new(
        client: &'t mut C,
        upstream: &'t mut Upstream,
        replay: &'t mut Replay,
        deadlines: &'t mut Deadlines,
        seen: &'t mut Seen,
        mirrors: &'t mut Mirrors,
        is_kept: bool,
    ) -> Self {
        let (upload, is_half_closed) = (Upload::Replaying(0), false);
        seen.moved.sent = 0;
        Self { client, upstream, replay, deadlines, seen, mirrors, is_kept, upload, is_half_closed }
    }

    /// Sends the request, its body as it comes, until there is a final response, or one that
    /// switches protocols. Informational ones are passed on.
    pub(super) async fn begin(&mut self, request: &Request) -> Result<Response, Lost> {
        self.upstream.send_head(request).map_err(Lost::Upstream)?;
        loop {
            let response = poll_fn(|cx| {
                if let Err(gone) = self.poll_upload(cx) {
                    return Poll::Ready(Err(Lost::Client(gone)));
                }
                // A client that breaks while it is told something is noticed above.
                let _ = self.client.poll_flush(cx);
                if let Poll::Ready(response) = self.upstream.poll_response(cx) {
                    return Poll::Ready(response.map_err(Lost::Upstream));
                }
                self.poll_end(cx).map(Err)
            })
            .await?;
            let is_switching = response.status == StatusCode::SWITCHING_PROTOCOLS;
            if is_switching || !response.status.is_informational() {
                return Ok(response);
            }
            self.client.inform(response);
        }
    }

    /// Moves the response's body to its end, and the request's as far as it gets meanwhile.
    /// Where `is_empty` there is no body, and nothing is read for it.
    pub(super) async fn body(&mut self, is_empty: bool) -> Result<(), Lost> {
        let mut has_ended = is_empty;
        poll_fn(|cx| {
            if let Err(gone) = self.poll_upload(cx) {
                return Poll::Ready(Err(Lost::Client(gone)));
            }
            match self.poll_download(cx, &mut has_ended) {
                Poll::Pending => self.poll_end(cx).map(Err),
                ready => ready,
            }
        })
        .await
    }

    /// Whether the client has sent all of its request, and the server has got it.
    pub(super) fn is_request_whole(&self) -> bool {
        self.upload == Upload::Ended
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Gone> {
        let mut waits_for_client = false;
        while matches!(self.upload, Upload::Replaying(_) | Upload::Reading) {
            match self.upstream.poll_room(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => self.upload = Upload::Stopped,
                Poll::Pending => break,
            }
            let frame = match self.upload {
                Upload::Replaying(at) => match self.replay.frame(at) {
                    Some(frame) => {
                        self.upload = Upload::Replaying(at + 1);
                        frame
                    }
                    None => {
                        self.upload = Upload::Reading;
                        continue;
                    }
                },
                Upload::Reading => match self.client.poll_body(cx) {
                    Poll::Ready(frame) => {
                        let frame = frame?;
                        self.replay.keep(&frame, self.is_kept);
                        self.mirrors.give(&frame);
                        frame
                    }
                    Poll::Pending => {
                        waits_for_client = true;
                        break;
                    }
                },
                Upload::Ended | Upload::Stopped => break,
            };
            match &frame {
                Frame::Data(data) => self.seen.moved.sent += data.len() as u64,
                Frame::End(_) => self.upload = Upload::Ended,
            }
            self.upstream.send(frame);
        }
        if let Poll::Ready(Err(_)) = self.upstream.poll_flush(cx) {
            self.upload = Upload::Stopped;
        }
        // Where nobody waits for more of the body, whether the client is still there has to be asked.
        if !waits_for_client && let Poll::Ready(gone) = self.client.poll_gone(cx) {
            return Err(gone);
        }
        if self.upload == Upload::Ended && !self.is_half_closed && self.client.is_half_closed() {
            // What that means is for the server to say, as it is without a proxy between.
            self.is_half_closed = true;
            self.upstream.end_write();
        }
        Ok(())
    }

    fn poll_download(
        &mut self,
        cx: &mut Context<'_>,
        has_ended: &mut bool,
    ) -> Poll<Result<(), Lost>> {
        while !*has_ended {
            match self.client.poll_room(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(gone)) => return Poll::Ready(Err(Lost::Client(gone))),
                Poll::Pending => {
                    self.upstream.stock(cx);
                    break;
                }
            }
            let frame = match self.upstream.poll_body(cx) {
                Poll::Ready(Ok(frame)) => frame,
                Poll::Ready(Err(broken)) => return Poll::Ready(Err(Lost::Upstream(broken))),
                Poll::Pending => break,
            };
            match &frame {
                Frame::Data(data) => self.seen.moved.received += data.len() as u64,
                Frame::End(trailers) => {
                    *has_ended = true;
                    if let Some(trailers) = trailers {
                        self.seen.end_call(trailers);
                    }
                }
            }
            self.client.send(frame);
        }
        match self.client.poll_flush(cx) {
            Poll::Ready(Ok(())) if *has_ended => Poll::Ready(Ok(())),
            Poll::Ready(Err(gone)) => Poll::Ready(Err(Lost::Client(gone))),
            _ => Poll::Pending,
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        if let Poll::Ready(reason) = self.upstream.poll_revoked(cx) {
            return Poll::Ready(Lost::Revoked(reason));
        }
        self.deadlines.poll(cx)
    }
}
