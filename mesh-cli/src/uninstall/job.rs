//! The Job that cleans a node up: pure.

use mesh_common::SYSTEM_NAMESPACE;
use serde_json::{Value, json};

use super::nodes::LABEL;
use crate::{container, value::list};

/// The flags of the agent that say where a node's traces are, which cleanup has too.
const PATHS: [&str; 6] =
    ["--node", "--bpffs", "--pod-netns", "--procfs", "--state-dir", "--admin-socket"];
/// What the agent's program is told to do.
pub const CLEANUP: &str = "cleanup";
/// A cleanup that fails, fails for a reason that may pass, such as a pod that just ends.
const RETRIES: u32 = 2;

/// The pod that cleans up after an agent of the DaemonSet `agents`: with the same image, rights and
/// mounts, where the agent has them.
pub fn template(agents: &Value) -> Value {
    let pod = &agents["spec"]["template"]["spec"];
    let agent = &pod["containers"][0];
    // What is of the node. What the agent needs to be let in by the controller may be gone, and a
    // pod waits for ever for a ConfigMap that is.
    let volumes: Vec<&Value> =
        list(&pod["volumes"]).filter(|it| it["hostPath"].is_object()).collect();
    let is_there = |mount: &&Value| volumes.iter().any(|it| it["name"] == mount["name"]);
    let mounts: Vec<&Value> = list(&agent["volumeMounts"]).filter(is_there).collect();
    let command = agent["command"][0].as_str().unwrap_or("/mesh-agent");
    let mut container = json!({
        "name": CLEANUP,
        "command": [command],
        "args": arguments(agent),
        "volumeMounts": mounts,
    });
    copy(agent, &mut container, &["image", "imagePullPolicy", "env", "securityContext"]);
    let mut spec = json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        // No taint keeps a node from being cleaned up.
        "tolerations": [{ "operator": "Exists" }],
        "volumes": volumes,
        "containers": [container],
    });
    // Its account too: it may bring the secrets that the image is pulled with.
    let same = [
        "hostNetwork",
        "hostPID",
        "dnsPolicy",
        "priorityClassName",
        "imagePullSecrets",
        "securityContext",
        "serviceAccountName",
        "nodeSelector",
    ];
    copy(pod, &mut spec, &same);
    json!({ "metadata": { "labels": labels() }, "spec": spec })
}

/// The pod of a Job that is there, for another one: without what Kubernetes has added, which is of
/// that Job alone.
pub fn again(job: &Value) -> Value {
    let mut template = job["spec"]["template"].clone();
    template["metadata"] = json!({ "labels": labels() });
    template
}

/// The Job of `template` on `node`, which has so many seconds.
pub fn on(template: &Value, node: &str, seconds: u64) -> Value {
    let mut template = template.clone();
    // Not by the scheduler: a node that is cordoned is to be cleaned up as well, and one that the
    // selector leaves out today.
    template["spec"]["nodeName"] = node.into();
    if let Some(spec) = template["spec"].as_object_mut() {
        spec.remove("nodeSelector");
    }
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "generateName": "mesh-agent-cleanup-",
            "namespace": SYSTEM_NAMESPACE,
            "labels": labels(),
        },
        "spec": {
            "backoffLimit": RETRIES,
            "activeDeadlineSeconds": seconds,
            "template": template,
        },
    })
}

/// Whether agents run on `node`: on Linux, where the DaemonSet's selector chooses it.
pub fn runs_on(template: &Value, node: &Value) -> bool {
    let labels = &node["metadata"]["labels"];
    let system = &node["status"]["nodeInfo"]["operatingSystem"];
    let is_linux = *system == "linux" || labels["kubernetes.io/os"] == "linux";
    let wanted = template["spec"]["nodeSelector"].as_object();
    is_linux
        && wanted
            .into_iter()
            .flatten()
            .all(|(key, value)| key == "kubernetes.io/os" || labels[key.as_str()] == *value)
}

