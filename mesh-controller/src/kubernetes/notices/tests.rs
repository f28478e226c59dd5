//! What is said of pods that are not captured, and where a refusal is said.

use std::path::Path;

use super::*;
use crate::{captured::Captures, compile::compile, source::yaml};

const PATIENCE: Duration = Duration::from_secs(60);

fn pod(missed: Option<Missed>) -> Uncaptured {
    Uncaptured {
        name: NamespacedName::new("shop", "web"),
        uid: "u".into(),
        node: Some("node-1".into()),
        missed: missed.map(|missed| (missed, "0.1.0".to_owned())),
    }
}

/// Reason and note, so long after the pod came.
fn said(missed: Option<Missed>, after: Duration) -> Option<(&'static str, String)> {
    let start = Instant::now();
    let mut waits = Waits::new(PATIENCE);
    let mut at = |now| {
        let outcome = Outcome { uncaptured: vec![pod(missed.clone())], ..Outcome::default() };
        notices(&outcome, &Nacks::new(), &mut waits, now)
    };
    at(start);
    let mut notices = at(start + after);
    assert!(notices.len() < 2, "{notices:?}");
    notices.pop_first().map(|it| (it.reason, it.note))
}

#[test]
fn a_pod_that_is_not_captured_in_time_is_said_with_the_reason_of_its_agent() {
    let failed = || Some(Missed::Failed("no such network namespace".into()));
    assert_eq!(said(failed(), PATIENCE / 2), None);
    for (missed, ending) in [
        (failed(), "plaintext; the agent (version 0.1.0) says: no such network namespace"),
        (Some(Missed::Waiting("no certificate".into())), "says: no certificate"),
        (Some(Missed::Waiting(String::new())), "plaintext; the agent has not tried yet"),
        (None, "is there an agent? `nodemesh status` on that node tells"),
    ] {
        let (reason, note) = said(missed, PATIENCE).expect("said");
        assert_eq!(reason, "NotCaptured");
        assert!(note.contains("node node-1 has not captured it for more than 60 s"), "{note}");
        assert!(note.ends_with(ending), "{note}");
    }
}

#[test]
fn a_pod_that_bypasses_the_mesh_is_said_at_once_and_not_as_a_failure() {
    let (reason, note) = said(Some(Missed::Bypassed(1_800_000_000)), Duration::ZERO).expect("said");
    assert_eq!(reason, "Bypassed");
    assert!(
        note.starts_with("bypasses the mesh until 2027-01-15T08:00:00Z, as somebody"),
        "{note}"
    );
}

const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {nodemesh.dev/mesh: enabled}}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, uid: u, labels: {app: web}}
spec: {nodeName: node-1, containers: [{name: a, image: a}]}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: shop, uid: v}
spec: {nodeName: node-1, containers: [{name: a, image: a}]}
status: {podIP: 10.0.0.2}
---
apiVersion: nodemesh.dev/v1alpha1
kind: PeerPolicy
metadata: {name: strict, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, mode: STRICT}
";

#[test]
fn a_refusal_is_that_of_the_object_that_governs() {
    let file = Path::new("objects.yaml").into();
    let objects: Vec<_> =
        yaml::parse(&file, OBJECTS).into_iter().map(|it| it.object.expect("valid")).collect();
    let index = objects.iter().collect();
    let domain = "cluster.local".parse().expect("a literal");
    let picture = Picture::new(&compile(&index, &Captures::default(), &domain));
    let key = |kind, name| ResourceKey { kind, name: NamespacedName::new("shop", name) };
    let refused = |reason: &str| Refused { reason: reason.into(), count: 1, version: 1 };
    let node = || "node-1".to_owned();
    let route = ResourceKind::Route(mesh_common::model::RouteKind::Grpc);
    let nacks = Nacks::from([
        ((node(), key(ResourceKind::Workload, "web")), refused("w")),
        ((node(), key(ResourceKind::Workload, "other")), refused("o")),
        ((node(), key(ResourceKind::AuthorizationPolicy, "a")), refused("p")),
        ((node(), key(route, "g")), refused("r")),
        ((node(), key(ResourceKind::Service, "s")), refused("s")),
    ]);
    let refusals = Refusals::new(&nacks, &picture);
    let of = |kind, name: NamespacedName| {
        let of_object = refusals.of(&ObjectKey { kind, name });
        of_object.iter().map(|(_, reason)| reason.as_str()).collect::<Vec<_>>()
    };
    let in_shop = |name| NamespacedName::new("shop", name);
    assert_eq!(of(Kind::PeerPolicy, in_shop("strict")), ["pod shop/web: w"]);
    assert_eq!(of(Kind::MeshConfig, MeshConfig::name()), ["pod shop/other: o"]);
    assert_eq!(of(Kind::AuthorizationPolicy, in_shop("a")), ["p"]);
    assert_eq!(of(Kind::GrpcRoute, in_shop("g")), ["r"]);
    assert_eq!(of(Kind::Service, in_shop("s")), [] as [&str; 0]);
}
