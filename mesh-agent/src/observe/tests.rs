//! The ring, its followers, and filters.

use std::time::{Duration, SystemTime};

use mesh_common::{api::v1, model::NamespacedName};
use proptest::prelude::*;

use super::{
    flow::{Peer, Reporter, Security, Verdict},
    *,
};

/// A flow of which `at` is the time in seconds.
pub(crate) fn flow(at: u64) -> Flow {
    let peer = |account: &str| Peer {
        identity: Some(
            format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().expect("an identity"),
        ),
        pod: Some(NamespacedName::new("shop", &format!("{account}-1"))),
        address: Some("10.0.0.1:80".parse().expect("an address")),
        host: None,
    };
    Flow {
        time: SystemTime::UNIX_EPOCH + Duration::from_secs(at),
        node: "node-1".into(),
        reporter: Reporter::Source,
        source: peer("frontend"),
        destination: peer("web"),
        service: Some(NamespacedName::new("shop", "web")),
        verdict: Verdict::Forwarded,
        reason: String::new(),
        security: Security::Mtls,
        duration: Duration::from_millis(3),
        bytes_sent: 10,
        bytes_received: 20,
        http: None,
    }
}

fn observer(capacity: usize) -> Observer {
    Observer::new(capacity, Arc::new(Metrics::new()))
}

fn seconds(flows: &[Arc<Flow>]) -> Vec<u64> {
    flows.iter().map(|flow| v1::Flow::from(&**flow).time_unix_nano / 1_000_000_000).collect()
}

fn filter(pods: &[&str], verdicts: &[v1::Verdict]) -> FlowFilter {
    v1::FlowFilter {
        pods: pods.iter().map(ToString::to_string).collect(),
        verdicts: verdicts.iter().map(|verdict| (*verdict).into()).collect(),
        ..Default::default()
    }
    .try_into()
    .expect("a filter")
}

#[test]
fn filters_match_pods_on_either_side_and_verdicts() {
    let denied = Flow { verdict: Verdict::Denied, ..flow(1) };
    for (pods, verdicts, matches) in [
        (&[][..], &[][..], true),
        (&["web-1"], &[], true),
        (&["shop/frontend-1"], &[], true),
        (&["other/frontend-1"], &[], false),
        (&["web"], &[], false),
        (&["nobody", "web-1"], &[], true),
        (&[], &[v1::Verdict::Denied], true),
        (&[], &[v1::Verdict::Forwarded, v1::Verdict::Error], false),
        (&["web-1"], &[v1::Verdict::Forwarded], false),
    ] {
        assert_eq!(filter(pods, verdicts).matches(&denied), matches, "{pods:?} {verdicts:?}");
    }
    let unknown = v1::FlowFilter { verdicts: vec![77], ..Default::default() };
    assert!(FlowFilter::try_from(unknown).is_err());
}

#[test]
fn the_last_ones_are_the_last_that_match() {
    let observer = observer(10);
    for at in 0..6 {
        let verdict = if at % 2 == 0 { Verdict::Denied } else { Verdict::Forwarded };
        observer.record(Flow { verdict, ..flow(at) });
    }
    let denied = filter(&[], &[v1::Verdict::Denied]);
    assert_eq!(seconds(&observer.recent(2, &denied)), [2, 4]);
    assert_eq!(seconds(&observer.recent(0, &denied)), [0, 2, 4]);
    assert_eq!(seconds(&observer.recent(99, &FlowFilter::default())), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_follower_sees_each_flow_once() {
    let observer = observer(10);
    observer.record(flow(1));
    let (past, mut next) = observer.follow(0, &FlowFilter::default());
    observer.record(flow(2));
    observer.record(flow(3));
    let next: Vec<_> = std::iter::from_fn(|| next.try_recv().ok()).collect();
    assert_eq!((seconds(&past), seconds(&next)), (vec![1], vec![2, 3]));
}

proptest! {
    #[test]
    fn remembers_the_last_ones(capacity in 1..20_usize, flows in 0..50_u64) {
        let observer = observer(capacity);
        for at in 0..flows {
            observer.record(flow(at));
        }
        let expected: Vec<_> = (flows.saturating_sub(capacity as u64)..flows).collect();
        prop_assert_eq!(seconds(&observer.recent(0, &FlowFilter::default())), expected);
    }
}
