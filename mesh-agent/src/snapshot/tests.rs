//! The index against a slow, obvious one.

use proptest::prelude::*;

use super::*;
use mesh_common::model::{Membership, PortMapping, ServicePort};

const NODE: &str = "node-1";

fn name(at: u8) -> NamespacedName {
    NamespacedName::new("shop", &format!("it-{at}"))
}

fn address(at: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, at])
}

fn workload(at: u8) -> Workload {
    Workload {
        name: name(at),
        uid: format!("uid-{at}").into(),
        node: Some(NODE.into()),
        addresses: vec![address(at)],
        identity: Some("spiffe://cluster.local/ns/shop/sa/web".parse().expect("identity")),
        enrolled: true,
        captured: false,
        memberships: Vec::new(),
        authorization_policies: Vec::new(),
        admission: Default::default(),
    }
}

fn service(at: u8, addresses: Vec<IpAddr>) -> Service {
    let port = ServicePort { port: 80, name: "".into(), app_protocol: None };
    Service { name: name(at), addresses, ports: vec![port] }
}

fn wire(resource: &Resource) -> v1::Resource {
    v1::Resource { version: 1, resource: Some(resource.into()) }
}

fn apply(snapshot: &Snapshot, updated: &[Resource], removed: &[ResourceKey]) -> Vec<v1::Nack> {
    let removed = removed.iter().map(Into::into).collect();
    snapshot.apply(updated.iter().map(wire).collect(), removed)
}

#[test]
fn an_address_moves_in_any_order() {
    let (old, new) = (workload(1), Workload { addresses: vec![address(1)], ..workload(2) });
    let moved = Workload { addresses: vec![address(3)], ..old.clone() };
    for updated in [[new.clone(), moved.clone()], [moved, new]] {
        let snapshot = Snapshot::new();
        assert_eq!(apply(&snapshot, &[Resource::Workload(old.clone())], &[]), []);
        assert_eq!(apply(&snapshot, &updated.map(Resource::Workload), &[]), []);
        let at = |at| snapshot.workload_at(address(at)).map(|workload| workload.name.clone());
        assert_eq!((at(1), at(3)), (Some(name(2)), Some(name(1))));
    }
}

#[test]
fn a_captured_pod_keeps_its_address_from_every_other_claim() {
    let captured = Workload { captured: true, ..workload(9) };
    let pod = Workload { addresses: vec![address(9)], ..workload(1) };
    let endpoint = Workload { identity: None, enrolled: false, ..pod.clone() };
    let endpoint = Workload { name: name(0), ..endpoint };
    let snapshot = Snapshot::new();
    let owner = || snapshot.workload_at(address(9)).map(|workload| workload.name.clone());
    apply(&snapshot, &[Resource::Workload(endpoint)], &[]);
    assert_eq!(owner(), None, "what has no identity may share its address, as hostNetwork does");
    apply(&snapshot, &[Resource::Workload(pod)], &[]);
    assert_eq!(owner(), Some(name(1)));
    let captured = Resource::Workload(captured);
    apply(&snapshot, std::slice::from_ref(&captured), &[]);
    assert_eq!(owner(), Some(name(9)));
    apply(&snapshot, &[], &[captured.key()]);
    assert_eq!(owner(), Some(name(1)));
}

#[test]
fn a_bad_resource_is_refused_alone_and_its_good_version_stays() {
    let snapshot = Snapshot::new();
    apply(&snapshot, &[Resource::Workload(workload(1))], &[]);
    let mut bad = wire(&Resource::Workload(workload(1)));
    if let Some(v1::resource::Resource::Workload(workload)) = &mut bad.resource {
        workload.addresses.push(vec![1, 2, 3].into());
    }
    bad.version = 2;
    let unknown = v1::Resource { version: 1, resource: None };
    let good = wire(&Resource::Service(service(2, vec![address(200)])));
    let nacks = snapshot.apply(vec![bad, unknown, good], Vec::new());
    assert_eq!(nacks.len(), 2);
    let key = ResourceKey { kind: ResourceKind::Workload, name: name(1) };
    assert_eq!(nacks[0].key, Some((&key).into()));
    assert!(nacks[0].reason.contains("3 bytes"), "{}", nacks[0].reason);
    assert_eq!(*snapshot.workload_at(address(1)).expect("the good version"), workload(1));
    assert!(snapshot.service_at(address(200)).is_some());
    let version = |held: &v1::VersionedKey| held.key == Some((&key).into()) && held.version == 1;
    assert!(snapshot.versions().iter().any(version), "the version of what is in use");
}