/// How the Job ended, where it has.
pub fn outcome(job: &Value) -> Option<Result<(), String>> {
    let is_true = |name: &str| {
        list(&job["status"]["conditions"]).find(|it| it["type"] == name && it["status"] == "True")
    };
    if is_true("Complete").is_some() {
        return Some(Ok(()));
    }
    let failed = is_true("Failed")?;
    let text = |field: &str| failed[field].as_str().unwrap_or_default();
    Some(Err(format!("its cleanup failed: {} {}", text("reason"), text("message"))))
}

/// `cleanup` with the flags that say where things are, as the agent was told.
fn arguments(agent: &Value) -> Vec<String> {
    let paths = container::flags(agent).into_iter().filter(|(flag, _)| PATHS.contains(flag));
    let paths = paths.map(|(flag, value)| format!("{flag}={value}"));
    [CLEANUP.to_owned()].into_iter().chain(paths).collect()
}

fn labels() -> Value {
    json!({ LABEL.0: LABEL.1, "app.kubernetes.io/part-of": "nodemesh" })
}

fn copy(from: &Value, to: &mut Value, fields: &[&str]) {
    for field in fields {
        if !from[*field].is_null() {
            to[*field] = from[*field].clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::{self, IMAGE, Manifest, Profile};

    fn agents() -> Value {
        let all = manifests::objects(Profile::Default, IMAGE).expect("manifests");
        all.into_iter().find(Manifest::is_agents).expect("agents").object
    }

    #[test]
    fn a_cleanup_has_what_the_agent_has_of_the_node_and_nothing_else() {
        let template = template(&agents());
        let spec = &template["spec"];
        let agent = &agents()["spec"]["template"]["spec"]["containers"][0];
        let container = &spec["containers"][0];
        assert_eq!((&spec["hostPID"], &spec["hostNetwork"]), (&true.into(), &true.into()));
        for same in ["image", "securityContext", "env"] {
            assert_eq!(container[same], agent[same], "{same}");
        }
        assert_eq!(container["args"], json!(["cleanup", "--node=$(NODE_NAME)"]));
        let names = |list: &Value| -> Vec<String> {
            list.as_array().into_iter().flatten().map(|it| it["name"].to_string()).collect()
        };
        let expected = ["\"bpffs\"", "\"cgroup\"", "\"state\"", "\"socket\""];
        assert_eq!(names(&spec["volumes"]), expected);
        assert_eq!(names(&container["volumeMounts"]), expected);
        assert_eq!(on(&template, "n", 1)["spec"]["template"]["spec"]["nodeName"], "n");
    }

    #[test]
    fn flags_of_paths_are_kept_however_they_are_written() {
        let agent = json!({
            "command": ["/mesh-agent", "--state-dir", "/s"],
            "args": ["--node", "$(N)", "--bpffs=/b=c", "--controller", "https://c", "--http"],
        });
        let expected = ["cleanup", "--state-dir=/s", "--node=$(N)", "--bpffs=/b=c"];
        assert_eq!(arguments(&agent), expected);
    }

    #[test]
    fn another_job_is_made_of_one_that_is_there() {
        let of_kubernetes = json!({ "controller-uid": "u", "job-name": "j" });
        let spec = json!({ "nodeSelector": { "pool": "a" }, "containers": [{ "name": "c" }] });
        let template = json!({ "metadata": { "labels": of_kubernetes }, "spec": spec });
        let job = on(&again(&json!({ "spec": { "template": template } })), "node-1", 9);
        let pod = &job["spec"]["template"];
        assert_eq!(pod["metadata"], json!({ "labels": labels() }));
        let expected = json!({ "nodeName": "node-1", "containers": [{ "name": "c" }] });
        assert_eq!(pod["spec"], expected, "a kubelet refuses a pod that its node does not fit");
    }

    #[test]
    fn agents_run_where_their_selector_says() {
        let template =
            json!({ "spec": { "nodeSelector": { "kubernetes.io/os": "linux", "pool": "a" } } });
        let node = |system: &str, pool: &str| {
            json!({
                "metadata": { "labels": { "pool": pool } },
                "status": { "nodeInfo": { "operatingSystem": system } },
            })
        };
        for (system, pool, expected) in
            [("linux", "a", true), ("linux", "b", false), ("windows", "a", false)]
        {
            assert_eq!(runs_on(&template, &node(system, pool)), expected, "{system} {pool}");
        }
    }
}
