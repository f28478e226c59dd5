//! Each transition, against a captor that only remembers what it was told.

use mesh_common::model::NamespacedName;
use proptest::prelude::*;

use super::*;

const START: Duration = Duration::from_secs(1000);

/// A captor without a kernel.
#[derive(Default)]
struct Fake {
    /// Captured (true) or released (false), by uid.
    pods: BTreeMap<Arc<str>, bool>,
    modes: BTreeMap<Arc<str>, InboundModes>,
    adopted: BTreeSet<Arc<str>>,
    connections: BTreeMap<Arc<str>, usize>,
    gone: BTreeSet<Arc<str>>,
    failing: Option<&'static str>,
    calls: Vec<String>,
}

impl Fake {
    fn call(&mut self, what: &str, uid: &str) -> Result<(), String> {
        self.calls.push(format!("{what} {uid}"));
        self.failing.map_or(Ok(()), |reason| Err(reason.to_owned()))
    }

    fn take_calls(&mut self) -> Vec<String> {
        std::mem::take(&mut self.calls)
    }
}

impl Captor for Fake {
    fn capture(&mut self, pod: &Workload, modes: &InboundModes) -> Result<(), String> {
        self.call("capture", &pod.uid)?;
        self.adopted.remove(&pod.uid);
        self.gone.remove(&pod.uid);
        self.pods.insert(Arc::clone(&pod.uid), true);
        self.modes.insert(Arc::clone(&pod.uid), modes.clone());
        Ok(())
    }

    fn set_inbound_modes(&mut self, uid: &str, modes: &InboundModes) -> Result<(), String> {
        self.call(&format!("{:?}", modes.others), uid)?;
        self.modes.insert(uid.into(), modes.clone());
        Ok(())
    }

    fn bypass(&mut self, uid: &str) -> Result<(), String> {
        self.call("bypass", uid)?;
        assert_eq!(self.pods.insert(uid.into(), false), Some(true), "it was captured");
        Ok(())
    }

    fn release(&mut self, uid: &str) -> Result<(), String> {
        self.call("release", uid)?;
        self.pods.insert(uid.into(), false);
        Ok(())
    }

    fn finish_release(&mut self, uid: &str) -> Result<(), String> {
        self.call("finish", uid)?;
        assert_ne!(self.pods.remove(uid), Some(true), "finished before it was released");
        self.adopted.remove(uid);
        Ok(())
    }

    fn connections(&self, uid: &str) -> usize {
        self.connections.get(uid).copied().unwrap_or_default()
    }

    fn is_drained(&self, uid: &str) -> bool {
        self.connections(uid) == 0
    }

    fn is_gone(&self, uid: &str) -> bool {
        self.gone.contains(uid)
    }

    fn adopted(&self) -> Vec<Arc<str>> {
        self.adopted.iter().cloned().collect()
    }

    fn inspect(&mut self) -> (Vec<Hook>, Vec<(&'static str, u64)>) {
        (Vec::new(), Vec::new())
    }

    fn notes(&self, _uid: &str) -> Vec<String> {
        Vec::new()
    }

    fn look_around(&mut self) {}

    fn map_use(&self) -> Result<Vec<MapUse>, String> {
        Ok(Vec::new())
    }
}

fn pod(uid: &str) -> Arc<Workload> {
    Arc::new(Workload {
        name: NamespacedName::new("shop", uid),
        uid: uid.into(),
        node: Some("node-1".into()),
        addresses: vec!["10.0.0.1".parse().expect("an address")],
        identity: Some("spiffe://cluster.local/ns/shop/sa/web".parse().expect("an identity")),
        enrolled: true,
        captured: false,
        memberships: Vec::new(),
        authorization_policies: Vec::new(),
        admission: Default::default(),
    })
}

/// An enrolment, its captor, and a clock.
struct World {
    enrolment: Enrolment,
    captor: Fake,
    now: Instant,
    has_certificate: bool,
    is_refused: bool,
    bypassed: BTreeSet<Arc<str>>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now() + START;
        let (enrolment, captor) = Default::default();
        let (has_certificate, is_refused) = (true, false);
        Self { enrolment, captor, now, has_certificate, is_refused, bypassed: BTreeSet::new() }
    }

