//! An agent that replays deltas holds exactly what it needs.

use std::collections::BTreeSet;

use mesh_common::model::{NamespacedName, Resource, Service, Workload};
use proptest::prelude::*;

use super::*;
use crate::{
    compile::Compiled,
    view::{Picture, Scope},
};

/// The resources of a mesh where workload `n` has version `versions[n]`, absent where that is 0.
fn view(versions: &[u8]) -> View {
    let resources = versions.iter().enumerate().filter(|(_, version)| **version > 0);
    let resource = |(at, version): (usize, &u8)| {
        let name = NamespacedName::new("shop", &format!("{at:05}"));
        match at % 3 {
            0 => Resource::Service(Service {
                name,
                addresses: vec![[10, 0, 0, *version].into()],
                ports: Vec::new(),
            }),
            _ => Resource::Workload(Workload {
                name,
                uid: version.to_string().into(),
                node: Some("node".into()),
                addresses: Vec::new(),
                identity: "spiffe://cluster.local/ns/shop/sa/a".parse().ok(),
                enrolled: true,
                captured: false,
                memberships: Vec::new(),
                authorization_policies: Vec::new(),
                admission: Default::default(),
            }),
        }
    };
    let resources = resources.map(resource).map(|resource| (resource.key(), resource)).collect();
    let nodes = BTreeSet::from(["node".to_owned()]);
    Picture::new(&Compiled { resources, nodes, problems: Vec::new(), ..Compiled::default() })
        .view("node", &Scope::Whole)
}

/// What an agent makes of responses.
fn apply(agent: &mut BTreeMap<ResourceKey, u64>, responses: Vec<v1::SubscribeResponse>) {
    for response in responses {
        for resource in response.updated {
            let model = Resource::try_from(resource.resource.expect("set")).expect("valid");
            agent.insert(model.key(), resource.version);
        }
        for key in response.removed {
            let key = ResourceKey::try_from(key).expect("valid");
            assert!(agent.remove(&key).is_some(), "{key} was not held");
        }
    }
}

fn needed(view: &View) -> BTreeMap<ResourceKey, u64> {
    view.iter().map(|(key, encoded)| (key.clone(), encoded.version())).collect()
}

fn hello(agent: &BTreeMap<ResourceKey, u64>) -> Vec<v1::VersionedKey> {
    let versioned = |(key, version): (&ResourceKey, &u64)| v1::VersionedKey {
        key: Some(key.into()),
        version: *version,
    };
    agent.iter().map(versioned).collect()
}

proptest! {
    #[test]
    fn replaying_deltas_gives_the_whole_view(
        rounds in proptest::collection::vec(
            (proptest::collection::vec(0_u8..3, 12), any::<bool>()),
            1..8,
        ),
    ) {
        let mut agent = BTreeMap::new();
        let mut held = Held::default();
        for (versions, reconnects) in rounds {
            if reconnects {
                held = Held::from_hello(hello(&agent));
            }
            let view = view(&versions);
            apply(&mut agent, held.advance(&view));
            prop_assert_eq!(&agent, &needed(&view));
            prop_assert_eq!(held.advance(&view), Vec::new());
        }
    }
}

#[test]
fn responses_are_bounded() {
    let mut held = Held::default();
    let view = view(&vec![1; 2 * RESPONSE_RESOURCES + 1]);
    let responses = held.advance(&view);
    let sizes: Vec<_> = responses.iter().map(|response| response.updated.len()).collect();
    assert_eq!(sizes, [RESPONSE_RESOURCES, RESPONSE_RESOURCES, 1]);
    let removed: Vec<_> =
        held.advance(&View::new()).iter().map(|response| response.removed.len()).collect();
    assert_eq!(removed, [RESPONSE_RESOURCES, RESPONSE_RESOURCES, 1]);
}

#[test]
fn services_come_before_the_workloads_behind_them() {
    let responses = Held::default().advance(&view(&[1; 12]));
    let is_service = |resource: &v1::Resource| {
        matches!(resource.resource, Some(v1::resource::Resource::Service(_)))
    };
    let order: Vec<bool> = responses[0].updated.iter().map(is_service).collect();
    assert!(order.is_sorted_by(|a, b| a >= b), "{order:?}");
}

#[test]
fn kinds_of_a_newer_controller_are_taken_away() {
    let unknown = v1::ResourceKey {
        kind: 77,
        name: Some(v1::NamespacedName { namespace: "a".into(), name: "b".into() }),
    };
    let key = Some(unknown.clone());
    let mut held = Held::from_hello(vec![v1::VersionedKey { key, version: 1 }]);
    assert_eq!(held.advance(&View::new())[0].removed, [unknown]);
    assert_eq!(held.advance(&View::new()), []);
}
