//! The cleanup of nodes: a Job each, for agents that could not clean up themselves.
//!
//! An agent that was crash-looping, or whose own cleanup failed, leaves hooks that refuse traffic,
//! and nobody hears of it: its pod is gone. So every node is cleaned up once more, which does
//! nothing where nothing is left, and which says whether that is so.

use std::{collections::BTreeMap, time::Instant};

use mesh_common::SYSTEM_NAMESPACE;
use serde_json::Value;

use super::job;
use crate::{
    cluster::Cluster,
    output, picture,
    rollout::{self, Component},
};

/// The Jobs that are there, those of an earlier run included.
pub const LABEL: (&str, &str) = ("app.kubernetes.io/name", "mesh-agent-cleanup");

fn jobs() -> String {
    format!("/apis/batch/v1/namespaces/{SYSTEM_NAMESPACE}/jobs")
}

/// What a cleanup of a node runs: the pod of a Job, without the node.
///
/// That of the agents, as long as they are there; else, after a run that did not come to its end,
/// what that one made of it, or what the manifests say with the image of the controller.
///
/// # Errors
/// Where the cluster refuses, or is not reached.
pub async fn template(cluster: &Cluster, manifest: &Value) -> anyhow::Result<Option<Value>> {
    if let Some(agents) = cluster.get(&Component::Agents.path()).await? {
        return Ok(Some(job::template(&agents)));
    }
    if let Some(earlier) = earlier(cluster).await?.first() {
        return Ok(Some(job::again(earlier)));
    }
    let controller = cluster.get(&Component::Controller.path()).await?;
    let Some(image) = controller.as_ref().and_then(rollout::image) else { return Ok(None) };
    let mut agents = manifest.clone();
    agents["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
    Ok(Some(job::template(&agents)))
}

/// Cleans up every node of `template` but `others`; at `deadline`, what is wrong with those that
/// are not clean, by node.
///
/// # Errors
/// Where the cluster refuses to say which nodes and Jobs there are, or is not reached.
pub async fn clean(
    cluster: &Cluster,
    template: &Value,
    others: &[String],
    deadline: Instant,
) -> anyhow::Result<Vec<String>> {
    for job in earlier(cluster).await? {
        let name = job["metadata"]["name"].as_str().unwrap_or_default();
        cluster.delete(&format!("{}/{name}", jobs())).await?;
    }
    let seconds = deadline.saturating_duration_since(Instant::now()).as_secs().max(1);
    let mut problems = Vec::new();
    let mut waiting = BTreeMap::new();
    // Where an agent was before the DaemonSet was made to leave that node out.
    let known = picture::nodes_with_agents(cluster).await?;
    for node in cluster.list("/api/v1/nodes").await? {
        let has_agent = |name: &&str| known.contains(*name) || job::runs_on(template, &node);
        let Some(node) = node["metadata"]["name"].as_str().filter(has_agent) else { continue };
        if others.iter().any(|it| it == node) {
            continue;
        }
        match cluster.create(&jobs(), &job::on(template, node, seconds)).await {
            Ok(job) => {
                let name = job["metadata"]["name"].as_str().unwrap_or_default();
                waiting.insert(name.to_owned(), node.to_owned());
            }
            Err(error) => problems.push(unclean(node, &format!("{error:#}"))),
        }
    }
    problems.extend(wait(cluster, waiting, deadline).await?);
    Ok(problems)
}

/// Waits for the Jobs of these nodes; at `deadline`, what is wrong with those that have not cleaned
/// up.
async fn wait(
    cluster: &Cluster,
    mut waiting: BTreeMap<String, String>,
    deadline: Instant,
) -> anyhow::Result<Vec<String>> {
    let mut problems = Vec::new();
    if !waiting.is_empty() {
        output::say(&format!("nodes: {} to be cleaned up", waiting.len()));
    }
    while !waiting.is_empty() {
        for job in earlier(cluster).await? {
            let name = job["metadata"]["name"].as_str().unwrap_or_default();
            let Some(node) = waiting.get(name) else { continue };
            match job::outcome(&job) {
                None => continue,
                Some(Ok(())) => output::say(&format!("clean   {node}")),
                Some(Err(reason)) => problems.push(failed(node, name, &reason)),
            }
            waiting.remove(name);
        }
        if Instant::now() >= deadline {
            break;
        }
        tokio::time::sleep(rollout::LOOK).await;
    }
    for (job, node) in waiting {
        let pods = cluster
            .list(&format!("/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods"))
            .await?
            .into_iter()
            .filter(|pod| pod["metadata"]["labels"]["job-name"] == *job)
            .collect::<Vec<_>>();
        let why = rollout::pod_problems(&pods).join("; ");
        let why = if why.is_empty() { "its pod has not ended".to_owned() } else { why };
        problems.push(failed(&node, &job, &why));
    }
    Ok(problems)
}

async fn earlier(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let mut found = cluster.list(&jobs()).await?;
    found.retain(|job| job["metadata"]["labels"][LABEL.0] == LABEL.1);
    Ok(found)
}

fn failed(node: &str, job: &str, why: &str) -> String {
    unclean(node, &format!("{why} (kubectl -n {SYSTEM_NAMESPACE} logs job/{job})"))
}

fn unclean(node: &str, why: &str) -> String {
    format!(
        "{node} is not known to be clean, so captured pods there may refuse new connections: {why}; \
         or run `mesh-agent cleanup --node {node}` on that node"
    )
}
