//! Plaintext that stays in the kernel: judged again whenever policies change, and ended where it
//! lost its right. Connections from before the mesh are not among it, and live on.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use mesh_common::bpf::ConnectionKey;
use tokio::{
    sync::{Notify, watch},
    time,
};

use crate::{
    capture::{enroll::Pod, sockets::SocketTable},
    observe::{
        Observer,
        flow::{Flow, Peer, Reporter, Security, Verdict},
        sock_diag::{self, SockDiagError, State, TcpSocket, tcp_sockets},
    },
    proxy::Right,
    snapshot::Snapshot,
    status::Status,
};

/// How long changes are collected before connections are judged again: a policy and what it is
/// attached to may come in two messages. The promise is 1 s.
const SETTLE: Duration = Duration::from_millis(100);
/// The pauses before further looks: a handshake that the kernel let begin may end later.
const AGAIN: [Duration; 3] =
    [Duration::from_millis(400), Duration::from_millis(1500), Duration::from_secs(3)];

/// How long after a pod's inbound mode changed handshakes are looked for that were begun before: past
/// the last look that follows a change. Each list costs a walk over the kernel's table of sockets.
const CHANGED_LATELY: Duration = Duration::from_secs(10);

/// The captured pods, and who is told of what ends there.
pub struct Plaintext {
    /// This node.
    pub node: Arc<str>,
    /// What the kernel lets through unproxied.
    pub sockets: Arc<SocketTable>,
    /// Who may call.
    pub snapshot: Arc<Snapshot>,
    /// Where flows go.
    pub observer: Arc<Observer>,
    /// Where it is said what could not be ended.
    pub status: Arc<Status>,
    /// The pods, by uid.
    pub pods: Pods,
}

/// The captured pods, and a bell for when there is more to judge than the snapshot tells.
#[derive(Default)]
pub struct Pods {
    captured: Mutex<HashMap<Arc<str>, Watched>>,
    bell: Notify,
}

/// A captured pod, and since when the kernel receives its plaintext as it does.
struct Watched {
    pod: Arc<Pod>,
    since: Instant,
}

impl Plaintext {
    /// Watches a pod that is captured; of an earlier agent it may have what lost its right since.
    pub fn watch(&self, pod: Arc<Pod>) {
        let since = Instant::now();
        self.pods().insert(Arc::clone(&pod.uid), Watched { pod, since });
        self.pods.bell.notify_one();
    }

    /// The kernel receives plaintext of a pod in another way from now on: what it let in until this
    /// moment is judged, however long after the change of policies that is.
    pub fn modes_changed(&self, uid: &str) {
        if let Some(watched) = self.pods().get_mut(uid) {
            watched.since = Instant::now();
        }
        self.pods.bell.notify_one();
    }

    /// Forgets a pod that has left the mesh.
    pub fn forget(&self, uid: &str) {
        self.pods().remove(uid);
    }

