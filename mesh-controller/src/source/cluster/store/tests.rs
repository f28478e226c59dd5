//! Lists, changes and bad objects, in the orders that clusters have them.

use serde_json::json;

use super::*;

fn node(name: &str) -> Served {
    decode(Kind::Node, json!({"metadata": {"name": name, "resourceVersion": "1"}}))
}

fn peer_policy(mode: &str) -> Served {
    let object = json!({
        "apiVersion": "nodemesh.dev/v1alpha1", "kind": "PeerPolicy",
        "metadata": {"name": "p", "namespace": "shop", "managedFields": [{"manager": "kubectl"}]},
        "spec": {"mode": mode}, "status": {"conditions": []},
    });
    decode(Kind::PeerPolicy, object)
}

fn complete() -> Store {
    let mut store = Store::default();
    for kind in Kind::ALL {
        assert_eq!(store.objects(), None, "before {kind:?}");
        store.apply(kind, Change::Listed(Vec::new()));
    }
    assert!(store.objects().is_some(), "every kind was listed");
    store
}

fn keys(store: &mut Store) -> Vec<String> {
    let objects = store.objects().expect("listed");
    objects.in_use.keys().map(ToString::to_string).collect()
}

#[test]
fn a_new_list_replaces_its_kind_and_no_other() {
    let mut store = complete();
    store.apply(Kind::PeerPolicy, Change::Applied(peer_policy("STRICT")));
    assert!(store.apply(Kind::Node, Change::Listed(vec![node("a"), node("b")])));
    assert!(store.apply(Kind::Node, Change::Listed(vec![node("b"), node("c")])));
    assert_eq!(keys(&mut store), ["Node b", "Node c", "PeerPolicy shop/p"]);
    assert!(!store.apply(Kind::Node, Change::Listed(vec![node("c"), node("b")])), "the same");
}

#[test]
fn what_says_nothing_new_is_no_change() {
    let mut store = complete();
    assert!(store.apply(Kind::Node, Change::Applied(node("a"))));
    let heartbeat = json!({
        "metadata": {"name": "a", "resourceVersion": "2"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        "aFieldOfTomorrow": {},
    });
    assert!(!store.apply(Kind::Node, Change::Applied(decode(Kind::Node, heartbeat))));
    assert!(store.apply(Kind::Node, Change::Deleted(node("a"))));
    assert!(!store.apply(Kind::Node, Change::Deleted(node("a"))), "twice");
}

#[test]
fn a_bad_version_is_refused_alone_and_its_last_good_version_stays() {
    let mut store = complete();
    store.apply(Kind::Node, Change::Applied(node("a")));
    store.apply(Kind::PeerPolicy, Change::Applied(peer_policy("STRICT")));
    store.apply(Kind::PeerPolicy, Change::Applied(peer_policy("NONSENSE")));
    let objects = store.objects().expect("listed");
    assert_eq!(objects.in_use.len(), 2);
    let refusals: Vec<_> = objects.refusals.iter().map(ToString::to_string).collect();
    assert_eq!(refusals.len(), 1);
    assert!(refusals[0].starts_with("PeerPolicy shop/p: spec.mode: "), "{refusals:?}");
    assert!(refusals[0].ends_with("(its last good version stays in use)"), "{refusals:?}");

    store.apply(Kind::PeerPolicy, Change::Listed(vec![peer_policy("NONSENSE")]));
    assert_eq!(keys(&mut store), ["Node a", "PeerPolicy shop/p"], "also across a new list");
    store.apply(Kind::PeerPolicy, Change::Deleted(peer_policy("NONSENSE")));
    assert_eq!(keys(&mut store), ["Node a"], "gone is gone");
    store.apply(Kind::PeerPolicy, Change::Applied(peer_policy("NONSENSE")));
    assert_eq!(keys(&mut store), ["Node a"], "never good");
}
