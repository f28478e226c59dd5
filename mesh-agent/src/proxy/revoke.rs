//! Who may go on: verdicts on connections when they start, and again whenever policies change.
//!
//! Each worker keeps what its live connections were let through for. A change of the snapshot has
//! all of them judged again, and those that lost their right are reset; bytes pay nothing for it
//! but a look at a flag where a relay wakes up anyway.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use mesh_common::{
    identity::SpiffeId,
    matching::authorization::{Request, Verdict},
    model::Workload,
};
use tokio::{sync::oneshot, time};

use super::{LOCK, failure::Failure, pod::ServedPod};
use crate::snapshot::Snapshot;

/// How long changes are collected before connections are judged again: a policy and what it is
/// attached to may come in two messages. The promise is 1 s.
const SETTLE: Duration = Duration::from_millis(100);
/// Connections judged before others get their turn.
const BATCH: usize = 256;

/// What a connection was let through for.
#[derive(Clone, Debug)]
pub(crate) struct Right {
    /// The caller's proven identity; `None` for plaintext.
    pub(crate) source: Option<SpiffeId>,
    /// The caller's address.
    pub(crate) from: IpAddr,
    /// The pod that is called, one of this node.
    pub(crate) callee: Arc<Workload>,
    /// Its address and port.
    pub(crate) to: SocketAddr,
}

impl Right {
    /// Judges the connection; what is returned is what policies that only audit would have said.
    pub(super) fn judge(&self, snapshot: &Snapshot) -> Result<Option<String>, Failure> {
        match self.verdict(snapshot).map_err(Failure::Denied)? {
            Verdict::Audited(verdict) => Ok(Some(format!("audit: {verdict}"))),
            verdict if verdict.is_allowed() => Ok(None),
            verdict => Err(Failure::Denied(verdict.to_string())),
        }
    }

    /// What policies say of the connection, or why it is refused before they are asked.
    pub(crate) fn verdict(&self, snapshot: &Snapshot) -> Result<Verdict, String> {
        let port = self.to.port();
        let request = Request { source: self.source.as_ref(), address: self.from, port };
        if request.source.is_none()
            && let Some(reason) = self.callee.admission.refuses_plaintext(port)
        {
            return Err(reason);
        }
        Ok(snapshot.authorize(&self.callee, request))
    }

    /// Why the connection may not go on.
    pub(crate) fn lost(&self, snapshot: &Snapshot) -> Option<String> {
        // A pod that is gone, or another one by now, has no say over a connection to this one.
        let callee = snapshot.workload_at(self.to.ip())?;
        if callee.uid != self.callee.uid || !callee.enrolled {
            return None;
        }
        let now = Self { callee, ..self.clone() };
        now.judge(snapshot).err().map(|failure| format!("revoked: {failure}"))
    }
}

/// The live connections of a worker that were let through by a verdict.
#[derive(Debug, Default)]
pub(super) struct LiveRights {
    next: AtomicU64,
    live: Mutex<HashMap<u64, Held>>,
}

#[derive(Debug)]
struct Held {
    right: Right,
    revoke: oneshot::Sender<String>,
}

impl LiveRights {
    /// Watches `right` until the leash is dropped. Taken before the first verdict, so that no
    /// change falls between the two.
    pub(super) fn hold(self: &Arc<Self>, right: Right) -> Leash {
        let (revoke, revoked) = oneshot::channel();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.live.lock().expect(LOCK).insert(id, Held { right, revoke });
        Leash { held: Some((self.clone(), id, revoked)), gone: None, reason: None }
    }

    /// Judges everything again whenever `snapshot` changes.
    pub(super) async fn follow(self: Arc<Self>, snapshot: Arc<Snapshot>) {
        let mut changed = snapshot.changed();
        changed.mark_unchanged();
        while changed.changed().await.is_ok() {
            time::sleep(SETTLE).await;
            changed.mark_unchanged();
            self.review(&snapshot).await;
        }
    }

    async fn review(&self, snapshot: &Snapshot) {
        let ids: Vec<u64> = self.live.lock().expect(LOCK).keys().copied().collect();
        for batch in ids.chunks(BATCH) {
            self.review_batch(batch, snapshot);
            tokio::task::yield_now().await;
        }
    }

    fn review_batch(&self, batch: &[u64], snapshot: &Snapshot) {
        let mut live = self.live.lock().expect(LOCK);
        for id in batch {
            let lost = live.get(id).and_then(|held| held.right.lost(snapshot));
            if let Some((reason, held)) = lost.and_then(|lost| Some((lost, live.remove(id)?))) {
                // A connection that ended meanwhile needs no end.
                let _ = held.revoke.send(reason);
            }
        }
    }
}

/// What a relay looks at to learn that its connection lost its right, or its pod.
#[derive(Default)]
pub(super) struct Leash {
    held: Option<(Arc<LiveRights>, u64, oneshot::Receiver<String>)>,
    gone: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    reason: Option<String>,
}

impl Leash {
    /// Ends the connection with `pod`, too.
    pub(super) fn hold_to(&mut self, pod: &ServedPod) {
        self.gone = Some(Box::pin(pod.gone()));
    }

    /// Ready once the connection has to end.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some((_, _, revoked)) = &mut self.held
            && let Poll::Ready(Ok(reason)) = Pin::new(revoked).poll(cx)
        {
            self.held = None;
            self.reason = Some(reason);
            return Poll::Ready(());
        }
        self.gone.as_mut().map_or(Poll::Pending, |gone| gone.as_mut().poll(cx))
    }

    /// Whether it lost its right.
    pub(super) fn is_revoked(&self) -> bool {
        self.reason.is_some()
    }

    /// Why it lost its right, where it did.
    pub(super) fn into_reason(mut self) -> Option<String> {
        self.take_reason()
    }

    /// The same, once.
    pub(super) fn take_reason(&mut self) -> Option<String> {
        self.reason.take()
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        if let Some((rights, id, _)) = self.held.take() {
            rights.live.lock().expect(LOCK).remove(&id);
        }
    }
}

#[cfg(test)]
mod tests;
