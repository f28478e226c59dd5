//! What the two directions of a connection know of each other, and when both are over.
//!
//! Where a side broke, what it said before is passed on first, as the kernel would have done: a
//! server that answers early and closes with the request unread resets the connection behind its
//! answer.

use std::{
    fmt::Display,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::proxy::revoke::Leash;

/// How long the last words of a side that broke may take to the other one. They are there
/// already, so this is long; and a side that reads nothing learns of the reset after it.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// An end of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Upstream,
    Socket,
    Tunnel,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Socket => "socket",
            Self::Tunnel => "tunnel",
        }
    }
}

/// Why a direction goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// Its source broke, and all that it said is passed on.
    Source,
    /// Its sink broke, which may have said something before.
    Sink,
}

/// What broke first.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) side: Side,
    pub(super) reason: String,
    /// Whether the end of data that this side says is one: a socket that was reset says so, too.
    said_all: bool,
    /// Whether the far proxy ended it because policies changed.
    pub(super) is_revocation: bool,
    /// Until when its last words may be passed on.
    pub(super) deadline: Instant,
}

/// The state of both directions.
#[derive(Default)]
pub(super) struct Ends {
    broken: OnceLock<Broken>,
    /// A bit for each side that has ended its direction.
    ended: AtomicU8,
}

impl Ends {
    /// The direction from `side` has ended without a fault.
    pub(super) fn end(&self, side: Side) {
        self.ended.fetch_or(1 << side as u8, Ordering::Relaxed);
    }

    /// A socket broke. One that is reset after it ended its direction says `EPIPE`, and
    /// `ECONNRESET` otherwise (Linux, `tcp_reset`).
    pub(super) fn socket_broke(&self, side: Side, error: &io::Error) {
        self.broke(side, error, error.kind() == io::ErrorKind::BrokenPipe);
    }

    /// A stream broke; its end of data is never mistaken.
    pub(super) fn stream_broke(&self, side: Side, error: &dyn Display) {
        self.broke(side, error, true);
    }

    /// The far proxy ended the connection because policies changed.
    pub(super) fn revoked(&self) {
        self.broken.get_or_init(|| Broken {
            side: Side::Tunnel,
            reason: "revoked: by a changed policy, as the proxy of the called pod says".to_owned(),
            said_all: true,
            is_revocation: true,
            // The promise is to end it at once.
            deadline: Instant::now(),
        });
    }

    fn broke(&self, side: Side, error: &dyn Display, said_all: bool) {
        // What breaks second breaks because of the first.
        self.broken.get_or_init(|| Broken {
            side,
            reason: format!("{}: {error}", side.name()),
            said_all,
            is_revocation: false,
            deadline: Instant::now() + LAST_WORDS,
        });
    }

    /// The source of a direction broke.
    pub(super) fn source(&self, side: Side, error: &io::Error) -> Halt {
        self.socket_broke(side, error);
        Halt::Source
    }

    /// The sink of a direction broke.
    pub(super) fn sink(&self, side: Side, error: &io::Error) -> Halt {
        self.socket_broke(side, error);
        Halt::Sink
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.get().is_some()
    }

    /// Whether an end of data that is read now means that there is no more to come.
    pub(super) fn is_true_end(&self) -> bool {
        self.broken.get().is_none_or(|broken| broken.said_all)
    }

    /// What a flow says of how a connection ended early.
    pub(super) fn reason(broken: Option<Broken>, is_cut: bool) -> Option<String> {
        let cut = || is_cut.then(|| "the pod's network namespace is gone".to_owned());
        broken.map(|broken| broken.reason).or_else(cut)
    }

    /// Why policies ended a connection, where they did: those of the far side, or of this one.
    pub(super) fn revocation(broken: Option<&Broken>, leash: Leash) -> Option<String> {
        let by_far_side = broken.filter(|broken| broken.is_revocation);
        by_far_side.map(|broken| broken.reason.clone()).or_else(|| leash.into_reason())
    }

    /// What broke, where something did.
    pub(super) fn into_broken(self) -> Option<Broken> {
        self.broken.into_inner()
    }

    fn has_ended(&self, side: Side) -> bool {
        self.ended.load(Ordering::Relaxed) & (1 << side as u8) != 0
    }

    /// Runs the directions from `sources` until both have ended, one side broke and its last
    /// words are passed on, or the connection has to end at once, which is `true`.
    ///
    /// A direction that has ended goes on watching its source: a reset there still has to reach
    /// the other side.
    pub(super) async fn run(
        &self,
        sources: [Side; 2],
        one: impl Future<Output = Halt>,
        other: impl Future<Output = Halt>,
        leash: &mut Leash,
    ) -> bool {
        let (mut one, mut other) = (pin!(one), pin!(other));
        let mut halted = [None, None];
        let mut deadline: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            if halted[0].is_none()
                && let Poll::Ready(halt) = one.as_mut().poll(cx)
            {
                halted[0] = Some(halt);
            }
            if halted[1].is_none()
                && let Poll::Ready(halt) = other.as_mut().poll(cx)
            {
                halted[1] = Some(halt);
            }
            if self.is_over(sources, halted) {
                return Poll::Ready(false);
            }
            if leash.poll_end(cx).is_ready() {
                return Poll::Ready(true);
            }
            let Some(broken) = self.broken.get() else { return Poll::Pending };
            let timer = deadline.get_or_insert_with(|| Box::pin(sleep_until(broken.deadline)));
            timer.as_mut().poll(cx).map(|()| false)
        })
        .await
    }

    /// Whether nothing more can be passed on.
    fn is_over(&self, sources: [Side; 2], halted: [Option<Halt>; 2]) -> bool {
        match halted {
            [None, None] => sources.iter().all(|side| self.has_ended(*side)),
            [Some(Halt::Sink), None] => self.has_ended(sources[1]),
            [None, Some(Halt::Sink)] => self.has_ended(sources[0]),
            // Nobody listens to the other direction.
            [Some(_), _] | [_, Some(_)] => true,
        }
    }
}
