//! The parts of nodemesh in a cluster: whether they are ready, and why not.

use std::time::{Duration, Instant};

use mesh_common::{SYSTEM_NAMESPACE, names};
use serde_json::Value;

use crate::{cluster::Cluster, output};

/// How often the cluster is asked while something is awaited.
pub const LOOK: Duration = Duration::from_millis(500);

/// A part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The controller.
    Controller,
    /// The agents.
    Agents,
}

/// How far a part is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Pods that shall be there.
    pub desired: u64,
    /// Those that are ready and of this version.
    pub ready: u64,
    /// Whether Kubernetes has taken note of what was applied last.
    pub observed: bool,
}

impl Component {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Controller, Self::Agents];

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Agents => "agents",
        }
    }

    /// The name of its workload, which is its pods' label `app.kubernetes.io/name` too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Controller => names::CONTROLLER,
            Self::Agents => names::AGENT,
        }
    }

    /// Where its workload is.
    pub fn path(self) -> String {
        let plural = match self {
            Self::Controller => "deployments",
            Self::Agents => "daemonsets",
        };
        format!("/apis/apps/v1/namespaces/{SYSTEM_NAMESPACE}/{plural}/{}", self.name())
    }

    /// How far it is.
    pub fn progress(self, workload: &Value) -> Progress {
        let status = &workload["status"];
        let number = |field: &str| status[field].as_u64().unwrap_or_default();
        let generation = workload["metadata"]["generation"].as_u64();
        let observed = generation.is_some() && status["observedGeneration"].as_u64() >= generation;
        let (desired, ready, updated) = match self {
            Self::Controller => {
                // Those of the old version count as available until they are gone.
                let old = number("replicas").saturating_sub(number("updatedReplicas"));
                (
                    workload["spec"]["replicas"].as_u64().unwrap_or(1),
                    number("availableReplicas").saturating_sub(old),
                    number("updatedReplicas"),
                )
            }
            Self::Agents => (
                number("desiredNumberScheduled"),
                number("numberReady"),
                number("updatedNumberScheduled"),
            ),
        };
        Progress { desired, ready: ready.min(updated), observed }
    }
}

impl Progress {
    /// Whether nothing is missing.
    pub fn is_complete(self) -> bool {
        self.observed && self.ready >= self.desired
    }
}

/// The image of a workload's first container.
pub fn image(workload: &Value) -> Option<&str> {
    workload["spec"]["template"]["spec"]["containers"][0]["image"].as_str()
}

/// Waits until `component` is ready; at `deadline`, what is wrong with it.
///
/// # Errors
/// Where the cluster refuses, or is not reached.
pub async fn wait(
    cluster: &Cluster,
    component: Component,
    deadline: Instant,
) -> anyhow::Result<Vec<String>> {
    let mut said = None;
    loop {
        let workload = cluster.get(&component.path()).await?.unwrap_or_default();
        let progress = component.progress(&workload);
        if said != Some(progress) && progress.observed {
            output::say(&format!(
                "{}: {} of {} ready",
                component.title(),
                progress.ready,
                progress.desired
            ));
            said = Some(progress);
        }
        if progress.is_complete() {
            return Ok(Vec::new());
        }
        if Instant::now() >= deadline {
            let mut problems = pod_problems(&pods(cluster, component).await?);
            if problems.is_empty() {
                problems.push(format!(
                    "{}: {} of {} ready, and no pod says why; kubectl -n {SYSTEM_NAMESPACE} describe pods",
                    component.title(),
                    progress.ready,
                    progress.desired
                ));
            }
            return Ok(problems);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The pods of a part.
///
/// # Errors
/// Where the cluster refuses, or is not reached.
pub async fn pods(cluster: &Cluster, component: Component) -> anyhow::Result<Vec<Value>> {
    let mut pods = cluster.list(&format!("/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods")).await?;
    pods.retain(|pod| {
        pod["metadata"]["labels"]["app.kubernetes.io/name"].as_str() == Some(component.name())
    });
    Ok(pods)
}

/// Why pods are not ready, as far as they say, each with its node.
pub fn pod_problems(pods: &[Value]) -> Vec<String> {
    pods.iter().filter_map(pod_problem).collect()
}

fn pod_problem(pod: &Value) -> Option<String> {
    let conditions = pod["status"]["conditions"].as_array();
    let condition = |name: &str| conditions?.iter().find(|it| it["type"] == name);
    if condition("Ready").is_some_and(|it| it["status"] == "True") {
        return None;
    }
    let name = pod["metadata"]["name"].as_str().unwrap_or("?");
    let node = pod["spec"]["nodeName"].as_str();
    let container = &pod["status"]["containerStatuses"][0]["state"];
    let waiting = ["waiting", "terminated"].into_iter().find_map(|state| {
        let state = &container[state];
        let reason = state["reason"].as_str()?;
        Some(format!("{reason} {}", state["message"].as_str().unwrap_or_default()))
    });
    let unscheduled = || {
        let condition = condition("PodScheduled").filter(|it| it["status"] == "False")?;
        Some(condition["message"].as_str().unwrap_or("not scheduled").to_owned())
    };
    let why = waiting.or_else(unscheduled).unwrap_or_else(|| {
        format!("running but not ready; kubectl -n {SYSTEM_NAMESPACE} logs {name}")
    });
    let place = node.map(|node| format!(" on {node}")).unwrap_or_default();
    Some(format!("{name}{place}: {}", why.trim()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_part_is_ready_when_all_of_it_is_new_and_seen() {
        let workload = |observed: u64, ready: u64, updated: u64| {
            json!({
                "metadata": { "generation": 2 },
                "status": {
                    "observedGeneration": observed,
                    "desiredNumberScheduled": 3,
                    "numberReady": ready,
                    "updatedNumberScheduled": updated,
                },
            })
        };
        let complete = |it| Component::Agents.progress(&it).is_complete();
        assert!(complete(workload(2, 3, 3)));
        assert!(!complete(workload(1, 3, 3)), "the new generation is not seen yet");
        assert!(!complete(workload(2, 3, 2)), "one is still of the old version");
        assert!(!complete(workload(2, 2, 3)));
        assert!(!complete(Value::Null), "not there");
    }

    #[test]
    fn replicas_of_the_old_version_do_not_count() {
        let ready = |replicas: u64, updated: u64, available: u64| {
            let workload = json!({
                "spec": { "replicas": 2 },
                "status": {
                    "replicas": replicas,
                    "updatedReplicas": updated,
                    "availableReplicas": available,
                },
            });
            Component::Controller.progress(&workload).ready
        };
        assert_eq!(ready(3, 1, 2), 0, "two old ones, and a new one that is not available");
        assert_eq!(ready(3, 2, 2), 1, "an old one is on its way out");
        assert_eq!(ready(2, 2, 2), 2);
    }

    #[test]
    fn pods_say_why_they_are_not_ready() {
        let pod = |status: Value| {
            json!({
                "metadata": { "name": "mesh-agent-x" },
                "spec": { "nodeName": "node-1" },
                "status": status,
            })
        };
        let waiting = json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such" } });
        for (status, said) in [
            (json!({ "conditions": [{ "type": "Ready", "status": "True" }] }), None),
            (
                json!({ "containerStatuses": [{ "state": waiting }] }),
                Some("mesh-agent-x on node-1: ImagePullBackOff no such"),
            ),
            (
                json!({ "conditions": [
                    { "type": "PodScheduled", "status": "False", "message": "no node" },
                ] }),
                Some("mesh-agent-x on node-1: no node"),
            ),
        ] {
            assert_eq!(pod_problem(&pod(status)).as_deref(), said);
        }
    }
}
