//! `nodemesh bug-report`: what somebody needs who was not there, and nothing that is secret.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use mesh_common::SYSTEM_NAMESPACE;
use serde_json::{Map, Value, json};

use crate::{
    agents,
    cluster::{Cluster, ClusterArgs},
    output,
    rollout::{self, Component},
};

/// Collects the state of nodemesh in a cluster into one file of JSON.
///
/// Secrets are not read. Values of environment variables, annotations, keys and tokens are taken
/// out. Names of pods, addresses and policies are in it: read it before you give it away.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The file to write
    #[arg(short, long, value_name = "FILE", default_value = "nodemesh-bug-report.json")]
    output: PathBuf,
}

const REMOVED: &str = "(removed)";
/// The end of each pod's log that goes into the report.
const LINES: usize = 2000;
/// What is collected of the whole cluster.
const COLLECTIONS: [&str; 4] = [
    "/api/v1/nodes",
    "/apis/nodemesh.dev/v1alpha1/authorizationpolicies",
    "/apis/nodemesh.dev/v1alpha1/meshconfigs",
    "/apis/nodemesh.dev/v1alpha1/peerpolicies",
];
/// What is collected of nodemesh's own namespace.
const OWN: [(&str, &str); 4] = [
    ("/apis/apps/v1", "daemonsets"),
    ("/apis/apps/v1", "deployments"),
    ("/api/v1", "pods"),
    ("/api/v1", "events"),
];

/// Runs the command.
///
/// # Errors
/// Where the cluster is not known or the file cannot be written; what the cluster does not give is
/// noted in the report.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let report = agents::runtime()?.block_on(async {
        let cluster = args.cluster.connect().await?;
        anyhow::Ok(collect(&cluster).await)
    })?;
    let json = serde_json::to_vec_pretty(&redacted(report))?;
    std::fs::write(&args.output, json).with_context(|| args.output.display().to_string())?;
    output::say(&format!("{}: read it before you give it away", args.output.display()));
    Ok(ExitCode::SUCCESS)
}

async fn collect(cluster: &Cluster) -> Value {
    let mut report = Map::new();
    report.insert("client".into(), env!("CARGO_PKG_VERSION").into());
    let version = cluster.get("/version").await.map(Option::unwrap_or_default);
    report.insert("server".into(), version.unwrap_or_else(|error| noted(&error)));
    let own = OWN.map(|(root, plural)| format!("{root}/namespaces/{SYSTEM_NAMESPACE}/{plural}"));
    for path in COLLECTIONS.map(str::to_owned).into_iter().chain(own) {
        let objects = cluster.list(&path).await.map(Value::from);
        report.insert(path, objects.unwrap_or_else(|error| noted(&error)));
    }
    for component in Component::ALL {
        let pods = rollout::pods(cluster, component).await.unwrap_or_default();
        for pod in pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()) {
            let path =
                format!("/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods/{pod}/log?tailLines={LINES}");
            let lines =
                cluster.text(&path).await.map(|text| text.lines().map(Value::from).collect());
            report.insert(format!("log of {pod}"), lines.unwrap_or_else(|error| noted(&error)));
        }
    }
    report.into()
}

fn noted(error: &anyhow::Error) -> Value {
    json!({ "not collected": format!("{error:#}") })
}

/// Without anything that is secret, or that people put in for machines alone.
fn redacted(value: Value) -> Value {
    match value {
        Value::String(text) if is_secret(&text) => REMOVED.into(),
        Value::Array(list) => list.into_iter().map(redacted).collect(),
        Value::Object(map) => {
            let entries = map.into_iter().filter_map(|(key, value)| match (key.as_str(), value) {
                ("managedFields" | "annotations", _) => None,
                ("env", value) => Some((key, without_values(value))),
                (_, value) => Some((key, redacted(value))),
            });
            Value::Object(entries.collect())
        }
        value => value,
    }
}

/// Names of variables, without what they are set to.
fn without_values(variables: Value) -> Value {
    let Value::Array(list) = variables else { return REMOVED.into() };
    list.into_iter()
        .map(|mut variable| {
            if let Some(value) = variable.get_mut("value") {
                *value = REMOVED.into();
            }
            variable
        })
        .collect()
}

/// Keys as PEM has them, and tokens: a JSON Web Token begins with `{"` in base64.
fn is_secret(text: &str) -> bool {
    text.contains("PRIVATE KEY") || text.contains("Bearer ") || text.contains("eyJ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_left() {
        let report = json!({
            "pods": [{
                "metadata": { "name": "a", "annotations": { "password": "hunter2" } },
                "spec": { "containers": [{
                    "env": [
                        { "name": "PASSWORD", "value": "hunter2" },
                        { "name": "FROM", "valueFrom": { "secretKeyRef": { "name": "s" } } },
                    ],
                    "args": ["--token=eyJhbGciOiJSUzI1NiJ9.e30.x"],
                }] },
            }],
            "log of a": ["-----BEGIN PRIVATE KEY-----", "Authorization: Bearer abc", "starts"],
        });
        let text = redacted(report).to_string();
        for secret in ["hunter2", "eyJ", "BEGIN", "abc"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        for kept in ["PASSWORD", "secretKeyRef", "starts", "\"name\":\"a\""] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
    }
}
