//! The API server that a test talks to, and what the test puts into it.
//!
//! The controller has the rights that deploy/base gives its account, and no others; the test itself
//! is an administrator.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
    config::Kubeconfig,
};
use mesh_apiserver::{ApiServer, Envtest, Settings as ServerSettings, create};
use mesh_controller::{
    kubernetes,
    run::{Settings, Started, Starting},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{LOOPBACK, real, until};

const RBAC: &str = include_str!("../../../deploy/base/rbac-controller.yaml");

/// Where objects are.
enum Target {
    StandIn(Box<ApiServer>),
    /// A real API server that is this test's alone.
    Envtest(Envtest),
    /// A real cluster, and that no other test uses it now.
    Real(real::Turn),
}

/// An API server with nodemesh's namespace and the controller's account in it.
pub struct Cluster {
    target: Target,
    dir: TempDir,
    /// Of the controller's account.
    account: PathBuf,
    /// What the names of this test's objects end with, on a cluster that others use, too.
    suffix: String,
}

impl Cluster {
    /// One as the environment says.
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let target = match real::asked_for() {
            real::Wanted::StandIn => Target::StandIn(Box::new(stand_in(dir.path()))),
            real::Wanted::Envtest(assets) => {
                let server = Envtest::start(&assets, dir.path());
                Target::Envtest(server.unwrap_or_else(|error| panic!("{error:#}")))
            }
            real::Wanted::Cluster => Target::Real(real::Turn::take(dir.path()).await),
        };
        Self::on(target, dir).await
    }

    /// The stand-in, for a test that has it misbehave; no test where a real server is asked for.
    pub async fn that_fails() -> Option<Self> {
        if !matches!(real::asked_for(), real::Wanted::StandIn) {
            let test = std::thread::current().name().unwrap_or_default().to_owned();
            eprintln!("LEFT OUT: {test} needs an API server that fails on demand");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let target = Target::StandIn(Box::new(stand_in(dir.path())));
        Some(Self::on(target, dir).await)
    }

    async fn on(target: Target, dir: TempDir) -> Self {
        let suffix = match &target {
            Target::Real(_) => format!("-{:08x}", fastrand::u32(..)),
            _ => String::new(),
        };
        let account = dir.path().join("controller.kubeconfig");
        let this = Self { target, dir, account, suffix };
        let client = this.client().await;
        until("the API server", async || client.apiserver_version().await.ok()).await;
        this.add("v1", "Namespace", json!({"name": "nodemesh-system"}), json!({})).await;
        let objects: Vec<Value> = serde_saphyr::from_multiple(RBAC).expect("YAML");
        for object in objects {
            this.put(object).await;
        }
        let token = this.controllers_token().await;
        this.write_account(json!({"token": token}));
        this
    }

    /// The stand-in.
    pub fn server(&self) -> &ApiServer {
        match &self.target {
            Target::StandIn(server) => server,
            _ => panic!("only a test of Cluster::that_fails has the server misbehave"),
        }
    }

    /// The stand-in, if that is it.
    pub fn stand_in(&self) -> Option<&ApiServer> {
        match &self.target {
            Target::StandIn(server) => Some(server),
            _ => None,
        }
    }

    /// `name`, as this test may use it for an object.
    pub fn named(&self, name: &str) -> String {
        format!("{name}{}", self.suffix)
    }

    /// The kubeconfig of an administrator.
    pub fn admin(&self) -> PathBuf {
        match &self.target {
            Target::StandIn(server) => server.kubeconfig(),
            Target::Envtest(server) => server.kubeconfig().to_owned(),
            Target::Real(turn) => turn.kubeconfig().to_owned(),
        }
    }

    /// The client of an administrator.
    pub async fn client(&self) -> Client {
        kubernetes::client(Some(&self.admin())).await.expect("a client")
    }

    /// The client of the controller's account.
    pub async fn client_of_account(&self) -> Client {
        kubernetes::client(Some(&self.account)).await.expect("a client")
    }

    /// Adds an object with its status.
    pub async fn add(&self, api_version: &str, kind: &str, metadata: Value, rest: Value) {
        let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata});
        for (field, value) in rest.as_object().into_iter().flatten() {
            object[field] = value.clone();
        }
        self.put(object).await;
    }

    /// Adds a whole object.
    pub async fn put(&self, object: Value) {
        match &self.target {
            Target::StandIn(server) => server.add(object).expect("stored"),
            Target::Envtest(_) => {
                create(&self.client().await, object).await.expect("created");
            }
            Target::Real(turn) => turn.create(object).await,
        }
    }

    pub async fn add_node(&self, name: &str) {
        self.add("v1", "Node", json!({"name": self.named(name)}), json!({})).await;
    }

    pub async fn delete_node(&self, name: &str) {
        let nodes: Api<Node> = Api::all(self.client().await);
        nodes.delete(&self.named(name), &DeleteParams::default()).await.expect("deleted");
    }

    /// A namespace for objects of this test.
    pub async fn add_namespace(&self, name: &str, labels: Value) -> String {
        let name = self.named(name);
        let metadata = json!({"name": name, "labels": labels});
        self.add("v1", "Namespace", metadata, json!({})).await;
        name
    }

    /// Defines nodemesh's own kinds.
    pub async fn define_kinds(&self) {
        for definition in mesh_controller::crd::definitions() {
            self.put(serde_json::to_value(definition).expect("JSON")).await;
        }
    }

    pub fn settings(&self, name: &str) -> Settings {
        Settings {
            kubeconfig: Some(self.account.clone()),
            listen: LOOPBACK,
            health_listen: LOOPBACK,
            trust_domain: "cluster.local".parse().expect("a literal"),
            svid_lifetime: Duration::from_secs(3600),
            name: name.to_owned(),
            capture_patience: Duration::from_secs(1),
        }
    }

    pub async fn starting(&self, name: &str) -> Starting {
        Starting::new(self.settings(name)).await.expect("an API server is known")
    }

    pub async fn started(&self, name: &str) -> Started {
        self.starting(name).await.start().await.expect("started")
    }

    /// A new token of the controller's account.
    pub async fn controllers_token(&self) -> String {
        self.token("mesh-controller", json!({"audiences": [], "expirationSeconds": 3600})).await
    }

    /// A token of an account of nodemesh-system.
    pub async fn token(&self, account: &str, spec: Value) -> String {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await, "nodemesh-system");
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
            "spec": spec,
        });
        let request = serde_json::from_value(request).expect("a request");
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
        answer.expect("signed").status.and_then(|it| it.token).expect("a token")
    }

    /// A path for a file of this test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Has controllers that start from now on prove who they are with `user` of a kubeconfig.
    pub fn write_account(&self, user: Value) {
        let config = Kubeconfig::read_from(self.admin()).expect("a kubeconfig");
        let mut config = serde_json::to_value(config).expect("JSON");
        let current = config["current-context"].clone();
        config["users"] = json!([{"name": "controller", "user": user}]);
        for context in config["contexts"].as_array_mut().into_iter().flatten() {
            if context["name"] == current {
                context["context"]["user"] = "controller".into();
            }
        }
        std::fs::write(&self.account, config.to_string()).expect("written");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Target::Real(turn) = &self.target {
            let runtime = tokio::runtime::Handle::current();
            tokio::task::block_in_place(|| runtime.block_on(turn.clean_up()));
        }
        let refusals = self.stand_in().map(ApiServer::refusals).unwrap_or_default();
        if !std::thread::panicking() {
            assert_eq!(refusals, [] as [&str; 0], "deploy/base/rbac-controller.yaml lacks rights");
        }
    }
}

fn stand_in(dir: &Path) -> ApiServer {
    let settings = ServerSettings { rbac: true, ..ServerSettings::default() };
    ApiServer::start(LOOPBACK, dir, settings).expect("an API server")
}
