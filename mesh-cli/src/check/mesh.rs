//! Whether what is installed works, and what the controller cannot do.

use std::collections::BTreeSet;

use anyhow::Result;
use mesh_controller::{
    compile::{Compiled, ProblemCode},
    kubernetes::Resource,
    object::Kind,
};
use serde_json::Value;

use crate::{
    checklist::Checklist,
    cluster::Cluster,
    rollout::{self, Component},
};

pub(super) async fn check(cluster: &Cluster, list: &mut Checklist) -> Result<()> {
    list.section("nodemesh");
    for component in Component::ALL {
        let Some(workload) = cluster.get(&component.path()).await? else {
            list.bad(format!("{}: not installed", component.title()), "nodemesh install");
            continue;
        };
        let pods = rollout::pods(cluster, component).await?;
        let progress = component.progress(&workload);
        let what =
            format!("{}: {} of {} ready", component.title(), progress.ready, progress.desired);
        if progress.is_complete() {
            list.good(what);
        } else {
            list.bad(what, rollout::pod_problems(&pods).join("; "));
        }
        if component == Component::Agents {
            let nodes = cluster.list("/api/v1/nodes").await?;
            for node in without_agents(&nodes, &pods) {
                list.bad(
                    format!("{node} has no agent"),
                    "pods there are not captured: kubectl -n nodemesh-system describe daemonset \
                     mesh-agent",
                );
            }
        }
    }
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_ours()) {
        match cluster.list(&Resource::of(kind).path).await {
            Ok(objects) => {
                for (what, why) in objects.iter().filter_map(|it| not_accepted(kind, it)) {
                    list.bad(what, why);
                }
            }
            Err(error) => list.looked(Err(error)),
        }
    }
    Ok(())
}

/// What the compiler complains of.
pub(super) fn problems(compiled: &Compiled, list: &mut Checklist) {
    if compiled.problems.is_empty() {
        list.good("every pod and policy can be what it is meant to be");
    }
    for problem in &compiled.problems {
        let hint = match problem.code {
            ProblemCode::NotEnrolled => "its calls and its callers' are as without a mesh",
            ProblemCode::Problem => "",
        };
        list.warning(format!("{}: {}", problem.object, problem.reason), hint);
    }
}

/// The Linux nodes that no agent's pod is on.
fn without_agents<'n>(nodes: &'n [Value], agents: &[Value]) -> Vec<&'n str> {
    let there: BTreeSet<&str> =
        agents.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
    nodes
        .iter()
        .filter(|node| node["status"]["nodeInfo"]["operatingSystem"] == "linux")
        .filter_map(|node| node["metadata"]["name"].as_str())
        .filter(|name| !there.contains(name))
        .collect()
}

/// A policy that is not in use as it is written, and why.
fn not_accepted(kind: Kind, object: &Value) -> Option<(String, String)> {
    let conditions = object["status"]["conditions"].as_array()?;
    let accepted = conditions.iter().find(|it| it["type"] == "Accepted")?;
    if accepted["status"] == "True" {
        return None;
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let namespace = text(&object["metadata"]["namespace"]);
    let slash = if namespace.is_empty() { "" } else { "/" };
    let name = text(&object["metadata"]["name"]);
    let what = format!("{} {namespace}{slash}{name} is not accepted", kind.name());
    Some((what, text(&accepted["message"])))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_without_an_agent_are_named() {
        let node = |name: &str, system: &str| {
            json!({
                "metadata": { "name": name },
                "status": { "nodeInfo": { "operatingSystem": system } },
            })
        };
        let nodes = [node("a", "linux"), node("b", "linux"), node("w", "windows")];
        let agents = [json!({ "spec": { "nodeName": "a" } })];
        assert_eq!(without_agents(&nodes, &agents), ["b"]);
    }

    #[test]
    fn a_policy_that_is_not_accepted_says_why() {
        let policy = |status: &str| {
            json!({
                "metadata": { "name": "p", "namespace": "shop" },
                "status": { "conditions": [
                    { "type": "Accepted", "status": status, "message": "no such port" },
                ] },
            })
        };
        assert_eq!(not_accepted(Kind::PeerPolicy, &policy("True")), None);
        let (what, why) = not_accepted(Kind::PeerPolicy, &policy("False")).expect("not accepted");
        assert_eq!(what, "PeerPolicy shop/p is not accepted");
        assert_eq!(why, "no such port");
    }
}
