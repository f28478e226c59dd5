//! What is asked of the cluster and written into it: reviews of tokens, status, Events, captures.

use k8s_openapi::{
    api::events::v1::Event,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use mesh_controller::{
    captured::{Report, Stamp},
    kubernetes::{
        captures::Ledger,
        review::{BadToken, ReviewError, Reviewer},
    },
    object::Object,
};

use super::*;

/// A token as kubelet has it signed for a pod.
pub async fn bound_token(cluster: &Cluster, account: &str, pod: &str) -> String {
    let pods: Api<Pod> = Api::namespaced(cluster.client().await, "nodemesh-system");
    let uid = pods.get(pod).await.expect("there").metadata.uid.expect("a uid");
    let spec = json!({
        "audiences": ["nodemesh-controller"], "expirationSeconds": 3600,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid},
    });
    cluster.token(account, spec).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_agents_own_token_names_its_node() {
    let cluster = Cluster::new().await;
    cluster.add_node("node-1").await;
    let in_system = |name: &str| json!({"name": name, "namespace": "nodemesh-system"});
    cluster.add("v1", "ServiceAccount", in_system("mesh-agent"), json!({})).await;
    cluster.add("v1", "ServiceAccount", in_system("other"), json!({})).await;
    for (pod, account) in [("agent-1", "mesh-agent"), ("other-1", "other")] {
        let spec = json!({
            "spec": {
                "nodeName": cluster.named("node-1"), "serviceAccountName": account, "hostNetwork": true,
                "containers": [{"name": "app", "image": "app"}],
            },
        });
        cluster.add("v1", "Pod", in_system(pod), spec).await;
    }
    let started = cluster.started("controller-1").await;
    let reviewer = Reviewer::new(cluster.client_of_account().await, started.mesh().clone());
    let good = bound_token(&cluster, "mesh-agent", "agent-1").await;
    let node = cluster.named("node-1");
    assert_eq!(reviewer.node(&good).await.as_deref(), Ok(&*node));

    let other = bound_token(&cluster, "other", "other-1").await;
    let sign = async |audiences: &[&str]| {
        let spec = json!({"audiences": audiences, "expirationSeconds": 3600});
        cluster.token("mesh-agent", spec).await
    };
    let refused = async |token: String| match reviewer.node(&token).await {
        Err(ReviewError::Token(error)) => error,
        answer => panic!("{answer:?}"),
    };
    assert!(matches!(refused(other).await, BadToken::Account(_)));
    assert_eq!(refused(sign(&["nodemesh-controller"]).await).await, BadToken::Unbound);
    assert!(matches!(refused(sign(&[]).await).await, BadToken::Audience(_)));
    let pods: Api<Pod> = Api::namespaced(cluster.client().await, "nodemesh-system");
    let ended = bound_token(&cluster, "mesh-agent", "agent-1").await;
    let at_once = kube::api::DeleteParams::default().grace_period(0);
    pods.delete("agent-1", &at_once).await.expect("deleted");
    until("the end of the token", async || {
        let pod = pods.get_opt("agent-1").await.expect("asked");
        pod.is_none().then_some(())
    })
    .await;
    assert!(matches!(refused(ended).await, BadToken::Refused(_)));

    let Some(server) = cluster.stand_in() else { return };
    let other = sign(&["nodemesh-controller"]).await;
    server.stop_listening();
    assert_eq!(reviewer.node(&good).await.as_deref(), Ok("node-1"), "reviewed a moment ago");
    let error = reviewer.node(&other).await.expect_err("nobody to ask");
    assert!(matches!(error, ReviewError::Api(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_carries_what_became_of_it() {
    let cluster = Cluster::new().await;
    cluster.define_kinds().await;
    let shop = &*cluster.add_namespace("shop", json!({})).await;
    let started = cluster.started("controller-1").await;
    let in_shop = |name: &str| json!({"name": name, "namespace": shop});
    // Arithmetic is beyond a schema: this block has bits behind its prefix.
    for (name, block) in [("good", "10.0.0.0/8"), ("bad", "10.0.0.1/8")] {
        let spec = json!({"spec": {"rules": [{"from": [{"ipBlocks": [block]}]}]}});
        cluster.add("nodemesh.dev/v1alpha1", "AuthorizationPolicy", in_shop(name), spec).await;
    }

    let client = cluster.client().await;
    let gvk = GroupVersionKind::gvk("nodemesh.dev", "v1alpha1", "AuthorizationPolicy");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "authorizationpolicies");
    let policies: Api<DynamicObject> = Api::namespaced_with(client.clone(), shop, &resource);
    let accepted = async |name: &str| {
        let object = policies.get(name).await.expect("there");
        let conditions = object.data["status"]["conditions"].as_array().cloned()?;
        conditions.into_iter().find(|condition| condition["type"] == "Accepted")
    };
    let condition = until("a status", async || accepted("good").await).await;
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("Accepted")));
    assert_eq!(condition["observedGeneration"], 1);
    let condition = until("a status", async || accepted("bad").await).await;
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("Invalid")));
    let message = condition["message"].as_str().expect("a text");
    assert!(message.starts_with("spec.rules[0].from[0].ipBlocks[0]: "), "{message}");

    let events: Api<Event> = Api::namespaced(client, shop);
    let event = until("an Event", async || {
        let events = events.list(&ListParams::default()).await.expect("listed").items;
        events.into_iter().find(|event| event.reason.as_deref() == Some("Refused"))
    })
    .await;
    assert_eq!(event.regarding.and_then(|it| it.name).as_deref(), Some("bad"));
    drop(started);
}

