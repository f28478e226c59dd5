//! The thread that enrolment runs on: woken by changes, by retries, and every two seconds to look
//! at the kernel.

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use mesh_common::{identity::SpiffeId, model::Workload};
use tokio::sync::watch;

use super::{Captor, Captures, Enrolment, inspection::Inspection};
use crate::{
    bypass::Bypasses, identity::Certificates, liveness::Pulse, snapshot::Snapshot, status::Status,
};

/// How often the connections of pods that drain are counted.
const DRAIN_CHECK: Duration = Duration::from_millis(500);
/// How long what the proxy carries may take to end once the agent leaves for good.
const FAREWELL: Duration = Duration::from_secs(5);
/// The shortest sleep, so that a step that is due at once does not spin.
const SHORTEST_SLEEP: Duration = Duration::from_millis(10);

/// What enrolment tells the rest of the agent.
#[derive(Clone, Debug)]
pub struct Reports {
    /// Which pods are captured; `None` until every pod was tried once. A report that comes too early
    /// would tell callers to speak plaintext to pods that are about to be captured again.
    pub captured: watch::Receiver<Option<Captures>>,
    /// Identities that need a certificate; `None` until there is a picture of the mesh.
    pub wanted: watch::Receiver<Option<BTreeSet<SpiffeId>>>,
    leaves: watch::Sender<bool>,
}

impl Reports {
    /// Lets every pod out of the mesh for good, and waits a while for what the proxy still carries
    /// and for callers that do not know yet. Until then the proxy serves: whoever ended it first
    /// would have the kernel send new connections to nobody.
    pub async fn let_everybody_go(mut self) {
        self.leaves.send_replace(true);
        let is_nobody_left =
            |wanted: &Option<BTreeSet<SpiffeId>>| wanted.as_ref().is_some_and(BTreeSet::is_empty);
        // Whatever is left then, the cleanup ends.
        let _ = tokio::time::timeout(FAREWELL, self.wanted.wait_for(is_nobody_left)).await;
    }
}

/// Everything that the thread works with.
pub struct EnrolmentThread {
    /// The node whose pods these are.
    pub node: String,
    /// What is desired.
    pub snapshot: Arc<Snapshot>,
    /// Without a certificate no pod is captured.
    pub certificates: Arc<Certificates>,
    /// Who goes around the mesh.
    pub bypasses: Arc<Bypasses>,
    /// Where the outcome is shown, and whether there is a picture of the mesh.
    pub status: Arc<Status>,
    /// Where it shows that the thread turns.
    pub pulse: Arc<Pulse>,
}

