//! What agents say, as it reaches the objects of the cluster: an agent's side of the stream, over
//! gRPC with the token of its pod.

use k8s_openapi::api::events::v1::Event;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use mesh_common::api::v1::{
    self, controller_client::ControllerClient, subscribe_request::Message, uncaptured_pod::State,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request,
    transport::{Certificate, ClientTlsConfig, Endpoint},
};

use super::{written::bound_token, *};

struct Agent {
    requests: mpsc::Sender<v1::SubscribeRequest>,
    responses: tonic::Streaming<v1::SubscribeResponse>,
}

impl Agent {
    /// The agent of node-1, with its first answer behind it.
    async fn join(cluster: &Cluster, address: SocketAddr) -> Self {
        let token = bound_token(cluster, "mesh-agent", "agent-1").await;
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client().await, "nodemesh-system");
        let bundle = maps.get("nodemesh-trust-bundle").await.expect("published");
        let root = bundle.data.expect("data").remove("root.crt").expect("a root");
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(root))
            .domain_name("mesh-controller");
        let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("an address");
        let channel = endpoint.tls_config(tls).expect("TLS").connect().await.expect("connected");
        let (requests, receiver) = mpsc::channel(8);
        let mut request = Request::new(ReceiverStream::new(receiver));
        let header = format!("Bearer {token}").parse().expect("ASCII");
        request.metadata_mut().insert("authorization", header);
        let hello = v1::Hello { agent_version: "0.9.9".into(), ..v1::Hello::default() };
        let message = v1::SubscribeRequest { message: Some(Message::Hello(hello)) };
        requests.send(message).await.expect("open");
        let answer = ControllerClient::new(channel).subscribe(request).await.expect("accepted");
        let mut agent = Self { requests, responses: answer.into_inner() };
        agent.responses.message().await.expect("no error").expect("a response");
        agent
    }

    async fn say(&self, message: Message) {
        let request = v1::SubscribeRequest { message: Some(message) };
        self.requests.send(request).await.expect("open");
    }

    async fn refuse(&self, kind: v1::ResourceKind, namespace: &str, name: &str) {
        let name = v1::NamespacedName { namespace: namespace.into(), name: name.into() };
        let key = v1::ResourceKey { kind: kind.into(), name: Some(name) };
        let nack = v1::Nack { key: Some(key), reason: "this agent is too old".into() };
        self.say(Message::Ack(v1::Ack { nonce: 1, nacks: vec![nack] })).await;
    }
}

/// A node with an agent, and a namespace in the mesh with these pods on that node.
pub async fn cluster_with(pods: &[&str]) -> (Cluster, String) {
    let cluster = Cluster::new().await;
    cluster.define_kinds().await;
    cluster.add_node("node-1").await;
    let in_system = |name: &str| json!({"name": name, "namespace": "nodemesh-system"});
    cluster.add("v1", "ServiceAccount", in_system("mesh-agent"), json!({})).await;
    let containers = json!([{"name": "app", "image": "app"}]);
    let node = cluster.named("node-1");
    let agent = json!({
        "nodeName": node, "serviceAccountName": "mesh-agent", "hostNetwork": true,
        "containers": containers,
    });
    cluster.add("v1", "Pod", in_system("agent-1"), json!({"spec": agent})).await;
    let shop = cluster.add_namespace("shop", json!({"nodemesh.dev/mesh": "enabled"})).await;
    for (at, name) in pods.iter().enumerate() {
        let metadata = json!({"name": name, "namespace": shop, "labels": {"app": name}});
        let pod = json!({
            "spec": {"nodeName": node, "containers": containers},
            "status": {"podIP": format!("10.0.0.{}", at + 1)},
        });
        cluster.add("v1", "Pod", metadata, pod).await;
    }
    (cluster, shop)
}