    /// Reconciles, and gives back what the captor was told.
    fn want(&mut self, desired: &[Arc<Workload>]) -> Vec<String> {
        let has = self.has_certificate;
        let is_refused = self.is_refused;
        let missing = || NoCertificate { reason: "not signed".to_owned(), is_refused };
        let certificate = |_: &SpiffeId| if has { Ok(()) } else { Err(missing()) };
        let bypassed =
            |pod: &Workload| self.bypassed.contains(&pod.uid).then(|| "9 min".to_owned());
        self.enrolment.reconcile(self.now, desired, certificate, bypassed, &mut self.captor);
        self.captor.take_calls()
    }

    fn phase(&self) -> Option<Phase> {
        self.enrolment.states(&self.captor).first().map(|state| state.phase)
    }

    fn uncaptured(&self) -> Option<Uncaptured> {
        self.enrolment.states(&self.captor).first().and_then(|state| state.uncaptured)
    }

    fn reason(&self) -> String {
        self.enrolment.states(&self.captor).first().map(|it| it.reason.clone()).unwrap_or_default()
    }
}

#[test]
fn a_pod_that_bypasses_the_mesh_is_let_go_and_taken_back() {
    let mut world = World::new();
    world.want(&[pod("a")]);
    world.bypassed.insert("a".into());
    assert_eq!(world.want(&[pod("a")]), ["bypass a"]);
    assert_eq!(world.want(&[pod("a")]), [""; 0]);
    assert_eq!(world.phase(), Some(Phase::Bypassed));
    assert_eq!(world.reason(), "outside the mesh for another 9 min");
    assert!(world.enrolment.captured().is_empty() && world.enrolment.is_tried());
    assert_eq!(world.enrolment.identities().len(), 1, "its certificate is renewed meanwhile");
    world.bypassed.clear();
    assert_eq!(world.want(&[pod("a")]), ["capture a"]);
    assert_eq!((world.phase(), world.reason()), (Some(Phase::Captured), String::new()));

    // Unlabelled meanwhile.
    world.bypassed.insert("a".into());
    world.want(&[pod("a")]);
    assert_eq!(world.want(&[]), ["release a", "finish a"]);
    assert_eq!(world.phase(), None);
}

#[test]
fn a_pod_that_bypasses_the_mesh_when_the_agent_starts_is_not_captured() {
    let mut world = World::new();
    world.bypassed.insert("a".into());
    world.captor.adopted.insert("a".into());
    world.captor.pods.insert("a".into(), true);
    assert_eq!(world.want(&[pod("a")]), ["release a", "finish a"]);
    assert_eq!(world.want(&[pod("a")]), [""; 0]);
    assert_eq!(world.phase(), Some(Phase::Bypassed));
    assert_eq!(world.want(&[]), [""; 0]);
    assert_eq!(world.phase(), None);
}

#[test]
fn a_bypass_needs_no_certificate_and_follows_a_new_sandbox() {
    let mut world = World::new();
    world.has_certificate = false;
    world.want(&[pod("a")]);
    assert_eq!(world.phase(), Some(Phase::Waiting));
    world.bypassed.insert("a".into());
    assert_eq!(world.want(&[pod("a")]), [""; 0]);
    assert_eq!(world.phase(), Some(Phase::Bypassed));
    world.bypassed.clear();
    world.has_certificate = true;
    assert_eq!(world.want(&[pod("a")]), ["capture a"]);
    world.bypassed.insert("a".into());
    world.captor.gone.insert("a".into());
    assert_eq!(world.want(&[pod("a")]), ["bypass a", "finish a"]);
    world.bypassed.clear();
    assert_eq!(world.want(&[pod("a")]), ["capture a"]);
}

#[test]
fn a_pod_comes_and_goes() {
    let mut world = World::new();
    assert_eq!(world.want(&[pod("a")]), ["capture a"]);
    assert_eq!(world.want(&[pod("a")]), [""; 0]);
    assert_eq!(world.phase(), Some(Phase::Captured));
    assert_eq!(world.enrolment.captured(), BTreeSet::from(["a".into()]));
    assert_eq!(world.want(&[]), ["release a", "finish a"]);
    assert_eq!(world.phase(), None);
}