impl EnrolmentThread {
    /// Starts the thread with the captor that `captor` makes on it. It ends with the process.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(self, captor: impl Captor + 'static) -> io::Result<Reports> {
        let (captured, captured_rx) = watch::channel(None);
        let (wanted, wanted_rx) = watch::channel(None);
        let (leaves, leaves_rx) = watch::channel(false);
        // One waiting wake-up stands for any number of them.
        let (wake, woken) = sync_channel(1);
        tokio::spawn(forward(self.snapshot.changed(), wake.clone()));
        tokio::spawn(forward(self.bypasses.changed(), wake.clone()));
        tokio::spawn(forward(self.certificates.changed(), wake.clone()));
        tokio::spawn(forward(leaves_rx.clone(), wake));
        let body = move || self.run(captor, &woken, &leaves_rx, &captured, &wanted);
        std::thread::Builder::new().name("enrolment".to_owned()).spawn(body)?;
        Ok(Reports { captured: captured_rx, wanted: wanted_rx, leaves })
    }

    fn run(
        self,
        mut captor: impl Captor,
        woken: &Receiver<()>,
        leaves: &watch::Receiver<bool>,
        captured: &watch::Sender<Option<Captures>>,
        wanted: &watch::Sender<Option<BTreeSet<SpiffeId>>>,
    ) {
        let mut enrolment = Enrolment::default();
        let mut inspection = Inspection::default();
        loop {
            self.pulse.beat();
            let now = Instant::now();
            let bypass_ends = self.bypasses.expire().map(|left| now + left);
            let leaves = *leaves.borrow();
            // Without a picture, "no pods" would mean to release them all.
            if leaves || self.status.is_synced() {
                let desired =
                    if leaves { Vec::new() } else { self.snapshot.local_pods(&self.node) };
                let certificate = |id: &SpiffeId| self.certificates.require(id);
                let bypassed = |pod: &Workload| {
                    // A node's worth of pods takes long, and is no standstill.
                    self.pulse.beat();
                    self.bypasses.left_for(pod)
                };
                enrolment.reconcile(now, &desired, certificate, bypassed, &mut captor);
                if enrolment.is_tried() {
                    let bypass_end = |pod: &Workload| self.bypasses.end_for(pod);
                    publish(captured, enrolment.captures(bypass_end));
                }
                publish(wanted, enrolment.identities());
                self.status.set_pods(enrolment.states(&captor), enrolment.is_tried());
            }
            let inspect_at = inspection.look(now, &mut captor, &self.status);
            let next = enrolment.next_retry().into_iter();
            let next = next.chain(bypass_ends);
            let next = next.chain(enrolment.is_draining().then(|| now + DRAIN_CHECK));
            let sleep = next.fold(inspect_at, Instant::min).saturating_duration_since(now);
            match woken.recv_timeout(sleep.max(SHORTEST_SLEEP)) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

fn publish<T: PartialEq>(channel: &watch::Sender<Option<T>>, value: T) {
    channel.send_if_modified(|current| {
        let changed = current.as_ref() != Some(&value);
        if changed {
            *current = Some(value);
        }
        changed
    });
}

async fn forward<T>(mut changed: watch::Receiver<T>, wake: SyncSender<()>) {
    while changed.changed().await.is_ok() {
        if let Err(std::sync::mpsc::TrySendError::Disconnected(())) = wake.try_send(()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use mesh_common::{
        api::v1,
        model::{NamespacedName, Resource},
    };

    use super::*;
    use crate::{
        capture::{InboundModes, MapUse},
        identity::testing::{Ca, Hours},
        status::Hook,
    };

    const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
    const DEADLINE: Duration = Duration::from_secs(20);

    /// A captor whose only hook is found missing as often as `repairs` says.
    #[derive(Clone, Default)]
    struct Fake {
        captured: Arc<Mutex<Vec<String>>>,
        released: Arc<Mutex<Vec<String>>>,
        repairs: Arc<Mutex<u64>>,
    }

    impl Captor for Fake {
        fn capture(&mut self, pod: &Workload, _modes: &InboundModes) -> Result<(), String> {
            let mut captured = self.captured.lock().unwrap_or_else(PoisonError::into_inner);
            captured.push(pod.uid.to_string());
            Ok(())
        }

        fn set_inbound_modes(&mut self, _uid: &str, _modes: &InboundModes) -> Result<(), String> {
            Ok(())
        }

        fn bypass(&mut self, _uid: &str) -> Result<(), String> {
            Ok(())
        }

        fn release(&mut self, uid: &str) -> Result<(), String> {
            let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
            released.push(uid.to_owned());
            Ok(())
        }

        fn finish_release(&mut self, _uid: &str) -> Result<(), String> {
            Ok(())
        }

        fn connections(&self, _uid: &str) -> usize {
            0
        }

        fn is_drained(&self, _uid: &str) -> bool {
            true
        }

        fn is_gone(&self, _uid: &str) -> bool {
            false
        }

        fn adopted(&self) -> Vec<Arc<str>> {
            Vec::new()
        }

        fn inspect(&mut self) -> (Vec<Hook>, Vec<(&'static str, u64)>) {
            let repairs = *self.repairs.lock().unwrap_or_else(PoisonError::into_inner);
            let hook = Hook { name: "connect4".into(), attached: true, repairs, error: None };
            (vec![hook], vec![("captured", 1)])
        }

        fn notes(&self, _uid: &str) -> Vec<String> {
            Vec::new()
        }

        fn look_around(&mut self) {}

        fn map_use(&self) -> Result<Vec<MapUse>, String> {
            Ok(Vec::new())
        }
    }

    fn web() -> v1::Resource {
        let workload = Workload {
            name: NamespacedName::new("shop", "web"),
            uid: "u1".into(),
            node: Some("node-1".into()),
            addresses: vec!["10.0.0.1".parse().expect("an address")],
            identity: Some(WEB.parse().expect("an identity")),
            enrolled: true,
            captured: false,
            memberships: Vec::new(),
            authorization_policies: Vec::new(),
            admission: Default::default(),
        };
        v1::Resource { version: 1, resource: Some((&Resource::Workload(workload)).into()) }
    }

    async fn next<T: Clone>(channel: &mut watch::Receiver<Option<T>>) -> T {
        let known = channel.wait_for(Option::is_some);
        let known = tokio::time::timeout(DEADLINE, known).await.expect("in time");
        known.expect("the thread lives").clone().expect("it is known")
    }

    #[tokio::test]
    async fn captures_once_there_is_a_picture_and_a_certificate_and_says_so() {
        let snapshot = Arc::new(Snapshot::new());
        let certificates = Arc::new(Certificates::new(None));
        let status = Arc::new(Status::default());
        let captor = Fake::default();
        let pulse = Arc::<Pulse>::default();
        let born = pulse.last();
        let thread = EnrolmentThread {
            node: "node-1".to_owned(),
            snapshot: Arc::clone(&snapshot),
            certificates: Arc::clone(&certificates),
            bypasses: Arc::default(),
            status: Arc::clone(&status),
            pulse: Arc::clone(&pulse),
        };
        let mut reports = thread.start(captor.clone()).expect("a thread");
        snapshot.apply(vec![web()], Vec::new());
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(reports.wanted.borrow().is_none(), "there is no whole picture yet");

        status.controller(|controller| {
            controller.synced = true;
            controller.connected = true;
        });
        snapshot.touch();
        assert_eq!(next(&mut reports.wanted).await.len(), 1);
        assert!(reports.captured.borrow().is_none(), "the pod was not tried yet");

        let ca = Ca::new();
        certificates.install(ca.svid(WEB, Hours::CURRENT), vec![ca.der()]).expect("installed");
        assert_eq!(next(&mut reports.captured).await.captured, BTreeSet::from(["u1".into()]));
        assert_eq!(*captor.captured.lock().expect("lock"), ["u1"]);

        assert!(pulse.last() > born, "it does not show that it turns");

        *captor.repairs.lock().expect("lock") = 1;
        let is_noticed = || {
            let problems = status.to_wire("node-1", 0).problems;
            problems.iter().any(|it| it.contains("connect4 was found detached"))
        };
        for _ in 0..1000 {
            if is_noticed() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(is_noticed(), "nobody noticed the repair");

        let left = reports.captured.clone();
        tokio::time::timeout(FAREWELL / 2, reports.let_everybody_go()).await.expect("at once");
        assert_eq!(*captor.released.lock().expect("lock"), ["u1"]);
        let captures = left.borrow().clone();
        assert_eq!(captures.expect("it is known").captured, BTreeSet::new(), "others are told");
    }
}
