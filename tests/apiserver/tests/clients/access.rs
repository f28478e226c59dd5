//! Who may do what: certificates, tokens, roles.

use anyhow::{Context, Result};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenReview},
    core::v1::{ConfigMap, Node, Pod, ServiceAccount},
};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use mesh_apiserver::{Failure, Settings};
use serde_json::json;

use crate::cluster::Cluster;

fn with_rbac() -> Result<Cluster> {
    Cluster::with(Settings { rbac: true, ..Settings::default() })
}

const READERS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: [''], resources: [configmaps], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: default, namespace: default}]
";

#[test]
fn roles_decide_and_errors_name_verb_and_resource() -> Result<()> {
    let cluster = with_rbac()?;
    let admin = cluster.kubectl();
    let account = cluster.kubectl_of(cluster.server.kubeconfig_of_account("default", "default")?);
    let denied = account.fails(&["get", "configmaps"])?;
    assert_eq!(
        denied,
        "Error from server (Forbidden): configmaps is forbidden: User \
         \"system:serviceaccount:default:default\" cannot list resource \"configmaps\" in API \
         group \"\" in the namespace \"default\"\n"
    );
    admin.run(&["apply", "-f", &cluster.file("readers.yaml", READERS)?])?;
    assert_eq!(account.run(&["get", "configmaps", "-o", "name"])?, "configmap/kube-root-ca.crt\n");
    assert!(account.fails(&["get", "configmaps", "-A"])?.contains("at the cluster scope"));
    assert!(account.fails(&["delete", "configmap", "kube-root-ca.crt"])?.contains("cannot delete"));

    cluster.server.expire_tokens();
    let error = account.fails(&["get", "configmaps"])?;
    assert!(error.contains("You must be logged in to the server"), "{error}");
    let stranger = cluster.kubectl_of(cluster.server.kubeconfig_of("stranger", &[])?);
    let error = stranger.fails(&["get", "nodes"])?;
    assert!(error.contains("nodes is forbidden: User \"stranger\" cannot list"), "{error}");
    Ok(())
}

/// A client with the credentials of a kubeconfig.
pub async fn client(path: std::path::PathBuf) -> Result<Client> {
    let config = Kubeconfig::read_from(path)?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

#[tokio::test]
async fn a_token_is_good_for_its_audience() -> Result<()> {
    let cluster = with_rbac()?;
    let client = client(cluster.server.kubeconfig()).await?;
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    let request: TokenRequest = serde_json::from_value(json!({
        "spec": { "audiences": ["nodemesh"], "expirationSeconds": 600 },
    }))?;
    let answer = accounts.create_token_request("default", &PostParams::default(), &request).await?;
    let token = answer.status.context("it was signed")?.token;
    for (audience, good) in [("nodemesh", true), ("other", false)] {
        let review: TokenReview = serde_json::from_value(json!({
            "metadata": {}, "spec": { "token": token, "audiences": [audience] },
        }))?;
        let reviews: Api<TokenReview> = Api::all(client.clone());
        let status = reviews.create(&PostParams::default(), &review).await?.status;
        let status = status.context("it was reviewed")?;
        assert_eq!(status.authenticated, Some(good), "{audience}: {:?}", status.error);
        let name = status.user.and_then(|user| user.username);
        let expected = good.then(|| "system:serviceaccount:default:default".to_owned());
        assert_eq!(name, expected);
    }
    Ok(())
}

#[tokio::test]
async fn a_token_ends_with_its_pod() -> Result<()> {
    let cluster = with_rbac()?;
    let client = client(cluster.server.kubeconfig()).await?;
    cluster.server.add(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "agent" },
        "spec": { "nodeName": "node-1", "containers": [{ "name": "c", "image": "i" }] },
    }))?;
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    let request: TokenRequest = serde_json::from_value(json!({ "spec": {
        "audiences": ["nodemesh"],
        "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": "agent" },
    } }))?;
    let answer = accounts.create_token_request("default", &PostParams::default(), &request).await?;
    let token = answer.status.context("it was signed")?.token;
    let review: TokenReview = serde_json::from_value(json!({
        "metadata": {}, "spec": { "token": token, "audiences": ["nodemesh"] },
    }))?;
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let status = reviews.create(&PostParams::default(), &review).await?.status;
    let user = status.and_then(|status| status.user).context("it is good")?;
    let extra = user.extra.context("it names its pod")?;
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], ["agent"]);
    assert_eq!(extra["authentication.kubernetes.io/node-name"], ["node-1"]);
    let pods: Api<Pod> = Api::default_namespaced(client);
    pods.delete("agent", &DeleteParams::default()).await?;
    let status = reviews.create(&PostParams::default(), &review).await?.status;
    assert_eq!(status.context("it was reviewed")?.authenticated, Some(false));
    Ok(())
}

#[tokio::test]
async fn failures_come_as_asked_for_and_are_counted() -> Result<()> {
    let cluster = Cluster::start()?;
    let client = client(cluster.server.kubeconfig()).await?;
    let nodes: Api<Node> = Api::all(client.clone());
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    cluster.server.fail(Failure {
        requests: 1,
        code: 500,
        retry_after: None,
        verb: Some("list".into()),
        resource: Some("nodes".into()),
    });
    maps.list(&ListParams::default()).await?;
    let error = nodes.list(&ListParams::default()).await.err().context("it was to fail")?;
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 500), "{error}");
    nodes.list(&ListParams::default()).await?;
    assert_eq!(cluster.server.count("list", "nodes"), 2);
    Ok(())
}
