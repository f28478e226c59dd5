//! Addresses, names and slices that change hands: whatever order the news arrive in, an identity is
//! never another's.

use std::collections::BTreeSet;

use mesh_common::api::v1;
use serde_json::{Value, json};

use super::*;
use crate::{
    delta::Held,
    kubernetes::watch::Change,
    source::cluster::{Served, Store, decode},
    view::{Picture, Scope},
};

const ADDRESS: &str = "10.0.0.7";

/// A change as the watch of a kind brings it.
#[derive(Clone, Debug)]
enum News {
    Applied(Kind, Value),
    Deleted(Kind, Value),
}

fn cluster_pod(name: &str, uid: &str, account: &str, more: Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": uid},
        "spec": {"nodeName": "node-1", "serviceAccountName": account, "containers": []},
        "status": {"phase": "Running"},
    });
    for (pointer, value) in more.as_object().into_iter().flatten() {
        let (parent, field) = pointer.rsplit_once('/').expect("a path");
        pod.pointer_mut(parent).expect("there")[field] = value.clone();
    }
    pod
}

fn cluster_slice(service: &str, pod: &str) -> Value {
    json!({
        "metadata": {
            "name": format!("{service}-x"), "namespace": "shop",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080}],
        "endpoints": [{
            "addresses": [ADDRESS],
            "targetRef": {"kind": "Pod", "name": pod, "namespace": "shop"},
        }],
    })
}

/// A cluster as a controller and one agent come to know it.
struct World {
    store: Store,
    held: Held,
    known: BTreeMap<ResourceKey, Workload>,
    captures: Captures,
}

impl World {
    fn new() -> Self {
        let mut store = Store::default();
        for kind in Kind::ALL {
            let objects: Vec<Served> = match kind {
                Kind::Namespace => {
                    let labels = json!({"nodemesh.dev/mesh": "enabled"});
                    vec![json!({"metadata": {"name": "shop", "labels": labels}})]
                }
                Kind::Node => vec![json!({"metadata": {"name": "node-1"}})],
                Kind::Service => ["old", "new"]
                    .map(|name| {
                        json!({
                            "metadata": {"name": name, "namespace": "shop"},
                            "spec": {"clusterIP": "None", "ports": [{"port": 80}]},
                        })
                    })
                    .into(),
                _ => Vec::new(),
            }
            .into_iter()
            .map(|object| decode(kind, object))
            .collect();
            store.apply(kind, Change::Listed(objects));
        }
        let mut captures = Captures::default();
        captures.report("node-1", Report::new(Stamp::now(), ["u-old".to_owned()]));
        Self { store, held: Held::default(), known: BTreeMap::new(), captures }
    }

    fn hear(&mut self, news: &News) {
        match news {
            News::Applied(kind, object) => {
                self.store.apply(*kind, Change::Applied(decode(*kind, object.clone())));
            }
            News::Deleted(kind, object) => {
                self.store.apply(*kind, Change::Deleted(decode(*kind, object.clone())));
            }
        }
        let objects = self.store.objects().expect("listed");
        assert_eq!(objects.refusals, [], "{news:?}");
        let index = objects.in_use.values().map(|(object, _)| object).collect();
        let compiled = compile(&index, &self.captures, &"cluster.local".parse().expect("literal"));
        let view = Picture::new(&compiled).view("node-1", &Scope::Whole);
        for response in self.held.advance(&view) {
            self.take(response);
            self.check(news);
        }
    }

    /// What an agent makes of a response, which it applies as a whole.
    fn take(&mut self, response: v1::SubscribeResponse) {
        for updated in response.updated {
            let resource = Resource::try_from(updated.resource.expect("set")).expect("valid");
            if let Resource::Workload(workload) = resource {
                self.known.insert(Resource::Workload(workload.clone()).key(), workload);
            }
        }
        for removed in response.removed {
            self.known.remove(&ResourceKey::try_from(removed).expect("known"));
        }
    }

    fn check(&self, news: &News) {
        let mut owners = BTreeSet::new();
        for workload in self.known.values() {
            let account = match &*workload.uid {
                "u-old" => "old",
                _ => "new",
            };
            let identity = workload.identity.as_ref().map(ToString::to_string);
            let expected = format!("spiffe://cluster.local/ns/shop/sa/{account}");
            assert_eq!(identity.as_deref(), Some(&*expected), "after {news:?}");
            assert!(!workload.captured || &*workload.uid == "u-old", "after {news:?}");
            for address in &workload.addresses {
                assert!(owners.insert(*address), "{address} has two owners after {news:?}");
            }
            for membership in &workload.memberships {
                assert_eq!(&*membership.service.name, account, "after {news:?}");
            }
        }
    }
}

/// Every way to put `first` and `second` together, each in its own order.
fn interleavings(first: &[News], second: &[News]) -> Vec<Vec<News>> {
    match (first, second) {
        ([], rest) | (rest, []) => vec![rest.to_vec()],
        ([a, first_rest @ ..], [b, second_rest @ ..]) => {
            let with = |head: &News, tails: Vec<Vec<News>>| {
                tails.into_iter().map(|tail| [vec![head.clone()], tail].concat()).collect()
            };
            let mut all: Vec<Vec<News>> = with(a, interleavings(first_rest, second));
            let more: Vec<Vec<News>> = with(b, interleavings(first, second_rest));
            all.extend(more);
            all
        }
    }
}

