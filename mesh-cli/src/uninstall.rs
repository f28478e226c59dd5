//! `nodemesh uninstall`: takes nodemesh out of a cluster, agents first.

use std::{
    collections::BTreeSet,
    process::ExitCode,
    time::{Duration, Instant},
};

use mesh_common::API_VERSION;
use serde_json::Value;

use crate::{
    agents,
    cluster::{Cluster, ClusterArgs},
    manifests::{self, IMAGE, Manifest, Profile},
    output,
    rollout::{self, Component},
};

/// Takes nodemesh out of a cluster.
///
/// First the agents go: each lets its node's pods out of the mesh and removes what it has put into
/// the kernel and into files. Then everything else, and the namespace. Policies stay, and with them
/// their definitions, unless --delete-policies says otherwise.
///
/// Exit status: 0 where nothing is left, 1 where something is, 2 for wrong usage.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Delete every AuthorizationPolicy, PeerPolicy and MeshConfig too
    #[arg(long)]
    delete_policies: bool,
    /// Print what would be deleted, in this order, and delete nothing; no cluster is asked
    #[arg(long)]
    dry_run: bool,
    /// Seconds to wait at most for the agents, and again for the namespace
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

/// Runs the command.
///
/// # Errors
/// Where the cluster refuses, or is not reached.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let order = order(manifests::objects(Profile::Default, IMAGE)?);
    if args.dry_run {
        for manifest in order.iter().filter(|it| args.delete_policies || !it.is_definition()) {
            output::say(&manifest.title());
        }
        return Ok(ExitCode::SUCCESS);
    }
    agents::runtime()?.block_on(async {
        let cluster = args.cluster.connect().await?;
        take_out(&cluster, args, order).await
    })
}

/// Agents first, so that they can still ask whether they go for good; the namespace last, and the
/// definitions after it.
fn order(mut manifests: Vec<Manifest>) -> Vec<Manifest> {
    let rank = |manifest: &Manifest| match manifest.kind() {
        "DaemonSet" => 0,
        "Namespace" => 2,
        "CustomResourceDefinition" => 3,
        _ => 1,
    };
    manifests.reverse();
    manifests.sort_by_key(rank);
    manifests
}

async fn take_out(
    cluster: &Cluster,
    args: &Args,
    order: Vec<Manifest>,
) -> anyhow::Result<ExitCode> {
    let patience = Duration::from_secs(args.timeout);
    let mut left = Vec::new();
    for manifest in order {
        if manifest.is_definition() && !args.delete_policies {
            let kept = cluster.list(&collection(&manifest)).await?.len();
            if kept > 0 {
                output::say(&format!(
                    "kept    {}: {kept} there; see --delete-policies",
                    manifest.title()
                ));
                continue;
            }
        }
        let deleted = cluster.delete(&manifest.path()).await?;
        output::say(&format!(
            "{} {}",
            if deleted { "deleted" } else { "absent " },
            manifest.title()
        ));
        match manifest.kind() {
            "DaemonSet" => left.extend(agents_gone(cluster, Instant::now() + patience).await?),
            "Namespace" => left.extend(gone(cluster, &manifest, Instant::now() + patience).await?),
            _ => {}
        }
    }
    for problem in &left {
        eprintln!("nodemesh: {problem}");
    }
    Ok(if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where the objects are that `definition` defines.
fn collection(definition: &Manifest) -> String {
    let plural = definition.object["spec"]["names"]["plural"].as_str().unwrap_or_default();
    format!("/apis/{API_VERSION}/{plural}")
}

/// Waits until no pod of the agents is left; at `deadline`, those that are, by node.
async fn agents_gone(cluster: &Cluster, deadline: Instant) -> anyhow::Result<Vec<String>> {
    let mut said = None;
    loop {
        let pods = rollout::pods(cluster, Component::Agents).await?;
        let nodes: BTreeSet<&str> = pods.iter().filter_map(node).collect();
        if pods.is_empty() {
            return Ok(Vec::new());
        }
        if said != Some(pods.len()) {
            output::say(&format!("agents: {} still letting pods go", pods.len()));
            said = Some(pods.len());
        }
        if Instant::now() >= deadline {
            let problem = |node: &str| {
                format!(
                    "the agent of {node} has not ended: captured pods there may refuse new \
                     connections until `mesh-agent cleanup --node {node}` has run on that node"
                )
            };
            return Ok(nodes.into_iter().map(problem).collect());
        }
        tokio::time::sleep(rollout::LOOK).await;
    }
}

fn node(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"].as_str()
}

/// Waits until `manifest` is gone; at `deadline`, that it is not.
async fn gone(
    cluster: &Cluster,
    manifest: &Manifest,
    deadline: Instant,
) -> anyhow::Result<Option<String>> {
    while cluster.get(&manifest.path()).await?.is_some() {
        if Instant::now() >= deadline {
            let title = manifest.title();
            return Ok(Some(format!(
                "{title} is still there; kubectl describe says what holds it"
            )));
        }
        tokio::time::sleep(rollout::LOOK).await;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_go_first_and_definitions_last() {
        let order = order(manifests::objects(Profile::Default, IMAGE).expect("manifests"));
        let kinds: Vec<&str> = order.iter().map(Manifest::kind).collect();
        assert_eq!(kinds.first(), Some(&"DaemonSet"));
        let at = |kind| kinds.iter().position(|it| *it == kind).expect("is there");
        assert!(at("DaemonSet") < at("Deployment"));
        assert!(at("RoleBinding") < at("Namespace"));
        assert_eq!(at("Namespace") + 4, kinds.len(), "three definitions come last: {kinds:?}");
    }
}