#[test]
fn nothing_is_left_behind_before_the_last_connection_ends() {
    let mut world = World::new();
    world.want(&[pod("a")]);
    world.captor.connections.insert("a".into(), 1);
    assert_eq!(world.want(&[]), ["release a"]);
    assert_eq!(world.want(&[]), [""; 0]);
    assert_eq!(world.phase(), Some(Phase::Draining));
    assert!(world.enrolment.captured().is_empty());
    assert_eq!(world.enrolment.identities().len(), 1, "its tunnels still need a certificate");
    world.captor.connections.clear();
    assert_eq!(world.want(&[]), ["finish a"]);
    assert!(world.enrolment.identities().is_empty());
}

#[test]
fn a_pod_that_comes_back_while_it_drains_is_captured_at_once() {
    let mut world = World::new();
    world.want(&[pod("a")]);
    world.captor.connections.insert("a".into(), 1);
    world.want(&[]);
    assert_eq!(world.want(&[pod("a")]), ["capture a"]);
    assert_eq!(world.phase(), Some(Phase::Captured));
}

#[test]
fn connections_do_not_outlive_the_namespace() {
    let mut world = World::new();
    world.want(&[pod("a")]);
    world.captor.connections.insert("a".into(), 1);
    world.captor.gone.insert("a".into());
    assert_eq!(world.want(&[]), ["release a", "finish a"]);
}

#[test]
fn a_pod_whose_namespace_was_replaced_is_captured_anew() {
    let mut world = World::new();
    world.want(&[pod("a")]);
    world.captor.gone.insert("a".into());
    assert_eq!(world.want(&[pod("a")]), ["release a", "finish a", "capture a"]);
    assert_eq!(world.phase(), Some(Phase::Captured));
}

#[test]
fn a_pod_whose_address_changed_is_captured_anew() {
    let mut world = World::new();
    world.want(&[pod("a")]);
    let moved = Workload {
        addresses: vec!["10.0.0.2".parse().expect("an address")],
        ..Workload::clone(&pod("a"))
    };
    assert_eq!(world.want(&[Arc::new(moved)]), ["release a", "capture a"]);
}

#[test]
fn a_pod_waits_for_its_certificate() {
    let mut world = World::new();
    world.has_certificate = false;
    assert_eq!(world.want(&[pod("a")]), [""; 0]);
    assert_eq!((world.phase(), world.reason()), (Some(Phase::Waiting), "not signed".into()));
    assert!(!world.enrolment.is_tried());
    assert_eq!(world.enrolment.identities().len(), 1);
    world.has_certificate = true;
    assert_eq!(world.want(&[pod("a")]), ["capture a"]);
    assert!(world.enrolment.is_tried());
}

#[test]
fn a_certificate_that_is_refused_holds_up_nobody() {
    let mut world = World::new();
    (world.has_certificate, world.is_refused) = (false, true);
    assert_eq!(world.want(&[pod("a")]), [""; 0]);
    assert_eq!((world.phase(), world.reason()), (Some(Phase::Failed), "not signed".into()));
    assert_eq!(world.uncaptured(), Some(Uncaptured::Certificate));
    assert!(world.enrolment.is_tried());
    world.has_certificate = true;
    assert_eq!(world.want(&[pod("a")]), ["capture a"], "it is tried for as long as it is wanted");
    assert_eq!(world.uncaptured(), None);
}

#[test]
fn a_certificate_that_does_not_come_holds_up_nobody_for_ever() {
    let mut world = World::new();
    world.has_certificate = false;
    world.want(&[pod("a")]);
    world.now += CERTIFICATE_PATIENCE - Duration::from_millis(1);
    world.want(&[pod("a")]);
    assert_eq!(world.uncaptured(), Some(Uncaptured::Waiting));
    assert!(!world.enrolment.is_tried());
    world.now += Duration::from_millis(1);
    world.want(&[pod("a")]);
    assert_eq!(world.uncaptured(), Some(Uncaptured::Certificate));
    assert!(world.enrolment.is_tried());
}

#[test]
fn a_failure_is_shown_and_tried_again_later() {
    let mut world = World::new();
    world.captor.failing = Some("no such namespace");
    assert_eq!(world.want(&[pod("a")]), ["capture a"]);
    assert_eq!((world.phase(), world.reason()), (Some(Phase::Failed), "no such namespace".into()));
    assert!(world.enrolment.is_tried());
    assert_eq!(world.uncaptured(), Some(Uncaptured::Capture));
    assert_eq!(world.want(&[pod("a")]), [""; 0], "not before it is time");
    let retry = world.enrolment.next_retry().expect("a time");
    assert!(retry > world.now && retry <= world.now + RETRY_FIRST);
    world.now = retry;
    world.captor.failing = None;
    assert_eq!(world.want(&[pod("a")]), ["capture a"]);
    assert_eq!((world.phase(), world.reason()), (Some(Phase::Captured), String::new()));
    assert_eq!(world.enrolment.next_retry(), None);
}