/// As little of a definition of the Gateway API as an API server wants: the real ones say more.
fn route_definition(kind: &str, plural: &str, version: &str) -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"type": "object", "properties": {"spec": open, "status": open}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.gateway.networking.k8s.io"),
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": "gateway.networking.k8s.io", "scope": "Namespaced",
            "names": {
                "kind": kind, "listKind": format!("{kind}List"), "plural": plural,
                "singular": kind.to_lowercase(),
            },
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}},
            }],
        },
    })
}

/// Defines kinds of routes; whether that could be done without touching others' definitions.
pub async fn define_routes(cluster: &Cluster) -> bool {
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client().await);
    let there = definitions.get_opt("httproutes.gateway.networking.k8s.io").await.expect("asked");
    if there.is_some() {
        eprintln!(
            "LEFT OUT: the cluster has definitions of the Gateway API, which stay as they are"
        );
        return false;
    }
    // TLSRoutes only in an old version.
    for (kind, plural, version) in
        [("HTTPRoute", "httproutes", "v1"), ("TLSRoute", "tlsroutes", "v1alpha2")]
    {
        cluster.put(route_definition(kind, plural, version)).await;
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_carries_our_word_beside_that_of_others() {
    let cluster = Cluster::new().await;
    if !define_routes(&cluster).await {
        return;
    }
    let shop = &*cluster.add_namespace("shop", json!({})).await;
    let in_shop = |name: &str| json!({"name": name, "namespace": shop});
    let service =
        json!({"spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 90}]}});
    cluster.add("v1", "Service", in_shop("web"), service).await;
    let parents =
        |port: u16| json!([{"group": "", "kind": "Service", "name": "web", "port": port}]);
    let other = json!({
        "parentRef": {"name": "gateway"}, "controllerName": "example.com/gateway",
        "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    });
    let route = json!({
        "spec": {"parentRefs": parents(80), "rules": [{"backendRefs": [{"name": "gone", "port": 1}]}]},
        "status": {"parents": [other]},
    });
    cluster.add("gateway.networking.k8s.io/v1", "HTTPRoute", in_shop("http"), route).await;
    let route = json!({"spec": {"parentRefs": parents(90), "rules": [{}]}});
    cluster.add("gateway.networking.k8s.io/v1alpha2", "TLSRoute", in_shop("tls"), route).await;
    let started = cluster.started("controller-1").await;

    let client = cluster.client().await;
    let api = |kind: &str, version: &str, plural: &str| -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk("gateway.networking.k8s.io", version, kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
        Api::namespaced_with(client.clone(), shop, &resource)
    };
    let (http, tls) =
        (api("HTTPRoute", "v1", "httproutes"), api("TLSRoute", "v1alpha2", "tlsroutes"));
    let entries = async |routes: &Api<DynamicObject>, name: &str, count: usize| {
        until("a status", async || {
            let object = routes.get(name).await.expect("there");
            let entries = object.data["status"]["parents"].as_array().cloned()?;
            (entries.len() == count).then_some(entries)
        })
        .await
    };
    let written = entries(&http, "http", 2).await;
    assert_eq!(written[0], other);
    assert_eq!(written[1]["controllerName"], "nodemesh.dev/controller");
    assert_eq!(written[1]["parentRef"], parents(80)[0]);
    let condition = |entry: &Value, at: usize| {
        let it = &entry["conditions"][at];
        [&it["type"], &it["status"], &it["reason"]].map(|it| it.as_str().unwrap_or("").to_owned())
    };
    assert_eq!(condition(&written[1], 0), ["Accepted", "True", "Accepted"]);
    assert_eq!(condition(&written[1], 1), ["ResolvedRefs", "False", "BackendNotFound"]);
    assert_eq!(written[1]["conditions"][0]["observedGeneration"], 1);
    let written = entries(&tls, "tls", 1).await;
    assert_eq!(condition(&written[0], 0), ["Accepted", "True", "Accepted"]);

    // It turns to a gateway alone.
    let patch = json!({"spec": {"parentRefs": [{"name": "gateway"}]}});
    let patch = kube::api::Patch::Merge(&patch);
    http.patch("http", &kube::api::PatchParams::default(), &patch).await.expect("patched");
    assert_eq!(entries(&http, "http", 1).await, [other]);
    drop(started);
}

#[tokio::test(flavor = "multi_thread")]
async fn captures_outlive_every_controller_and_the_later_word_holds() {
    let cluster = Cluster::new().await;
    let shop = &*cluster.add_namespace("shop", json!({"nodemesh.dev/mesh": "enabled"})).await;
    cluster.add_node("node-1").await;
    let metadata = json!({"name": "a", "namespace": shop});
    let pod = json!({
        "spec": {"nodeName": cluster.named("node-1"), "containers": [{"name": "app", "image": "app"}]},
        "status": {"podIP": "10.0.0.1"},
    });
    cluster.add("v1", "Pod", metadata, pod).await;
    let uncaptured = |started: &Started| started.mesh().outcomes().borrow().uncaptured.len();

    let (one, two) = (cluster.started("one").await, cluster.started("two").await);
    assert_eq!((uncaptured(&one), uncaptured(&two)), (1, 1));
    let ledger = Ledger::new(cluster.client_of_account().await, one.mesh().clone());
    let uids = || {
        one.mesh().outcomes().borrow().objects.in_use.values().find_map(|(object, _)| {
            match &**object {
                Object::Pod(pod) if &*pod.name.namespace == shop => Some(pod.uid.to_string()),
                _ => None,
            }
        })
    };
    let uid = uids().expect("the pod");
    let older = Report::new(Stamp::now(), []);
    let newer = Report::new(Stamp::now().next(), [uid]);
    let node = cluster.named("node-1");
    ledger.save(&node, &newer).await;
    // What a controller that was slow writes late.
    ledger.save(&node, &older).await;
    for controller in [&one, &two] {
        until("captured", async || (uncaptured(controller) == 0).then_some(())).await;
    }
    drop((one, two));
    let three = cluster.started("three").await;
    assert_eq!(uncaptured(&three), 0, "before it serves anybody");
}
