//! Which node sees what.

use mesh_common::model::{Action, AuthorizationPolicy};

use super::*;

fn workload(name: &str, node: &str, enrolled: bool, policies: &[&str]) -> Resource {
    Resource::Workload(Workload {
        name: NamespacedName::new("shop", name),
        uid: name.into(),
        node: Some(node.into()),
        addresses: Vec::new(),
        identity: format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().ok(),
        enrolled,
        captured: false,
        memberships: Vec::new(),
        authorization_policies: policies
            .iter()
            .map(|name| NamespacedName::new("shop", name))
            .collect(),
        admission: Default::default(),
    })
}

fn policy(name: &str) -> Resource {
    let name = NamespacedName::new("shop", name);
    let (action, rules) = (Action::Allow, Vec::new());
    Resource::AuthorizationPolicy(AuthorizationPolicy {
        name,
        action,
        enforcement: Default::default(),
        service: None,
        selector: Default::default(),
        rules,
    })
}

fn at(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn addresses(last: &[u8]) -> Scope {
    Scope::Addresses(last.iter().copied().map(at).collect())
}

fn picture() -> Picture {
    let service = mesh_common::model::Service {
        name: NamespacedName::new("shop", "web"),
        addresses: Vec::new(),
        ports: Vec::new(),
    };
    let resources = [
        workload("a", "node-1", true, &["pa"]),
        workload("b", "node-2", true, &["pb"]),
        workload("c", "node-3", false, &[]),
        workload("d", "unknown", true, &["pb"]),
        policy("pa"),
        policy("pb"),
        policy("unused"),
        Resource::Service(service),
    ];
    Picture::new(&Compiled {
        resources: resources.into_iter().map(|resource| (resource.key(), resource)).collect(),
        nodes: ["node-1", "node-2", "node-3"].map(str::to_owned).into(),
        ..Compiled::default()
    })
}

fn names(view: &View) -> Vec<String> {
    view.keys().map(|key| format!("{} {}", key.kind, key.name.name)).collect()
}

#[test]
fn a_node_in_the_mesh_sees_everything_but_the_policies_of_others() {
    let view = picture().view("node-1", &Scope::Whole);
    assert_eq!(
        names(&view),
        [
            "Workload a",
            "Workload b",
            "Workload c",
            "Workload d",
            "Service web",
            "AuthorizationPolicy pa"
        ]
    );
    let policies_of = |name: &str| {
        let encoded = view.iter().find(|(key, _)| &*key.name.name == name).expect(name).1;
        match &encoded.wire.resource {
            Some(v1::resource::Resource::Workload(workload)) => {
                workload.authorization_policies.len()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(policies_of("a"), 1);
    assert_eq!(policies_of("b"), 0);
}

/// A route of `namespace` from s-4 to s-5.
fn route(namespace: &str) -> Resource {
    use mesh_common::model::{Backend, BackendTarget, Route, RouteKind, RouteParent, RouteRule};
    let service = |number: u8| NamespacedName::new("shop", &format!("s-{number}"));
    let target = BackendTarget::Service { name: service(5), port: 80 };
    Resource::Route(Route {
        name: NamespacedName::new(namespace, "r"),
        kind: RouteKind::Http,
        created: 0,
        parents: vec![RouteParent { service: service(4), port: None }],
        hostnames: Vec::new(),
        rules: vec![RouteRule {
            name: "0".into(),
            matches: Vec::new(),
            filters: Vec::new(),
            backends: vec![Backend { target, weight: 1, filters: Vec::new() }],
            timeouts: Default::default(),
            retry: None,
        }],
    })
}

/// A mesh of `services` Services with three pods each, on `services` nodes.
fn cluster(services: u8) -> Picture {
    cluster_with(services, Vec::new())
}

fn cluster_with(services: u8, mut resources: Vec<Resource>) -> Picture {
    for number in 0..services {
        let service = mesh_common::model::Service {
            name: NamespacedName::new("shop", &format!("s-{number}")),
            addresses: vec![at(number)],
            ports: Vec::new(),
        };
        for pod in 0..3 {
            let name = format!("p-{number}-{pod}");
            let Resource::Workload(workload) = workload(&name, "", true, &["pa"]) else { continue };
            resources.push(Resource::Workload(Workload {
                node: Some(format!("node-{}", (number + pod) % services).into()),
                addresses: vec![[10, 1, number, pod].into()],
                memberships: vec![mesh_common::model::Membership {
                    service: service.name.clone(),
                    ports: Vec::new(),
                    ready: pod > 0,
                }],
                ..workload
            }));
        }
        resources.push(Resource::Service(service));
    }
    resources.push(policy("pa"));
    Picture::new(&Compiled {
        resources: resources.into_iter().map(|resource| (resource.key(), resource)).collect(),
        nodes: (0..services).map(|number| format!("node-{number}")).collect(),
        ..Compiled::default()
    })
}

#[test]
fn an_idle_node_sees_its_own_pods_however_large_the_cluster() {
    let own = ["Workload p-0-2", "Workload p-1-1", "Workload p-2-0", "AuthorizationPolicy pa"];
    for services in [3, 200] {
        let view = cluster(services).view("node-2", &addresses(&[]));
        assert_eq!(names(&view), own, "of {services}");
    }
}

#[test]
fn a_called_address_brings_what_has_it_and_a_service_all_that_stand_behind_it() {
    let picture = cluster(9);
    let own = ["Workload p-0-0", "Workload p-7-2", "Workload p-8-1"];
    let seen = |scope: &Scope| {
        let mut names = names(&picture.view("node-0", scope));
        names.retain(|name| !own.contains(&name.as_str()) && !name.starts_with("Auth"));
        names
    };
    let behind = ["Workload p-4-0", "Workload p-4-1", "Workload p-4-2", "Service s-4"];
    assert_eq!(seen(&addresses(&[4])), behind, "those that are not ready as well");
    assert_eq!(seen(&addresses(&[99])), [] as [&str; 0]);
    let pod = Scope::Addresses([[10, 1, 5, 1].into()].into());
    assert_eq!(seen(&pod), ["Workload p-5-1"]);
    let key = |kind, name| ResourceKey { kind, name: NamespacedName::new("shop", name) };
    let view = picture.view("node-0", &pod);
    match &view[&key(ResourceKind::Workload, "p-5-1")].wire.resource {
        Some(v1::resource::Resource::Workload(it)) => assert_eq!(it.authorization_policies, []),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_called_service_brings_its_routes_and_where_they_lead() {
    let routed = ["HTTPRoute r", "Workload p-4-0", "Workload p-5-0", "Service s-4", "Service s-5"];
    let seen = |route: Resource, scope: &Scope| {
        let names = names(&cluster_with(9, vec![route]).view("node-0", scope));
        routed.map(|wanted| names.iter().filter(|name| *name == wanted).count())
    };
    assert_eq!(seen(route("shop"), &addresses(&[4])), [1, 1, 1, 1, 1]);
    assert_eq!(seen(route("shop"), &addresses(&[5])), [0, 0, 1, 0, 1], "routes do not chain");
    assert_eq!(seen(route("desk"), &addresses(&[4])), [0, 1, 0, 1, 0], "of no pod of this node");
    assert_eq!(seen(route("shop"), &Scope::Whole)[0], 0, "older agents know none");
}

#[test]
fn a_node_outside_sees_its_own_pods_and_an_unknown_one_nothing() {
    let picture = picture();
    assert_eq!(names(&picture.view("node-3", &Scope::Whole)), ["Workload c"]);
    assert_eq!(names(&picture.view("unknown", &Scope::Whole)), [] as [&str; 0]);
    assert_eq!(names(&picture.view("other", &Scope::Whole)), [] as [&str; 0]);
    assert!(picture.knows("node-3") && !picture.knows("unknown"));
}

#[test]
fn identities_are_those_of_enrolled_pods_on_the_node() {
    let picture = picture();
    let id = |name: &str| {
        format!("spiffe://cluster.local/ns/shop/sa/{name}")
            .parse::<SpiffeId>()
            .expect("an identity")
    };
    assert!(picture.runs("node-1", &id("a")));
    assert!(!picture.runs("node-1", &id("b")), "another node's");
    assert!(!picture.runs("node-3", &id("c")), "not enrolled");
    assert!(!picture.runs("unknown", &id("d")), "no Node object");
    let elsewhere = "spiffe://other.domain/ns/shop/sa/a".parse().expect("an identity");
    assert!(!picture.runs("node-1", &elsewhere));
}

#[test]
fn a_version_is_the_content() {
    let version = |resource: &Resource| Encoded::new(resource).version();
    let one = version(&workload("a", "node-1", true, &["pa"]));
    assert_eq!(one, version(&workload("a", "node-1", true, &["pa"])));
    assert_ne!(one, version(&workload("a", "node-1", false, &["pa"])));
    // Fixed: agents come back with versions from before an upgrade of the controller.
    assert_eq!(version(&policy("pa")), 13_767_415_655_638_306_537);
}
