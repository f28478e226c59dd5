//! `nodemesh bug-report`: what somebody needs who was not there, and nothing that is secret.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use mesh_common::SYSTEM_NAMESPACE;
use mesh_controller::{kubernetes::Resource, object::Kind};
use serde_json::{Map, Value, json};

use crate::{
    agents,
    cluster::{Cluster, ClusterArgs},
    output,
    rollout::{self, Component},
    status,
};

mod redact;

/// Collects the state of nodemesh in a cluster into one file of JSON.
///
/// What is wanted of the mesh, what nodemesh's own objects and logs say, and what each agent says of
/// itself. Secrets are not read. Values of environment variables, annotations, keys, tokens and
/// passwords are taken out, and only you may read the file. Names of pods, addresses and policies
/// are in it: read it before you give it away.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The file to write
    #[arg(short, long, value_name = "FILE", default_value = "nodemesh-bug-report.json")]
    output: PathBuf,
}

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
const OWN: [(&str, &str); 5] = [
    ("/apis/apps/v1", "daemonsets"),
    ("/apis/apps/v1", "deployments"),
    ("/apis/batch/v1", "jobs"),
    ("/api/v1", "pods"),
    ("/api/v1", "events"),
];

/// What is collected by name alone: it says which other software has a hand in pods.
const NAMED: [&str; 2] = [
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
];
/// The ConfigMaps that say which pods are captured begin so.
const CAPTURES: &str = "captures";

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
    let json = serde_json::to_vec_pretty(&redact::redacted(report))?;
    write(&args.output, &json).with_context(|| args.output.display().to_string())?;
    output::say(&format!("{}: read it before you give it away", args.output.display()));
    Ok(ExitCode::SUCCESS)
}

/// Writes a file that nobody else may read, also where it was there before.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file: File = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)
}

async fn collect(cluster: &Cluster) -> Value {
    let mut report = Map::new();
    report.insert("client".into(), env!("CARGO_PKG_VERSION").into());
    let version = cluster.get("/version").await.map(Option::unwrap_or_default);
    report.insert("server".into(), version.unwrap_or_else(|error| noted(&error)));
    let own = OWN.map(|(root, plural)| format!("{root}/namespaces/{SYSTEM_NAMESPACE}/{plural}"));
    for path in COLLECTIONS.map(str::to_owned).into_iter().chain(own) {
        insert(&mut report, &path, cluster.list(&path).await);
    }
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_route()) {
        for path in Resource::of(kind).paths() {
            insert(&mut report, path, cluster.list(path).await);
        }
    }
    for path in NAMED {
        let names = cluster.list(path).await.map(|objects| {
            objects.iter().map(|object| object["metadata"]["name"].clone()).collect()
        });
        insert(&mut report, path, names);
    }
    let path = format!("/api/v1/namespaces/{SYSTEM_NAMESPACE}/configmaps");
    let captures = cluster.list(&path).await.map(|mut maps| {
        maps.retain(|map| {
            map["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(CAPTURES))
        });
        maps
    });
    insert(&mut report, &path, captures);
    agents(cluster, &mut report).await;
    for component in Component::ALL {
        for pod in rollout::pods(cluster, component).await.unwrap_or_default() {
            logs(cluster, &pod, &mut report).await;
        }
    }
    report.into()
}

/// What each agent says, as `nodemesh status` does.
async fn agents(cluster: &Cluster, report: &mut Map<String, Value>) {
    let places = match agents::of_cluster(cluster, None).await {
        Ok(places) => places,
        Err(error) => return insert(report, "agents", Err(error)),
    };
    let asked = agents::each(places.clone(), |place| async move { status::ask(&place).await });
    for (place, answer) in places.iter().zip(asked.await) {
        let said = answer
            .and_then(|status| Ok(serde_json::from_str(&status::json::line(&status)?)?))
            .unwrap_or_else(|error| noted(&error));
        report.insert(format!("status of {place}"), said);
    }
}

/// The log of a pod's container, and that of the one before where there was one.
async fn logs(cluster: &Cluster, pod: &Value, report: &mut Map<String, Value>) {
    let Some(name) = pod["metadata"]["name"].as_str() else { return };
    let path = format!("/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods/{name}/log?tailLines={LINES}");
    let had_another = pod["status"]["containerStatuses"][0]["restartCount"].as_u64() > Some(0);
    let mut wanted = vec![(format!("log of {name}"), path.clone())];
    if had_another {
        wanted.push((format!("previous log of {name}"), format!("{path}&previous=true")));
    }
    for (title, path) in wanted {
        let lines = cluster.text(&path).await;
        let lines = lines.map(|text| text.lines().map(Value::from).collect());
        insert(report, &title, lines);
    }
}

fn insert(report: &mut Map<String, Value>, title: &str, found: anyhow::Result<Vec<Value>>) {
    let value = found.map_or_else(|error| noted(&error), Value::from);
    report.insert(title.to_owned(), value);
}

fn noted(error: &anyhow::Error) -> Value {
    json!({ "not collected": format!("{error:#}") })
}