#[test]
fn a_policy_that_is_not_understood_denies() {
    let snapshot = Snapshot::new();
    let policy = mesh_common::model::AuthorizationPolicy {
        name: name(7),
        action: mesh_common::model::Action::Deny,
        enforcement: Default::default(),
        service: None,
        selector: Default::default(),
        rules: Vec::new(),
    };
    let judged = Workload { authorization_policies: vec![name(7)], ..workload(1) };
    apply(
        &snapshot,
        &[Resource::AuthorizationPolicy(policy.clone()), Resource::Workload(judged.clone())],
        &[],
    );
    let request = authorization::Request { source: None, address: address(9), port: 80 };
    assert_eq!(snapshot.authorize(&judged, request), Verdict::AllowedByDefault);

    let mut newer = wire(&Resource::AuthorizationPolicy(policy));
    if let Some(v1::resource::Resource::AuthorizationPolicy(policy)) = &mut newer.resource {
        policy.revision = mesh_common::model::POLICY_REVISION + 1;
    }
    let nacks = snapshot.apply(vec![newer], Vec::new());
    assert!(nacks[0].reason.contains("upgrade the agent"), "{}", nacks[0].reason);
    assert_eq!(snapshot.authorize(&judged, request), Verdict::PolicyMissing(name(7)));
    let known = snapshot.policies_of(&judged);
    assert!(known[0].policy.is_none() && known[0].refusal == nacks[0].reason, "{known:?}");
    let key = ResourceKey { kind: ResourceKind::AuthorizationPolicy, name: name(7) };
    apply(&snapshot, &[], &[key]);
    let known = snapshot.policies_of(&judged);
    assert!(known[0].refusal.contains("not sent"), "nothing is left of it: {known:?}");
}

#[test]
fn contradictions_are_refused() {
    for (bad, reason) in [
        (Workload { addresses: vec![address(1), address(2)], ..workload(1) }, "of a family"),
        (Workload { identity: None, ..workload(1) }, "no identity"),
    ] {
        let nacks = apply(&Snapshot::new(), &[Resource::Workload(bad)], &[]);
        assert!(nacks[0].reason.contains(reason), "{}", nacks[0].reason);
    }
}

#[test]
fn followers_hear_of_changes_and_of_nothing_else() {
    let snapshot = Snapshot::new();
    let mut changed = snapshot.changed();
    snapshot.apply(vec![v1::Resource::default()], Vec::new());
    assert!(!changed.has_changed().expect("the sender lives"));
    apply(&snapshot, &[Resource::Workload(workload(1))], &[]);
    assert!(changed.has_changed().expect("the sender lives"));
    changed.mark_unchanged();
}

/// What the snapshot promises, worked out the slow way.
#[derive(Default)]
struct Obvious(Vec<Resource>);

impl Obvious {
    fn apply(&mut self, updated: &[Resource], removed: &[ResourceKey]) {
        let gone = |key: &ResourceKey| {
            removed.contains(key) || updated.iter().any(|resource| resource.key() == *key)
        };
        self.0.retain(|resource| !gone(&resource.key()));
        for (at, resource) in updated.iter().enumerate() {
            let last = !updated[at + 1..].iter().any(|later| later.key() == resource.key());
            if last {
                self.0.push(resource.clone());
            }
        }
    }

