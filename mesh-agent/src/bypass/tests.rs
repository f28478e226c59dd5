//! Bypasses on disk and off it.

use mesh_common::model::{Admission, PortMode};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn pod(name: &str) -> Workload {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    Workload {
        name: NamespacedName::new(namespace, name),
        uid: "u1".into(),
        node: None,
        addresses: Vec::new(),
        identity: None,
        enrolled: true,
        captured: true,
        memberships: Vec::new(),
        authorization_policies: Vec::new(),
        admission: Admission::default(),
    }
}

fn of_pod(namespace: &str, name: &str) -> Scope {
    Scope::Pod(namespace.into(), name.into())
}

#[test]
fn a_scope_covers_what_its_name_says() {
    let bypasses = Bypasses::default();
    let covered = || {
        let covered = |name: &&&str| bypasses.left_for(&pod(name)).is_some();
        ["shop/web", "shop/db", "bank/web"].iter().filter(covered).count()
    };
    for (scope, expected) in
        [(of_pod("shop", "web"), 1), (Scope::Namespace("shop".into()), 2), (Scope::Node, 3)]
    {
        bypasses.begin(scope.clone(), MINUTE, false).expect("no file");
        assert_eq!(covered(), expected, "{scope}");
        assert!(bypasses.problems()[0].contains(&scope.flags()), "{:?}", bypasses.problems());
        assert!(bypasses.end(&scope).expect("no file"));
        assert!(!bypasses.end(&scope).expect("no file"), "it ended before");
        assert_eq!(covered(), 0);
    }
}

#[test]
fn the_longest_of_several_counts_and_each_ends_by_itself() {
    let bypasses = Bypasses::default();
    bypasses.begin(Scope::Node, MINUTE * 30, false).expect("no file");
    bypasses.begin(of_pod("shop", "web"), Duration::ZERO, false).expect("no file");
    assert_eq!(bypasses.left_for(&pod("shop/web")).as_deref(), Some("30 min"));
    let next = bypasses.expire().expect("one goes on");
    assert!(next > MINUTE * 29 && next <= MINUTE * 30, "{next:?}");
    assert_eq!(bypasses.problems().len(), 1);
    bypasses.begin(Scope::Node, Duration::ZERO, false).expect("no file");
    assert_eq!((bypasses.expire(), bypasses.left_for(&pod("shop/web"))), (None, None));
}

#[test]
fn what_the_mesh_protects_needs_a_word_more() {
    let strict = Admission { peer_mode: PeerMode::Strict, ..Admission::default() };
    let deny = Admission { default_action: Action::Deny, ..Admission::default() };
    let port = PortMode { port: 80, mode: PeerMode::Strict };
    let port = Admission { port_modes: vec![port], ..Admission::default() };
    let protected = [strict, deny, port].map(|admission| Workload { admission, ..pod("shop/db") });
    let governed = NamespacedName::new("shop", "callers");
    let governed = Workload { authorization_policies: vec![governed], ..pod("shop/db") };
    for pod in protected.into_iter().chain([governed]) {
        let bypasses = Bypasses::default();
        bypasses.begin(Scope::Node, MINUTE, false).expect("no file");
        assert!(is_protected(&pod) && bypasses.left_for(&pod).is_none(), "{pod:?}");
        bypasses.begin(Scope::Node, MINUTE, true).expect("no file");
        assert!(bypasses.left_for(&pod).is_some(), "{pod:?}");
    }
    assert!(!is_protected(&pod("shop/web")));
}

#[test]
fn an_agent_that_starts_again_knows() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("bypass.json");
    let bypasses = Bypasses::load(file.clone());
    assert!(bypasses.problems().is_empty());
    let until = bypasses.begin(Scope::Namespace("shop".into()), MINUTE * 9, true);
    assert!(until.expect("writable") > now());
    let bypasses = Bypasses::load(file.clone());
    assert_eq!(bypasses.left_for(&pod("shop/web")).as_deref(), Some("9 min"));
    // What was written when the clock was wrong by years.
    let wrong = vec![Bypass { scope: Scope::Node, until: now() + 1_000_000_000, insecure: false }];
    fs::write(&file, serde_json::to_vec(&wrong).expect("JSON")).expect("writable");
    let left = Bypasses::load(file.clone()).left_for(&pod("bank/web"));
    assert_eq!(left.as_deref(), Some("24 h 0 min"));
    fs::write(&file, "{").expect("writable");
    assert!(Bypasses::load(file).problems().is_empty());

    let unwritable = Bypasses::load("/proc/nobody/bypass.json".into());
    unwritable.begin(Scope::Node, MINUTE, false).expect_err("it would not be kept");
    assert!(unwritable.problems().is_empty(), "then it does not begin");
}
