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

mod job;
mod nodes;

/// Takes nodemesh out of a cluster.
///
/// First the agents go: each lets its node's pods out of the mesh and removes what it has put into
/// the kernel and into files. Then a Job on every node does so once more, in case an agent could
/// not. Then everything else, and the namespace; where a node is not clean these stay, so that
/// uninstall can be run again. Policies stay, and with them their definitions, unless
/// --delete-policies says otherwise.
///
/// Exit status: 0 where nothing is left, 1 where something is, 2 for wrong usage.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Delete every AuthorizationPolicy, PeerPolicy and MeshConfig too
    #[arg(long)]
    delete_policies: bool,
    /// Run no cleanup on nodes, and go on where an agent has not ended: for nodes that are gone for
    /// good, or that were cleaned up by hand
    #[arg(long)]
    skip_nodes: bool,
    /// Print what would be deleted, in this order, and delete nothing; no cluster is asked
    #[arg(long)]
    dry_run: bool,
    /// Seconds to wait at most for the agents, again for the nodes, and again for the namespace
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
        order.iter().flat_map(|it| would(it, args)).for_each(|line| output::say(&line));
        return Ok(ExitCode::SUCCESS);
    }
    agents::runtime()?.block_on(async {
        let cluster = args.cluster.connect().await?;
        take_out(&cluster, args, order).await
    })
}

/// What happens to `manifest`, and what follows.
fn would(manifest: &Manifest, args: &Args) -> Vec<String> {
    let title = manifest.title();
    match manifest.kind() {
        "DaemonSet" if !args.skip_nodes => {
            let cleanup = format!("(a Job on each Linux node: /mesh-agent {})", job::CLEANUP);
            vec![title, cleanup]
        }
        _ if manifest.is_definition() && args.delete_policies => {
            vec![format!("{title}, with every object of it")]
        }
        _ if manifest.is_definition() => vec![format!("{title}, where no object of it is there")],
        _ => vec![title],
    }
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
    let agents = order.iter().find(|it| it.is_agents()).map(|it| it.object.clone());
    let template = nodes::template(cluster, &agents.unwrap_or_default()).await?;
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
            "DaemonSet" => {
                left.extend(nodes_left(cluster, args, template.as_ref()).await?);
                if !left.is_empty() && !args.skip_nodes {
                    left.push(STOPPED.to_owned());
                    break;
                }
            }
            "Namespace" => left.extend(gone(cluster, &manifest, Instant::now() + patience).await?),
            _ => {}
        }
    }
    for problem in &left {
        eprintln!("nodemesh: {problem}");
    }
    Ok(if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const STOPPED: &str = "the namespace and what else is there stay, for another try: mend this and run \
    `nodemesh uninstall` again, or with --skip-nodes where these nodes are gone for good or were \
    cleaned up by hand";

/// What is wrong with nodes that are not clean.
async fn nodes_left(
    cluster: &Cluster,
    args: &Args,
    template: Option<&Value>,
) -> anyhow::Result<Vec<String>> {
    let patience = Duration::from_secs(args.timeout);
    let busy = agents_gone(cluster, Instant::now() + patience).await?;
    let mut left: Vec<String> = busy.iter().map(|node| not_ended(node)).collect();
    if let (Some(template), false) = (template, args.skip_nodes) {
        // An agent that still runs would only be in the way of a cleanup beside it.
        left.extend(nodes::clean(cluster, template, &busy, Instant::now() + patience).await?);
    }
    Ok(left)
}

/// Where the objects are that `definition` defines.
fn collection(definition: &Manifest) -> String {
    let plural = definition.object["spec"]["names"]["plural"].as_str().unwrap_or_default();
    format!("/apis/{API_VERSION}/{plural}")
}

/// Waits until no pod of the agents is left; at `deadline`, the nodes of those that are.
async fn agents_gone(cluster: &Cluster, deadline: Instant) -> anyhow::Result<Vec<String>> {
    let mut said = None;
    loop {
        let pods = rollout::pods(cluster, Component::Agents).await?;
        if pods.is_empty() {
            return Ok(Vec::new());
        }
        if said != Some(pods.len()) {
            output::say(&format!("agents: {} still letting pods go", pods.len()));
            said = Some(pods.len());
        }
        if Instant::now() >= deadline {
            let nodes: BTreeSet<&str> = pods.iter().filter_map(node).collect();
            return Ok(nodes.into_iter().map(str::to_owned).collect());
        }
        tokio::time::sleep(rollout::LOOK).await;
    }
}

fn not_ended(node: &str) -> String {
    format!(
        "the agent of {node} has not ended: captured pods there may refuse new connections until \
         `mesh-agent cleanup --node {node}` has run on that node"
    )
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
    fn what_would_go_is_said_definitions_included() {
        use clap::Parser;
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            args: Args,
        }
        let order = order(manifests::objects(Profile::Default, IMAGE).expect("manifests"));
        let said = |words: &[&str]| {
            let args = Cli::parse_from([&["uninstall"], words].concat()).args;
            order.iter().flat_map(|it| would(it, &args)).collect::<Vec<_>>().join("\n")
        };
        let kept = "CustomResourceDefinition meshconfigs.nodemesh.dev, where no object";
        assert!(said(&[]).contains(kept), "{}", said(&[]));
        assert!(said(&[]).contains("a Job on each Linux node"));
        assert!(!said(&["--skip-nodes"]).contains("a Job"));
        let lost = "CustomResourceDefinition meshconfigs.nodemesh.dev, with every object";
        assert!(said(&["--delete-policies"]).contains(lost));
    }

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