/// One watch brings pods in order, another slices, and neither waits for the other.
fn all_orders(old_name: &str, new_name: &str) -> Vec<Vec<News>> {
    let with_address =
        json!({"/status/podIP": ADDRESS, "/metadata/creationTimestamp": "2026-01-01T00:00:00Z"});
    let mut leaving = with_address.clone();
    leaving["/metadata/deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
    let newer =
        json!({"/status/podIP": ADDRESS, "/metadata/creationTimestamp": "2026-01-02T00:00:00Z"});
    let old = |more: &Value| cluster_pod(old_name, "u-old", "old", more.clone());
    let new = |more: &Value| cluster_pod(new_name, "u-new", "new", more.clone());
    let old_life = [
        News::Applied(Kind::Pod, old(&with_address)),
        News::Applied(Kind::Pod, old(&leaving)),
        News::Deleted(Kind::Pod, old(&leaving)),
    ];
    let new_life =
        [News::Applied(Kind::Pod, new(&json!({}))), News::Applied(Kind::Pod, new(&newer))];
    let pods = match old_name == new_name {
        // The API server makes a name anew only after it is gone.
        true => vec![[&old_life[..], &new_life[..]].concat()],
        false => interleavings(&old_life, &new_life),
    };
    let slices = [
        News::Applied(Kind::EndpointSlice, cluster_slice("old", old_name)),
        News::Deleted(Kind::EndpointSlice, cluster_slice("old", old_name)),
        News::Applied(Kind::EndpointSlice, cluster_slice("new", new_name)),
        // A duplicate changes nothing.
        News::Applied(Kind::EndpointSlice, cluster_slice("new", new_name)),
    ];
    pods.iter().flat_map(|pods| interleavings(pods, &slices)).collect()
}

#[test]
fn an_address_that_is_given_anew_never_mixes_identities() {
    let orders = all_orders("a", "b");
    assert!(orders.len() > 1000, "{}", orders.len());
    for order in orders {
        let mut world = World::new();
        for news in &order {
            world.hear(news);
        }
        let names: Vec<_> = world.known.values().map(|it| it.name.to_string()).collect();
        assert_eq!(names, ["shop/b"], "{order:?}");
        let workload = world.known.values().next().expect("one");
        assert_eq!(workload.addresses, [ADDRESS.parse::<IpAddr>().expect("a literal")]);
        assert_eq!(workload.memberships.len(), 1, "{order:?}");
    }
}

#[test]
fn an_address_is_that_of_the_pod_that_stays() {
    let mut world = World::new();
    let old =
        json!({"/status/podIP": ADDRESS, "/metadata/creationTimestamp": "2026-01-01T00:00:00Z"});
    let mut leaving = old.clone();
    leaving["/metadata/deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
    let newer =
        json!({"/status/podIP": ADDRESS, "/metadata/creationTimestamp": "2026-01-02T00:00:00Z"});
    let names = |world: &World| -> Vec<String> {
        world.known.values().map(|it| it.name.to_string()).collect()
    };
    world.hear(&News::Applied(Kind::Pod, cluster_pod("a", "u-old", "old", old)));
    world.hear(&News::Applied(Kind::Pod, cluster_pod("b", "u-new", "new", newer)));
    assert_eq!(names(&world), ["shop/a"], "whose it was");
    world.hear(&News::Applied(Kind::Pod, cluster_pod("a", "u-old", "old", leaving)));
    assert_eq!(names(&world), ["shop/b"], "its node gave the address anew");
}

#[test]
fn a_pod_that_comes_back_under_its_name_is_captured_anew() {
    // The same name and address: memberships of the new pod cannot be told from the old one's by a
    // slice that names the pod, so both Services are the same here.
    let with_address = json!({"/status/podIP": ADDRESS});
    let old = cluster_pod("web-0", "u-old", "old", with_address.clone());
    let new = cluster_pod("web-0", "u-new", "new", with_address);
    let mut world = World::new();
    world.hear(&News::Applied(Kind::Pod, old.clone()));
    assert!(world.known.values().all(|workload| workload.captured));
    // A watch that was cut may miss the end of the first.
    world.hear(&News::Applied(Kind::Pod, new));
    let workload = world.known.values().next().expect("one");
    assert_eq!((&*workload.uid, workload.captured), ("u-new", false));
}

#[test]
fn what_keeps_a_pod_out_is_told_and_may_come_and_go() {
    let ambient = json!({
        "/status/podIP": ADDRESS,
        "/metadata/annotations": {"ambient.istio.io/redirection": "enabled"},
    });
    let free = json!({"/status/podIP": ADDRESS});
    let mut world = World::new();
    let enrolled = |world: &World| world.known.values().map(|it| it.enrolled).collect::<Vec<_>>();
    for _ in 0..2 {
        let pod = |more: &Value| cluster_pod("a", "u-old", "old", more.clone());
        world.hear(&News::Applied(Kind::Pod, pod(&free)));
        assert_eq!(enrolled(&world), [true]);
        world.hear(&News::Applied(Kind::Pod, pod(&ambient)));
        assert_eq!(enrolled(&world), [false]);
    }
}