    fn workloads(&self) -> Vec<Workload> {
        let workload = |resource: &Resource| match resource {
            Resource::Workload(workload) => Some(workload.clone()),
            _ => None,
        };
        let mut workloads: Vec<_> = self.0.iter().filter_map(workload).collect();
        workloads.sort_by(|one, other| one.name.cmp(&other.name));
        workloads
    }

    fn workload_at(&self, address: IpAddr) -> Option<Workload> {
        let workloads = self.workloads();
        let has_it = |it: &&Workload| it.identity.is_some() && it.addresses.contains(&address);
        let claims = || workloads.iter().filter(has_it);
        claims().find(|it| it.captured).or_else(|| claims().next()).cloned()
    }

    fn service_at(&self, address: IpAddr) -> Option<Service> {
        let service = |resource: &Resource| match resource {
            Resource::Service(service) => Some(service.clone()),
            _ => None,
        };
        let claims = self.0.iter().filter_map(service).filter(|it| it.addresses.contains(&address));
        claims.min_by(|one, other| one.name.cmp(&other.name))
    }

    fn endpoints(&self, service: &NamespacedName, port: u16) -> Vec<(NamespacedName, u16)> {
        let mut endpoints = Vec::new();
        for workload in self.workloads() {
            for membership in workload.memberships.iter().filter(|it| it.ready) {
                for mapping in &membership.ports {
                    if membership.service == *service && mapping.service_port == port {
                        endpoints.push((workload.name.clone(), mapping.target_port));
                    }
                }
            }
        }
        endpoints.sort();
        endpoints.dedup();
        endpoints
    }
}

fn any_resource() -> impl Strategy<Value = Resource> {
    let membership = (0..3_u8, 80..82_u16, 8080..8082_u16, any::<bool>());
    let any_workload = (
        0..6_u8,
        0..4_u8,
        any::<(bool, bool, bool)>(),
        proptest::collection::vec(membership, 0..4),
    );
    let any_workload = any_workload.prop_map(|(at, ip, (pod, enrolled, captured), behind)| {
        let membership = |(service, service_port, target_port, ready)| Membership {
            service: name(service),
            ports: vec![PortMapping { service_port, target_port }],
            ready,
        };
        let identity = workload(at).identity.filter(|_| pod);
        Resource::Workload(Workload {
            addresses: vec![address(ip)],
            identity,
            enrolled: enrolled && pod,
            captured,
            memberships: behind.into_iter().map(membership).collect(),
            ..workload(at)
        })
    });
    let any_service = (0..3_u8, 100..103_u8)
        .prop_map(|(at, ip)| Resource::Service(service(at, vec![address(ip)])));
    prop_oneof![3 => any_workload, 1 => any_service]
}

type Step = (Vec<Resource>, Vec<ResourceKey>);

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let updated = proptest::collection::vec(any_resource(), 0..4);
    let removed = proptest::collection::vec(any_resource().prop_map(|it| it.key()), 0..3);
    proptest::collection::vec((updated, removed), 1..8)
}

proptest! {
    #[test]
    fn answers_as_the_obvious_one_does(steps in any_steps()) {
        let (snapshot, mut obvious) = (Snapshot::new(), Obvious::default());
        for (updated, removed) in steps {
            prop_assert_eq!(apply(&snapshot, &updated, &removed), []);
            obvious.apply(&updated, &removed);

            prop_assert_eq!(snapshot.len(), obvious.0.len());
            for ip in (0..4).chain(100..103).map(address) {
                let found = snapshot.workload_at(ip).map(|it| (*it).clone());
                prop_assert_eq!(found, obvious.workload_at(ip));
                let found = snapshot.service_at(ip).map(|it| (*it).clone());
                prop_assert_eq!(found, obvious.service_at(ip));
            }
            for (service, port) in (0..3).flat_map(|at| [(name(at), 80), (name(at), 81)]) {
                let found = snapshot.endpoints(&service, port);
                let found: Vec<_> =
                    found.into_iter().map(|(it, port)| (it.name.clone(), port)).collect();
                prop_assert_eq!(found, obvious.endpoints(&service, port));
            }
            let local: Vec<_> =
                snapshot.local_pods(NODE).iter().map(|it| (**it).clone()).collect();
            let enrolled: Vec<_> =
                obvious.workloads().into_iter().filter(|it| it.enrolled).collect();
            prop_assert_eq!(local, enrolled);
        }
        let again = Snapshot::new();
        prop_assert_eq!(again.apply(snapshot.resources(), Vec::new()), []);
        let sorted = |snapshot: &Snapshot| {
            let mut held = snapshot.versions();
            held.sort_by_key(|it| format!("{it:?}"));
            held
        };
        prop_assert_eq!(sorted(&again), sorted(&snapshot));
    }
}