async fn serving(cluster: &Cluster) -> SocketAddr {
    let started = cluster.started("controller-1").await;
    let address = started.address().expect("an address");
    tokio::spawn(started.serve(std::future::pending()));
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_says_why_it_is_not_captured_or_that_it_bypasses_the_mesh() {
    let (cluster, shop) = cluster_with(&["broken", "let-out", "silent"]).await;
    let agent = Agent::join(&cluster, serving(&cluster).await).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client().await, &shop);
    let mut uncaptured = Vec::new();
    for (name, state, reason, until) in [
        ("broken", State::Failed, "no such network namespace", 0),
        ("let-out", State::Bypassed, "", 1_900_000_000),
    ] {
        let uid = pods.get(name).await.expect("there").metadata.uid.expect("a uid");
        uncaptured.push(v1::UncapturedPod {
            workload_uid: uid,
            state: state.into(),
            reason: reason.into(),
            until,
        });
    }
    let report = v1::CaptureReport { uncaptured, ..v1::CaptureReport::default() };
    agent.say(Message::Captures(report)).await;
    let events: Api<Event> = Api::namespaced(cluster.client().await, &shop);
    let said = async |pod: &str, text: &str| {
        until(&format!("{pod}: {text}"), async || {
            let events = events.list(&ListParams::default()).await.expect("listed").items;
            let event = events.into_iter().find(|event| {
                event.regarding.as_ref().is_some_and(|it| it.name.as_deref() == Some(pod))
                    && event.note.as_deref().is_some_and(|note| note.contains(text))
            })?;
            event.reason
        })
        .await
    };
    let text = "the agent (version 0.9.9) says: no such network namespace";
    assert_eq!(said("broken", text).await, "NotCaptured");
    assert_eq!(said("let-out", "bypasses the mesh until 2030-03-17T17:46:40Z").await, "Bypassed");
    assert_eq!(said("silent", "says nothing of it").await, "NotCaptured");

    // Another controller, that this agent never spoke to, says the same.
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client().await, "nodemesh-system");
    let map = maps.get(&format!("captures.{}", cluster.named("node-1"))).await.expect("kept");
    let data = map.data.expect("data");
    assert_eq!(data["agentVersion"], "0.9.9");
    assert!(data["missed"].contains("no such network namespace"), "{data:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_refuses_is_in_the_status_of_its_object_and_stops_nothing_else() {
    let (cluster, shop) = cluster_with(&["web", "other"]).await;
    if !written::define_routes(&cluster).await {
        return;
    }
    let in_shop = |name: &str| json!({"name": name, "namespace": shop});
    for (name, mode) in [("web", "STRICT"), ("other", "STRICT")] {
        let spec = json!({"mode": mode, "selector": {"matchLabels": {"app": name}}});
        let spec = json!({"spec": spec});
        cluster.add("nodemesh.dev/v1alpha1", "PeerPolicy", in_shop(name), spec).await;
    }
    let ports = json!({"spec": {"ports": [{"port": 80}]}});
    cluster.add("v1", "Service", in_shop("web"), ports).await;
    for name in ["bad", "good"] {
        let parent = json!({"group": "", "kind": "Service", "name": "web"});
        let path = json!({"path": {"type": "PathPrefix", "value": format!("/{name}")}});
        let backends = json!([{"name": "web", "port": 80}]);
        let rules = json!([{"matches": [path], "backendRefs": backends}]);
        let spec = json!({"spec": {"parentRefs": [parent], "rules": rules}});
        cluster.add("gateway.networking.k8s.io/v1", "HTTPRoute", in_shop(name), spec).await;
    }
    let agent = Agent::join(&cluster, serving(&cluster).await).await;
    let client = cluster.client().await;
    let condition = async |group: &str, kind: &str, name: &str, wanted: (&str, &str)| {
        let (version, plural, of) = match kind {
            "PeerPolicy" => ("v1alpha1", "peerpolicies", "/status/conditions"),
            _ => ("v1", "httproutes", "/status/parents/0/conditions"),
        };
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &shop, &resource);
        until(&format!("{kind} {name}: {wanted:?}"), async || {
            let object = api.get(name).await.expect("there");
            let conditions = object.data.pointer(of)?.as_array().cloned()?;
            let condition = conditions.into_iter().find(|it| {
                (it["type"].as_str(), it["status"].as_str()) == (Some(wanted.0), Some(wanted.1))
            })?;
            condition["message"].as_str().map(str::to_owned)
        })
        .await
    };
    let routes = "gateway.networking.k8s.io";
    let of_route = "nodemesh.dev/Programmed";
    for name in ["bad", "good"] {
        condition(routes, "HTTPRoute", name, (of_route, "True")).await;
    }
    condition("nodemesh.dev", "PeerPolicy", "web", ("Programmed", "True")).await;

    agent.refuse(v1::ResourceKind::HttpRoute, &shop, "bad").await;
    agent.refuse(v1::ResourceKind::Workload, &shop, "web").await;
    let node = cluster.named("node-1");
    let message = condition(routes, "HTTPRoute", "bad", (of_route, "False")).await;
    assert_eq!(message, format!("node {node}: this agent is too old"));
    let message = condition("nodemesh.dev", "PeerPolicy", "web", ("Programmed", "False")).await;
    assert_eq!(message, format!("node {node}: pod {shop}/web: this agent is too old"));
    // The others go on, and so does what is written from now on.
    condition(routes, "HTTPRoute", "good", (of_route, "True")).await;
    condition("nodemesh.dev", "PeerPolicy", "other", ("Programmed", "True")).await;
    let spec = json!({"spec": {"mode": "PERMISSIVE"}});
    cluster.add("nodemesh.dev/v1alpha1", "PeerPolicy", in_shop("new"), spec).await;
    condition("nodemesh.dev", "PeerPolicy", "new", ("Programmed", "True")).await;
}