#[test]
fn one_pod_that_fails_does_not_hold_up_the_others() {
    let mut world = World::new();
    world.captor.failing = Some("no such namespace");
    world.want(&[pod("a")]);
    world.captor.failing = None;
    assert_eq!(world.want(&[pod("a"), pod("b")]), ["capture b"]);
    assert_eq!(world.want(&[pod("b")]), [""; 0], "what was never captured just goes");
}

#[test]
fn policies_change_the_inbound_mode_live() {
    let mut world = World::new();
    world.want(&[pod("a")]);
    let judged = Workload {
        authorization_policies: vec![NamespacedName::new("shop", "web")],
        ..Workload::clone(&pod("a"))
    };
    assert_eq!(world.want(&[Arc::new(judged)]), ["Proxy a"]);
    assert_eq!(world.want(&[pod("a")]), ["Pass a"]);
}

#[test]
fn inbound_modes_change_before_anything_that_takes_longer() {
    let mut world = World::new();
    world.want(&[pod("b"), pod("c")]);
    let judged = Workload {
        authorization_policies: vec![NamespacedName::new("shop", "web")],
        ..Workload::clone(&pod("c"))
    };
    let calls = world.want(&[pod("a"), Arc::new(judged)]);
    assert_eq!(calls, ["Proxy c", "release b", "finish b", "capture a"]);
}

#[test]
fn pods_of_an_earlier_agent_that_are_not_wanted_are_released() {
    let mut world = World::new();
    world.captor.adopted.extend(["a".into(), "b".into()]);
    assert_eq!(world.want(&[pod("a")]), ["capture a", "release b", "finish b"]);
}

proptest! {
    /// Whatever happens in whatever order: in the end the wanted pods are captured in the right
    /// mode and nothing else is left.
    #[test]
    fn reaches_what_is_wanted(
        steps in proptest::collection::vec(
            (proptest::collection::vec((0..4_u8, any::<bool>()), 0..4), any::<[bool; 4]>()),
            1..12,
        ),
    ) {
        let mut world = World::new();
        let mut desired = Vec::new();
        for (wanted, [fails, connects, vanishes, certified]) in steps {
            let wanted: BTreeMap<_, _> = wanted.into_iter().collect();
            let workload = |(at, judged): (u8, bool)| {
                let policies = judged.then(|| NamespacedName::new("shop", "web"));
                Arc::new(Workload {
                    authorization_policies: policies.into_iter().collect(),
                    ..Workload::clone(&pod(&format!("pod-{at}")))
                })
            };
            desired = wanted.into_iter().map(workload).collect();
            let uids = || (0..4).map(|at| Arc::from(format!("pod-{at}")));
            world.captor.failing = fails.then_some("failing");
            world.captor.connections = uids().map(|uid| (uid, usize::from(connects))).collect();
            world.captor.gone = uids().filter(|_| vanishes).collect();
            world.has_certificate = certified;
            world.want(&desired);
            world.now += Duration::from_millis(700);
        }
        world.captor.failing = None;
        world.captor.connections.clear();
        world.captor.gone.clear();
        world.has_certificate = true;
        for _ in 0..3 {
            world.now += RETRY_CAP;
            world.want(&desired);
        }
        let uids: BTreeSet<_> = desired.iter().map(|pod| Arc::clone(&pod.uid)).collect();
        let captured: BTreeSet<_> = world.captor.pods.keys().cloned().collect();
        prop_assert!(world.captor.pods.values().all(|captured| *captured));
        prop_assert_eq!(&captured, &uids);
        prop_assert_eq!(world.enrolment.captured(), uids);
        for pod in &desired {
            prop_assert_eq!(&world.captor.modes[&pod.uid], &InboundModes::of(pod));
        }
        let states = world.enrolment.states(&world.captor);
        prop_assert!(states.iter().all(|state| state.phase == Phase::Captured));
    }
}