    /// How many of a pod's are open, for each that has any, by uid.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn open(&self) -> io::Result<HashMap<Arc<str>, usize>> {
        let passed = self.sockets.passed_by_pod()?;
        let pods = self.pods();
        let open = pods
            .values()
            .map(|watched| &watched.pod)
            .filter_map(|pod| Some((Arc::clone(&pod.uid), passed.get(&pod.netns.cookie())?.len())));
        Ok(open.collect())
    }

    /// Judges for as long as the process lives.
    pub async fn follow(self: Arc<Self>) {
        look_after(self.snapshot.changed(), &self.pods.bell, || self.look()).await;
    }

    async fn look(self: &Arc<Self>) {
        let review = Arc::clone(self);
        // Asking the kernel blocks.
        if let Err(error) = tokio::task::spawn_blocking(move || review.review()).await {
            tracing::error!(%error, "judging plaintext was interrupted");
        }
    }

    fn review(&self) {
        let passed = match self.sockets.passed_by_pod() {
            Ok(passed) => passed,
            Err(error) => {
                return self.failed(&format!("cannot list plaintext connections: {error}"));
            }
        };
        let none = HashSet::new();
        let watched = |it: &Watched| (Arc::clone(&it.pod), it.since.elapsed() < CHANGED_LATELY);
        let pods: Vec<_> = self.pods().values().map(watched).collect();
        for (pod, has_changed) in pods {
            let passed = match passed.get(&pod.netns.cookie()) {
                Some(passed) => passed,
                None if has_changed => &none,
                None => continue,
            };
            if let Err(error) = self.review_pod(&pod, passed) {
                self.failed(&format!(
                    "cannot end plaintext of {} that lost its right: {error}",
                    pod.name
                ));
            }
        }
    }

    fn review_pod(
        &self,
        pod: &Arc<Pod>,
        passed: &HashSet<ConnectionKey>,
    ) -> Result<(), SockDiagError> {
        let mut open = tcp_sockets(&pod.netns, State::Open)?;
        open.retain(|it| {
            let key = ConnectionKey::new(pod.netns.cookie(), it.remote, it.local);
            // A handshake that was begun while it was allowed could end a minute later.
            passed.contains(&key) || it.is_being_opened() && !self.sockets.is_admitted(&key)
        });
        let lost = open.into_iter().filter_map(|socket| Some((socket, self.lost(pod, &socket)?)));
        let (lost, reasons): (Vec<_>, Vec<_>) = lost.unzip();
        if lost.is_empty() {
            return Ok(());
        }
        sock_diag::destroy(&pod.netns, &lost)?;
        for (socket, reason) in lost.into_iter().zip(reasons) {
            tracing::info!(pod = %pod.name, caller = %socket.remote, reason, "ended plaintext");
            self.report(pod, &socket, reason);
        }
        Ok(())
    }

    /// Why a connection may not go on.
    fn lost(&self, pod: &Pod, socket: &TcpSocket) -> Option<String> {
        let callee = self.snapshot.workload_at(socket.local.ip())?;
        if callee.uid != pod.uid {
            return None;
        }
        let right = Right { source: None, from: socket.remote.ip(), callee, to: socket.local };
        right.lost(&self.snapshot)
    }

    fn report(&self, pod: &Pod, socket: &TcpSocket, reason: String) {
        // An address proves nothing: the caller's pod is a hint.
        let caller = self.snapshot.workload_at(socket.remote.ip());
        self.observer.record(Flow {
            time: SystemTime::now(),
            node: Arc::clone(&self.node),
            reporter: Reporter::Destination,
            source: Peer {
                identity: None,
                host: None,
                pod: caller.map(|caller| caller.name.clone()),
                address: Some(socket.remote),
            },
            destination: Peer {
                identity: Some(pod.identity.clone()),
                host: None,
                pod: Some(pod.name.clone()),
                address: Some(socket.local),
            },
            service: None,
            verdict: Verdict::Denied,
            reason,
            security: Security::Plaintext,
            duration: Duration::ZERO,
            bytes_sent: 0,
            bytes_received: 0,
            http: None,
        });
    }

    fn failed(&self, problem: &str) {
        tracing::error!("{problem}");
        self.status.incident(problem.to_owned());
    }

    fn pods(&self) -> MutexGuard<'_, HashMap<Arc<str>, Watched>> {
        self.pods.captured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks a moment after each change and each ring of `bell`, and again after the pauses of [`AGAIN`],
/// until nothing can change any more.
async fn look_after<L: Future<Output = ()>>(
    mut changed: watch::Receiver<u64>,
    bell: &Notify,
    look: impl Fn() -> L,
) {
    let mut pauses = [].iter();
    loop {
        let news = async {
            tokio::select! {
                changed = changed.changed() => changed.is_ok(),
                () = bell.notified() => true,
            }
        };
        let news = match pauses.next() {
            Some(pause) => time::timeout(*pause, news).await.ok(),
            None => Some(news.await),
        };
        match news {
            Some(false) => return,
            Some(true) => {
                time::sleep(SETTLE).await;
                changed.mark_unchanged();
                pauses = AGAIN.iter();
            }
            None => {}
        }
        look().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// When looks happened, in milliseconds, within 20 s of a change at once and a ring at 3.2 s.
    #[tokio::test(start_paused = true)]
    async fn a_look_follows_the_kernel_however_late_it_learns_of_a_change() {
        let (change, changed) = watch::channel(0_u64);
        let bell = Notify::new();
        let start = Instant::now();
        let looks = Mutex::new(Vec::new());
        let look = || async {
            let mut looks = looks.lock().unwrap_or_else(PoisonError::into_inner);
            looks.push(start.elapsed().as_millis());
        };
        let story = async {
            change.send_replace(1);
            time::sleep(Duration::from_millis(3200)).await;
            bell.notify_one();
            time::sleep(Duration::from_millis(16_800)).await;
            drop(change);
        };
        tokio::join!(look_after(changed, &bell, look), story);
        let looks = looks.into_inner().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(looks, [100, 500, 2000, 3300, 3700, 5200, 8200]);
    }
}
