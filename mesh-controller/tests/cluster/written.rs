//! What is asked of the cluster and written into it: reviews of tokens, status, Events, captures.

use k8s_openapi::api::{
    core::v1::{Pod, ServiceAccount},
    events::v1::Event,
};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
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
async fn bound_token(cluster: &Cluster, account: &str, pod: &str) -> String {
    let client = cluster.client().await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "nodemesh-system");
    let uid = pods.get(pod).await.expect("there").metadata.uid.expect("a uid");
    let accounts: Api<ServiceAccount> = Api::namespaced(client, "nodemesh-system");
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
        "spec": {
            "audiences": ["nodemesh-controller"], "expirationSeconds": 3600,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid},
        },
    });
    let request = serde_json::from_value(request).expect("a request");
    let parameters = PostParams::default();
    let answer = accounts.create_token_request(account, &parameters, &request).await;
    answer.expect("signed").status.and_then(|it| it.token).expect("a token")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_agents_own_token_names_its_node() {
    let cluster = Cluster::new();
    cluster.add_node("node-1");
    let in_system = |name: &str| json!({"name": name, "namespace": "nodemesh-system"});
    cluster.add("v1", "ServiceAccount", in_system("mesh-agent"), json!({}));
    cluster.add("v1", "ServiceAccount", in_system("other"), json!({}));
    for (pod, account) in [("agent-1", "mesh-agent"), ("other-1", "other")] {
        let spec = json!({
            "spec": {
                "nodeName": "node-1", "serviceAccountName": account, "hostNetwork": true,
                "containers": [{"name": "app", "image": "app"}],
            },
        });
        cluster.add("v1", "Pod", in_system(pod), spec);
    }
    let started = cluster.started("controller-1").await;
    let reviewer = Reviewer::new(cluster.client().await, started.mesh().clone());
    let good = bound_token(&cluster, "mesh-agent", "agent-1").await;
    assert_eq!(reviewer.node(&good).await.as_deref(), Ok("node-1"));

    let other = bound_token(&cluster, "other", "other-1").await;
    let sign = |audiences: &[&str]| {
        cluster.server.token("nodemesh-system", "mesh-agent", audiences, 3600).expect("signed")
    };
    let refused = async |token: String| match reviewer.node(&token).await {
        Err(ReviewError::Token(error)) => error,
        answer => panic!("{answer:?}"),
    };
    assert!(matches!(refused(other).await, BadToken::Account(_)));
    assert_eq!(refused(sign(&["nodemesh-controller"])).await, BadToken::Unbound);
    assert!(matches!(refused(sign(&[])).await, BadToken::Audience(_)));
    let ended = bound_token(&cluster, "mesh-agent", "agent-1").await;
    cluster.server.expire_tokens();
    assert!(matches!(refused(ended).await, BadToken::Refused(_)));

    cluster.server.stop_listening();
    assert_eq!(reviewer.node(&good).await.as_deref(), Ok("node-1"), "reviewed a moment ago");
    let error = reviewer.node(&sign(&["nodemesh-controller"])).await.expect_err("nobody to ask");
    assert!(matches!(error, ReviewError::Api(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_carries_what_became_of_it() {
    let cluster = Cluster::new();
    for definition in mesh_controller::crd::definitions() {
        let definition = serde_json::to_value(definition).expect("JSON");
        cluster.server.add(definition).expect("stored");
    }
    cluster.add("v1", "Namespace", json!({"name": "shop"}), json!({}));
    let started = cluster.started("controller-1").await;
    let in_shop = |name: &str| json!({"name": name, "namespace": "shop"});
    // Arithmetic is beyond a schema: this block has bits behind its prefix.
    for (name, block) in [("good", "10.0.0.0/8"), ("bad", "10.0.0.1/8")] {
        let spec = json!({"spec": {"rules": [{"from": [{"ipBlocks": [block]}]}]}});
        cluster.add("nodemesh.dev/v1alpha1", "AuthorizationPolicy", in_shop(name), spec);
    }

    let client = cluster.client().await;
    let gvk = GroupVersionKind::gvk("nodemesh.dev", "v1alpha1", "AuthorizationPolicy");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "authorizationpolicies");
    let policies: Api<DynamicObject> = Api::namespaced_with(client.clone(), "shop", &resource);
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

    let events: Api<Event> = Api::namespaced(client, "shop");
    let event = until("an Event", async || {
        let events = events.list(&ListParams::default()).await.expect("listed").items;
        events.into_iter().find(|event| event.reason.as_deref() == Some("Refused"))
    })
    .await;
    assert_eq!(event.regarding.and_then(|it| it.name).as_deref(), Some("bad"));
    drop(started);
}

#[tokio::test(flavor = "multi_thread")]
async fn captures_outlive_every_controller_and_the_later_word_holds() {
    let cluster = Cluster::new();
    let labels = json!({"name": "shop", "labels": {"nodemesh.dev/mesh": "enabled"}});
    cluster.add("v1", "Namespace", labels, json!({}));
    cluster.add_node("node-1");
    let metadata = json!({"name": "a", "namespace": "shop", "uid": "u-a"});
    let pod = json!({
        "spec": {"nodeName": "node-1", "containers": [{"name": "app", "image": "app"}]},
        "status": {"podIP": "10.0.0.1"},
    });
    cluster.add("v1", "Pod", metadata, pod);
    let uncaptured = |started: &Started| started.mesh().outcomes().borrow().uncaptured.len();

    let (one, two) = (cluster.started("one").await, cluster.started("two").await);
    assert_eq!((uncaptured(&one), uncaptured(&two)), (1, 1));
    let ledger = Ledger::new(cluster.client().await, one.mesh().clone());
    let uids = || {
        one.mesh().outcomes().borrow().objects.in_use.values().find_map(|(object, _)| {
            match &**object {
                Object::Pod(pod) => Some(pod.uid.to_string()),
                _ => None,
            }
        })
    };
    let uid = uids().expect("the pod");
    let older = Report::new(Stamp::now(), []);
    let newer = Report::new(Stamp::now().next(), [uid]);
    ledger.save("node-1", &newer).await;
    // What a controller that was slow writes late.
    ledger.save("node-1", &older).await;
    for controller in [&one, &two] {
        until("captured", async || (uncaptured(controller) == 0).then_some(())).await;
    }
    drop((one, two));
    let three = cluster.started("three").await;
    assert_eq!(uncaptured(&three), 0, "before it serves anybody");
}
