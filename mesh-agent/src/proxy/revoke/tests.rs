//! What a change of the snapshot does to rights that are held.

use std::future::poll_fn;

use mesh_common::{
    api::v1,
    model::{
        Action, Admission, AuthorizationPolicy, NamespacedName, PeerMode, Principal, Resource,
        Rule, Source,
    },
};

use super::*;

const WEB: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

fn identity(account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().expect("an identity")
}

fn web(policies: &[&str], admission: Admission) -> Workload {
    Workload {
        name: NamespacedName::new("shop", "web"),
        uid: "web".into(),
        node: Some("node-1".into()),
        addresses: vec![WEB],
        identity: Some(identity("web")),
        enrolled: true,
        captured: true,
        memberships: Vec::new(),
        authorization_policies: policies
            .iter()
            .map(|name| NamespacedName::new("shop", name))
            .collect(),
        admission,
    }
}

fn deny(account: &str) -> Resource {
    let principals = vec![Principal::from(identity(account))];
    let from = vec![Source { principals, ..Source::default() }];
    Resource::AuthorizationPolicy(AuthorizationPolicy {
        name: NamespacedName::new("shop", "deny"),
        action: Action::Deny,
        enforcement: Default::default(),
        service: None,
        selector: Default::default(),
        rules: vec![Rule { name: "who".into(), from, to: Vec::new() }],
    })
}

fn apply(snapshot: &Snapshot, resources: &[Resource]) {
    let wire = |it: &Resource| v1::Resource { version: 1, resource: Some(it.into()) };
    assert_eq!(snapshot.apply(resources.iter().map(wire).collect(), Vec::new()), []);
}

fn right(snapshot: &Snapshot, account: Option<&str>) -> Right {
    let callee = snapshot.workload_at(WEB).expect("web");
    let from = IpAddr::from([10, 0, 0, 1]);
    Right { source: account.map(identity), from, callee, to: SocketAddr::new(WEB, 80) }
}

/// Why `leash` was revoked; waits no longer than the promise allows.
async fn revoked(leash: &mut Leash) -> Option<String> {
    let revoked = poll_fn(|cx| leash.poll_end(cx));
    time::timeout(Duration::from_secs(1), revoked).await.ok()?;
    leash.reason.clone()
}

#[tokio::test]
async fn who_loses_the_right_is_told_why_and_nobody_else() {
    let snapshot = Arc::new(Snapshot::new());
    apply(&snapshot, &[Resource::Workload(web(&[], Admission::default()))]);
    let rights = Arc::new(LiveRights::default());
    tokio::spawn(rights.clone().follow(snapshot.clone()));
    tokio::task::yield_now().await;
    let mut batch = rights.hold(right(&snapshot, Some("batch")));
    let mut frontend = rights.hold(right(&snapshot, Some("frontend")));
    let mut plain = rights.hold(right(&snapshot, None));

    let web_denying = Resource::Workload(web(&["deny"], Admission::default()));
    apply(&snapshot, &[deny("batch"), web_denying]);
    let reason = "revoked: denied by AuthorizationPolicy shop/deny rule who";
    assert_eq!(revoked(&mut batch).await.as_deref(), Some(reason));
    assert_eq!(batch.into_reason().as_deref(), Some(reason));

    let strict = Admission { peer_mode: PeerMode::Strict, ..Admission::default() };
    apply(&snapshot, &[Resource::Workload(web(&["deny"], strict))]);
    let reason = revoked(&mut plain).await.expect("plaintext ends");
    assert!(reason.contains("port 80 is strict"), "{reason}");
    assert_eq!(revoked(&mut frontend).await, None);
    drop(frontend);
    assert!(rights.live.lock().expect(LOCK).is_empty());
}

#[tokio::test]
async fn a_pod_that_left_the_mesh_ends_nothing() {
    let snapshot = Snapshot::new();
    let denied = web(&["lost"], Admission::default());
    apply(&snapshot, &[Resource::Workload(denied.clone())]);
    let right = right(&snapshot, Some("batch"));
    assert!(right.lost(&snapshot).is_some());
    apply(&snapshot, &[Resource::Workload(Workload { enrolled: false, ..denied.clone() })]);
    assert_eq!(right.lost(&snapshot), None);
    apply(&snapshot, &[Resource::Workload(Workload { uid: "another".into(), ..denied })]);
    assert_eq!(right.lost(&snapshot), None);
}
