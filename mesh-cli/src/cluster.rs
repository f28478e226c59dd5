//! The cluster that a kubeconfig leads to, as commands ask it.

use std::{fmt, path::PathBuf};

use anyhow::{Context, anyhow};
use http::{Method, Request, header};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::{AttachParams, AttachedProcess},
    config::{KubeConfigOptions, Kubeconfig},
};
use mesh_common::SYSTEM_NAMESPACE;
use serde_json::Value;

/// Who says, in `managedFields`, that fields are what we applied.
pub const FIELD_MANAGER: &str = "nodemesh";
/// Objects are listed in parts of this size, as kubectl does.
const PART: usize = 500;

/// Which cluster is meant.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ClusterArgs {
    /// The kubeconfig [default: KUBECONFIG, ~/.kube/config, or this pod's service account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// An API server and how to ask it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

impl ClusterArgs {
    /// Whether one is named, in whatever way.
    pub fn is_named(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    /// Whether one is named, or where kubectl looks there is one.
    pub fn is_known(&self) -> bool {
        self.is_named() || Kubeconfig::read().is_ok() || Config::incluster().is_ok()
    }

    /// A client of the cluster; whether it answers shows with the first question.
    ///
    /// # Errors
    /// Where nothing says which cluster, or what says so makes no sense.
    pub async fn connect(&self) -> anyhow::Result<Cluster> {
        let options = KubeConfigOptions { context: self.context.clone(), ..Default::default() };
        let mut config = match (&self.kubeconfig, &self.context) {
            (Some(path), _) => {
                let file = Kubeconfig::read_from(path)
                    .with_context(|| format!("--kubeconfig {}", path.display()))?;
                Config::from_custom_kubeconfig(file, &options).await.context("--kubeconfig")?
            }
            (None, Some(_)) => Config::from_kubeconfig(&options).await.context("--context")?,
            (None, None) => Config::infer()
                .await
                .context("no cluster is known: name a file with --kubeconfig or in KUBECONFIG")?,
        };
        config.connect_timeout = Some(std::time::Duration::from_secs(5));
        // Who asks decides what a refusal means, and waits no minute to hear it.
        config.default_retry = false;
        Ok(Cluster { client: Client::try_from(config).context("the kubeconfig makes no client")? })
    }
}

impl Cluster {
    /// What is at `path`; `None` where there is nothing.
    ///
    /// # Errors
    /// Where the server refuses or is not reached.
    pub async fn get(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let request = Request::get(path).body(Vec::new())?;
        match self.client.request(request).await {
            Ok(value) => Ok(Some(value)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(explain("get", path, error)),
        }
    }

    /// Every object of the collection at `path`; none where the cluster does not know the kind.
    ///
    /// # Errors
    /// Where the server refuses or is not reached.
    pub async fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut next = String::new();
        loop {
            let part = self.get(&format!("{path}?limit={PART}{next}")).await?;
            let Some(mut part) = part else { return Ok(items) };
            // Items of a list name neither: they are those of the list.
            let api_version = part["apiVersion"].clone();
            let kind = part["kind"].as_str().and_then(|it| it.strip_suffix("List"));
            let kind = kind.map(str::to_owned);
            if let Value::Array(list) = part["items"].take() {
                items.extend(list.into_iter().map(|mut item| {
                    if let (Some(kind), true) = (&kind, item["kind"].is_null()) {
                        item["kind"] = kind.clone().into();
                        item["apiVersion"] = api_version.clone();
                    }
                    item
                }));
            }
            match part["metadata"]["continue"].as_str() {
                Some(more) if !more.is_empty() => next = format!("&continue={}", escaped(more)),
                _ => return Ok(items),
            }
        }
    }

    /// The text at `path`, such as a log.
    ///
    /// # Errors
    /// Where the server refuses or is not reached.
    pub async fn text(&self, path: &str) -> anyhow::Result<String> {
        let request = Request::get(path).body(Vec::new())?;
        self.client.request_text(request).await.map_err(|error| explain("get", path, error))
    }

    /// Applies `object` at `path` on the server, taking over fields that others set.
    ///
    /// # Errors
    /// Where the server refuses or is not reached.
    pub async fn apply(&self, path: &str, object: &Value) -> anyhow::Result<Value> {
        let path = format!("{path}?fieldManager={FIELD_MANAGER}&force=true");
        let request = Request::patch(&path)
            .header(header::CONTENT_TYPE, "application/apply-patch+yaml")
            .body(serde_json::to_vec(object)?)?;
        self.client.request(request).await.map_err(|error| explain("patch", &path, error))
    }

    /// Makes `object` in the collection at `path`.
    ///
    /// # Errors
    /// Where the server refuses or is not reached.
    pub async fn create(&self, path: &str, object: &Value) -> anyhow::Result<Value> {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(serde_json::to_vec(object)?)?;
        self.client.request(request).await.map_err(|error| explain("create", path, error))
    }

    /// Runs `command` in a pod of nodemesh.
    ///
    /// # Errors
    /// Where the server refuses or is not reached.
    pub async fn exec<'a>(
        &self,
        pod: &str,
        command: impl Iterator<Item = &'a str> + fmt::Debug,
        how: &AttachParams,
    ) -> anyhow::Result<AttachedProcess> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let path = format!("/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods/{pod}/exec");
        pods.exec(pod, command, how).await.map_err(|error| explain("create", &path, error))
    }

    /// Deletes what is at `path`, and in time what it owns; whether anything was there.
    ///
    /// # Errors
    /// Where the server refuses or is not reached.
    pub async fn delete(&self, path: &str) -> anyhow::Result<bool> {
        let request = Request::builder().method(Method::DELETE).uri(path);
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .body(br#"{"propagationPolicy":"Background"}"#.to_vec())?;
        match self.client.request::<Value>(request).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(explain("delete", path, error)),
        }
    }
}

/// What a failure means and what to do.
fn explain(verb: &str, path: &str, error: kube::Error) -> anyhow::Error {
    let path = path.split('?').next().unwrap_or(path);
    match error {
        kube::Error::Api(status) if status.code == 401 => anyhow!(
            "{verb} {path}: the API server does not know you ({}); log in again, or choose \
             another --context",
            status.message
        ),
        kube::Error::Api(status) if status.code == 403 => {
            anyhow!("{verb} {path}: you may not ({})", status.message)
        }
        kube::Error::Api(status) => anyhow!("{verb} {path}: {}", status.message),
        error => anyhow::Error::new(error).context(format!(
            "{verb} {path}: the API server is not reached; see --kubeconfig and --context"
        )),
    }
}

/// As in a query: everything but letters, digits and what RFC 3986 calls unreserved.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escape = |byte: u8| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}
