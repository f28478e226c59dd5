//! How long it takes to compile a cluster of 10,000 pods, and what an agent gets of it: `cargo run -p mesh-controller --example
//! compile_time [PODS]`.

use std::time::Instant;

use mesh_controller::{
    captured::{Captures, Report, Stamp},
    compile::compile,
    kubernetes::watch::Change,
    object::Kind,
    source::cluster::{Served, Store, decode},
    view::{Picture, Scope},
};
use serde_json::{Value, json};

/// Pods behind one Service, and pods of one node.
const A_SERVICE: usize = 20;
const A_NODE: usize = 50;
const ROUNDS: usize = 5;

fn main() {
    let pods = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let started = Instant::now();
    let mut store = Store::default();
    for kind in Kind::ALL {
        let objects = objects(kind, pods).into_iter().map(|object| decode(kind, object));
        store.apply(kind, Change::Listed(objects.collect::<Vec<Served>>()));
    }
    println!("decoded in {:?}", started.elapsed());
    let mut captures = Captures::default();
    for node in 0..pods.div_ceil(A_NODE) {
        let uids = (node * A_NODE..(node + 1) * A_NODE).map(|at| format!("u-{at}"));
        captures.report(&format!("node-{node}"), Report::new(Stamp::now(), uids));
    }
    let trust_domain = "cluster.local".parse().expect("a literal");
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let Some(objects) = store.objects() else { return };
        let merged = started.elapsed();
        let index = objects.in_use.values().map(|(object, _)| object).collect();
        let compiled = compile(&index, &captures, &trust_domain);
        let compiled_in = started.elapsed() - merged;
        let picture = Picture::new(&compiled);
        let encoded = started.elapsed() - merged - compiled_in;
        println!(
            "{} objects: merged in {merged:?}, compiled in {compiled_in:?}, encoded in {encoded:?}",
            objects.in_use.len(),
        );
        let called = |services: usize| {
            let addresses = (0..services).filter_map(|at| address(96, at + 1).parse().ok());
            Scope::Addresses(addresses.collect())
        };
        for (who, scope) in [
            ("an agent that gets the whole mesh", Scope::Whole),
            ("one whose pods call nobody", called(0)),
            ("one whose pods call 10 Services", called(10)),
        ] {
            let view = picture.view("node-0", &scope);
            let bytes: usize = view.values().map(|encoded| encoded.bytes).sum();
            println!("  {who} holds {} resources of {bytes} bytes", view.len());
        }
    }
}

fn address(net: usize, at: usize) -> String {
    format!("10.{}.{}.{}", net + at / 65536, at / 256 % 256, at % 256)
}

fn objects(kind: Kind, pods: usize) -> Vec<Value> {
    let namespaced = |name: String| json!({"name": name, "namespace": "shop", "uid": "u"});
    let services = pods.div_ceil(A_SERVICE);
    match kind {
        Kind::Namespace => {
            let labels = json!({"nodemesh.dev/mesh": "enabled"});
            vec![json!({"metadata": {"name": "shop", "labels": labels}})]
        }
        Kind::Node => (0..pods.div_ceil(A_NODE))
            .map(|at| json!({"metadata": {"name": format!("node-{at}")}}))
            .collect(),
        Kind::Pod => (0..pods)
            .map(|at| {
                json!({
                    "metadata": {
                        "name": format!("pod-{at}"), "namespace": "shop", "uid": format!("u-{at}"),
                        "labels": {"app": format!("app-{}", at / A_SERVICE)},
                    },
                    "spec": {
                        "nodeName": format!("node-{}", at / A_NODE),
                        "serviceAccountName": format!("account-{}", at / A_SERVICE),
                        "containers": [{"name": "app", "image": "app"}],
                    },
                    "status": {"phase": "Running", "podIP": address(0, at + 1)},
                })
            })
            .collect(),
        Kind::Service => (0..services)
            .map(|at| {
                let spec = json!({"clusterIP": address(96, at + 1), "ports": [{"port": 80}]});
                json!({"metadata": namespaced(format!("app-{at}")), "spec": spec})
            })
            .collect(),
        Kind::EndpointSlice => (0..services)
            .map(|at| {
                let endpoints: Vec<Value> = (at * A_SERVICE..((at + 1) * A_SERVICE).min(pods))
                    .map(|pod| {
                        let target = json!({"kind": "Pod", "name": format!("pod-{pod}")});
                        json!({"addresses": [address(0, pod + 1)], "targetRef": target})
                    })
                    .collect();
                let mut metadata = namespaced(format!("app-{at}-x"));
                metadata["labels"] = json!({"kubernetes.io/service-name": format!("app-{at}")});
                json!({
                    "metadata": metadata, "addressType": "IPv4",
                    "ports": [{"name": "", "port": 8080}], "endpoints": endpoints,
                })
            })
            .collect(),
        Kind::AuthorizationPolicy => (0..services)
            .map(|at| {
                let selector = json!({"matchLabels": {"app": format!("app-{at}")}});
                let rules = json!([{"from": [{"namespaces": ["shop"]}]}]);
                json!({
                    "metadata": namespaced(format!("app-{at}")),
                    "spec": {"selector": selector, "rules": rules},
                })
            })
            .collect(),
        _ => Vec::new(),
    }
}