#[test]
fn routes_are_found_by_who_calls_what() {
    use mesh_common::model::{PathMatch, Route, RouteKind, RouteMatch, RouteParent, RouteRule};

    let matched = RouteMatch {
        path: PathMatch::Prefix("".into()),
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    };
    let rule = RouteRule {
        name: "0".into(),
        matches: vec![matched],
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts: Default::default(),
        retry: None,
    };
    let route = |namespace: &str, kind, port| Route {
        name: NamespacedName::new(namespace, "it"),
        kind,
        created: 0,
        parents: vec![RouteParent { service: name(2), port }],
        hostnames: Vec::new(),
        rules: vec![rule.clone()],
    };
    let called = |port| SocketAddr::new(address(200), port);
    let snapshot = Snapshot::new();
    let found = |port, namespace: &str| {
        let routes = snapshot.routes_for(called(port), namespace)?;
        let headers = http::HeaderMap::new();
        let request = mesh_common::matching::route::Request {
            method: &http::Method::GET,
            path: "/",
            query: None,
            headers: &headers,
        };
        Some(routes.find(request)?.route.name.namespace.to_string())
    };
    apply(&snapshot, &[Resource::Service(service(2, vec![address(200)]))], &[]);
    assert_eq!(found(80, "shop"), None);

    let producer = Resource::Route(route("shop", RouteKind::Http, Some(80)));
    let consumer = Resource::Route(route("desk", RouteKind::Http, None));
    apply(&snapshot, &[producer.clone(), consumer.clone()], &[]);
    assert_eq!(found(80, "shop").as_deref(), Some("shop"));
    assert_eq!(found(80, "else").as_deref(), Some("shop"));
    assert_eq!(found(80, "desk").as_deref(), Some("desk"));
    assert_eq!(found(90, "else"), None, "another port");
    assert_eq!(found(90, "desk").as_deref(), Some("desk"));
    let stream = Resource::Route(route("shop", RouteKind::Tcp, Some(90)));
    apply(&snapshot, std::slice::from_ref(&stream), &[]);
    let routes = snapshot.routes_for(called(90), "else").expect("a route for connections");
    assert!(routes.are_for_connections());
    apply(&snapshot, &[], &[stream.key()]);
    let prepared = |namespace| snapshot.routes_for(called(80), namespace).expect("routes");
    assert!(Arc::ptr_eq(&prepared("shop"), &prepared("else")), "prepared once");

    // Of another kind, by the same name.
    let grpc = Resource::Route(route("desk", RouteKind::Grpc, None));
    apply(&snapshot, std::slice::from_ref(&grpc), &[]);
    assert_eq!(prepared("desk").kind(), Some(RouteKind::Grpc));
    assert_eq!((snapshot.len(), snapshot.versions().len()), (4, 4));
    let again = Snapshot::new();
    assert_eq!(again.apply(snapshot.resources(), Vec::new()), []);
    assert_eq!(again.len(), 4);

    apply(&snapshot, &[], &[consumer.key(), grpc.key()]);
    assert_eq!(found(80, "desk").as_deref(), Some("shop"));
    apply(&snapshot, &[], &[producer.key()]);
    assert_eq!(found(80, "desk"), None);
}
