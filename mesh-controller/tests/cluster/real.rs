//! A real API server: which one is asked for, and how a test leaves nothing behind on a cluster.

use std::{
    env,
    fmt::Debug,
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Pod},
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams},
    config::Kubeconfig,
};
use mesh_apiserver::{create, is_own_definition};
use mesh_controller::kubernetes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::until;

/// What a test made is known by this label, and a run that was killed is cleaned up after.
const LABEL: &str = "nodemesh.dev/test";
const SYSTEM: &str = "nodemesh-system";

/// The API server that the environment asks for.
pub enum Wanted {
    StandIn,
    /// The programs of this folder.
    Envtest(PathBuf),
    /// The cluster of KUBECONFIG.
    Cluster,
}

/// A kubeconfig is in many people's environment without a thought of tests, which make and delete
/// objects of the whole cluster: it takes a second variable.
pub fn asked_for() -> Wanted {
    let is_meant = env::var_os("NODEMESH_TEST_CLUSTER").is_some_and(|value| value == "1");
    if let Some(assets) = env::var_os("KUBEBUILDER_ASSETS") {
        return Wanted::Envtest(assets.into());
    }
    match (env::var_os("KUBECONFIG"), is_meant) {
        (Some(_), true) => Wanted::Cluster,
        (None, true) => {
            panic!("NODEMESH_TEST_CLUSTER=1 is about the cluster of KUBECONFIG: set it")
        }
        (_, false) => Wanted::StandIn,
    }
}

/// A test's turn on a real cluster: all of them use one namespace of nodemesh's.
pub struct Turn {
    kubeconfig: PathBuf,
    client: Client,
    /// Locked as long as this lives.
    _lock: File,
}

impl Turn {
    /// Waits for the turn and looks whether the cluster may be used.
    pub async fn take(dir: &Path) -> Self {
        let path = env::temp_dir().join("nodemesh-test-cluster.lock");
        let lock = File::create(&path).expect("a file to lock");
        tokio::task::block_in_place(|| lock.lock()).expect("locked");
        let config = Kubeconfig::from_env().expect("a kubeconfig").expect("KUBECONFIG is set");
        let kubeconfig = dir.join("admin.kubeconfig");
        let text = serde_json::to_string(&config).expect("JSON");
        std::fs::write(&kubeconfig, text).expect("written");
        let client = kubernetes::client(Some(&kubeconfig)).await.expect("a client");
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let there = namespaces.get_opt(SYSTEM).await.expect("the cluster of KUBECONFIG answers");
        assert!(
            there.is_none_or(|there| there.labels().contains_key(LABEL)),
            "the cluster of KUBECONFIG has a namespace {SYSTEM}: nodemesh is installed there, and \
             tests would break it; use a cluster without, or unset NODEMESH_TEST_CLUSTER"
        );
        let turn = Self { kubeconfig, client, _lock: lock };
        // What a run that was killed left.
        turn.clean_up().await;
        turn
    }

    /// Of an administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Makes an object that is known to be a test's, but for definitions of nodemesh's kinds, which
    /// stay.
    pub async fn create(&self, mut object: Value) {
        if !is_own_definition(&object) {
            object["metadata"]["labels"][LABEL] = "true".into();
        }
        create(&self.client, object).await.expect("created");
    }

    /// Deletes what tests made.
    pub async fn clean_up(&self) {
        let ours = ListParams::default().labels(LABEL);
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let left = namespaces.list(&ours).await.map(|it| it.items).unwrap_or_default();
        let left: Vec<String> = left.iter().map(ResourceExt::name_any).collect();
        for namespace in &left {
            // No kubelet ends pods of nodes that are none.
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let at_once = DeleteParams::default().grace_period(0);
            let deleted = pods.delete_collection(&at_once, &ListParams::default()).await;
            deleted.unwrap_or_else(|error| panic!("pods of {namespace} are not deleted: {error}"));
        }
        self.delete::<Node>(&ours).await;
        self.delete::<ClusterRoleBinding>(&ours).await;
        self.delete::<ClusterRole>(&ours).await;
        self.delete::<CustomResourceDefinition>(&ours).await;
        for name in left {
            let _ = namespaces.delete(&name, &DeleteParams::default()).await;
            until(&format!("the end of namespace {name}"), async || {
                tokio::time::sleep(Duration::from_millis(200)).await;
                matches!(namespaces.get_opt(&name).await, Ok(None)).then_some(())
            })
            .await;
        }
    }

    async fn delete<K>(&self, which: &ListParams)
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let deleted = api.delete_collection(&DeleteParams::default(), which).await;
        deleted.unwrap_or_else(|error| panic!("{} are not deleted: {error}", K::plural(&())));
    }
}
