//! Copies of requests for somebody else, whose answers nobody sees.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use mesh_common::{
    matching::route::backend::is_in,
    model::{BackendTarget, Filter},
};
use tokio::sync::mpsc;

use super::{
    exchange::Seen,
    forward::{Forward, Target},
    message::{Client, Gone, Request, Response},
    network::Network,
};
use crate::{
    http1::Frame,
    observe::flow::{HttpFlow, HttpProtocol},
};

/// Pieces of a body that may wait for one mirror. One that is slower than the true backend gets no
/// whole copy: nobody waits for it.
const WAITING: usize = 16;

/// Those who get a copy of a request.
#[derive(Default)]
pub(super) struct Mirrors(Vec<mpsc::Sender<Frame>>);

impl Mirrors {
    /// Begins the copies of `request` that `filters` ask for.
    pub(super) fn start(
        &mut self,
        network: &Arc<dyn Network>,
        filters: &[Filter],
        request: &Request,
    ) {
        for filter in filters {
            let Filter::Mirror(mirror) = filter else { continue };
            let BackendTarget::Service { name, port } = &mirror.target else { continue };
            if !is_in(mirror.share, fastrand::u64(..)) {
                continue;
            }
            let (frames, received) = mpsc::channel(WAITING);
            let (network, service, port) = (network.clone(), name.clone(), *port);
            let request = request.copy();
            tokio::spawn(async move {
                let mut client = Nobody { frames: received };
                let mut seen = Seen::new(network.record(), HttpFlow::new(HttpProtocol::Http1));
                let target = Target::of(&service, port);
                let copy = Forward::new(&*network, &mut client, &request, target, &mut seen);
                if let Err(trouble) = copy.run(&[], Self::default()).await {
                    tracing::debug!(mirror = %service, %trouble, "a copy of a request failed");
                }
            });
            self.0.push(frames);
        }
    }

    /// Gives every mirror the next piece of the body.
    pub(super) fn give(&mut self, frame: &Frame) {
        self.0.retain(|frames| frames.try_send(frame.clone()).is_ok());
    }
}

/// Who a mirror answers.
struct Nobody {
    frames: mpsc::Receiver<Frame>,
}

impl Client for Nobody {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Gone>> {
        self.frames.poll_recv(cx).map(|frame| frame.ok_or(Gone::Left))
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<Gone> {
        Poll::Pending
    }

    fn inform(&mut self, _: Response) {}

    fn respond(&mut self, _: Response) {}

    fn poll_room(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, _: Frame) {}

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        Poll::Ready(Ok(()))
    }
}
