//! `install` and `upgrade`: what is applied, in which order, and with which image.

use serde_json::{Value, json};

use crate::{Cluster, check::webhook, kubernetes::Kubernetes, manifests};

const OWN: &str = env!("CARGO_PKG_VERSION");
const AGENTS: &str = "/apis/apps/v1/namespaces/nodemesh-system/daemonsets/mesh-agent";
const CONTROLLER: &str = "/apis/apps/v1/namespaces/nodemesh-system/deployments/mesh-controller";

#[test]
fn install_applies_everything_and_does_so_again() {
    let cluster = Cluster::start();
    let ended = cluster.run(&["install", "--no-wait"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.contains("applied DaemonSet nodemesh-system/mesh-agent\n"), "{ended:?}");
    assert_eq!(ended.out.lines().count(), manifests().len(), "{ended:?}");

    // Waits until the definition of MeshConfig is served.
    let again = cluster.run(&["install", "--no-wait", "--profile", "secure"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.out.ends_with("applied MeshConfig default\n"), "{again:?}");

    let upgrade = cluster.run(&["upgrade", "--no-wait", "--image", "registry.example/mesh:9"]);
    assert_eq!(upgrade.code, Some(0), "{upgrade:?}");
    let first = format!("from nodemesh:{} to registry.example/mesh:9\n", env!("CARGO_PKG_VERSION"));
    assert!(upgrade.out.starts_with(&first), "{upgrade:?}");

    let kept = cluster.run(&["uninstall"]);
    assert_eq!(kept.code, Some(0), "{kept:?}");
    let definition = "kept    CustomResourceDefinition meshconfigs.nodemesh.dev: 1 there";
    assert!(kept.out.contains(definition), "{kept:?}");
}

#[test]
fn install_says_what_it_waits_for_in_vain() {
    let ended = Cluster::start().run(&["install", "--timeout", "1"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("controller: 0 of 2 ready"), "{ended:?}");
}

/// As if version 0.0.9 had been installed from a registry of somebody's own.
fn of_another_version(image: &str) -> Cluster {
    let cluster = Cluster::start();
    for mut object in manifests() {
        if let Some(it) = object.pointer_mut("/spec/template/spec/containers/0/image") {
            *it = image.into();
        }
        cluster.server.add(object);
    }
    cluster
}

fn image(workload: &Value) -> &str {
    workload["spec"]["template"]["spec"]["containers"][0]["image"].as_str().expect("an image")
}

#[test]
fn an_upgrade_stays_with_the_registry_and_says_so() {
    let cluster = of_another_version("registry.example:5000/mesh/nodemesh:0.0.9");
    let kubernetes = Kubernetes::of(&cluster);
    let next = format!("registry.example:5000/mesh/nodemesh:{OWN}");
    for command in ["upgrade", "install"] {
        let ended = cluster.run(&[command, "--no-wait"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.out.lines().next().is_some_and(|it| it.ends_with(&next)), "{ended:?}");
        for path in [AGENTS, CONTROLLER] {
            assert_eq!(image(&kubernetes.get(path)), next, "{command}");
        }
    }
    let printed = cluster.run(&["upgrade", "--dry-run"]);
    assert!(printed.out.contains(&format!("image: {next}\n")), "{printed:?}");
}

#[test]
fn an_upgrade_of_a_digest_asks_for_the_image() {
    let cluster = of_another_version("registry.example/nodemesh@sha256:0011");
    for command in ["upgrade", "install"] {
        let ended = cluster.run(&[command, "--no-wait"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.err.contains("--image"), "{ended:?}");
        assert_eq!(ended.out, "", "nothing was applied");
    }
}

#[test]
fn agents_stay_as_they_were_where_the_controller_does_not_come_up() {
    let old = "registry.example/nodemesh:0.0.9";
    let cluster = of_another_version(old);
    let kubernetes = Kubernetes::of(&cluster);
    let ended = cluster.run(&["upgrade", "--timeout", "1"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains(&format!("the agents were left as they were ({old})")), "{ended:?}");
    assert_eq!(image(&kubernetes.get(AGENTS)), old);
    assert!(image(&kubernetes.get(CONTROLLER)).ends_with(OWN), "the controller was tried");
}

#[test]
fn agents_follow_when_the_controller_is_ready() {
    let cluster = of_another_version("registry.example/nodemesh:0.0.9");
    let kubernetes = Kubernetes::of(&cluster);
    let ready = kubernetes.play(|kubernetes| {
        let controller = kubernetes.get(CONTROLLER);
        let status = json!({
            "observedGeneration": controller["metadata"]["generation"],
            "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
        });
        kubernetes.set_status(CONTROLLER, &status);
        let agents = kubernetes.get(AGENTS);
        let status = json!({
            "observedGeneration": agents["metadata"]["generation"],
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0,
            "numberReady": 0,
        });
        kubernetes.set_status(AGENTS, &status);
    });
    let ended = cluster.run(&["upgrade", "--timeout", "30"]);
    drop(ready);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let at = |line: &str| ended.out.find(line).unwrap_or_else(|| panic!("{line}: {ended:?}"));
    assert!(at("controller: 2 of 2 ready") < at("applied DaemonSet"), "{ended:?}");
    assert!(image(&kubernetes.get(AGENTS)).ends_with(OWN));
}

#[test]
fn a_mesh_is_not_made_strict_where_callers_would_be_refused() {
    let cluster = Cluster::installed();
    for object in webhook() {
        cluster.server.add(object);
    }
    let kubernetes = Kubernetes::of(&cluster);
    let config = "/apis/nodemesh.dev/v1alpha1/meshconfigs/default";
    let secure = ["install", "--profile", "secure", "--no-wait"];
    let refused = cluster.run(&secure);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.out.contains("hooks/hook would refuse once strict"), "{refused:?}");
    assert!(refused.err.contains("--yes"), "{refused:?}");
    assert!(!refused.out.contains("applied"), "{refused:?}");
    assert_eq!(kubernetes.get(config), Value::Null);

    let forced = cluster.run(&[&secure[..], &["--yes"]].concat());
    assert_eq!(forced.code, Some(0), "{forced:?}");
    assert!(kubernetes.get(config).is_object());
    let again = cluster.run(&secure);
    assert_eq!(again.code, Some(0), "it is strict already: {again:?}");
}
