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
        problems: Vec::new(),
    })
}

fn names(view: &View) -> Vec<String> {
    view.keys().map(|key| format!("{} {}", key.kind, key.name.name)).collect()
}

#[test]
fn a_node_in_the_mesh_sees_everything_but_the_policies_of_others() {
    let view = picture().view("node-1");
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

#[test]
fn a_node_outside_sees_its_own_pods_and_an_unknown_one_nothing() {
    let picture = picture();
    assert_eq!(names(&picture.view("node-3")), ["Workload c"]);
    assert_eq!(names(&picture.view("unknown")), [] as [&str; 0]);
    assert_eq!(names(&picture.view("other")), [] as [&str; 0]);
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
