//! kubectl puts each overlay of deploy/ into a cluster, as the documentation tells people to.

use std::path::Path;

use anyhow::Result;

use crate::cluster::Cluster;

#[test]
fn kubectl_applies_each_overlay_and_takes_it_away() -> Result<()> {
    for (overlay, replicas, mode) in
        [("default", 2, None), ("kind", 1, None), ("secure", 2, Some("STRICT"))]
    {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/overlays");
        let folder = folder.join(overlay).to_string_lossy().into_owned();
        let cluster = Cluster::start()?;
        let kubectl = cluster.kubectl();
        if mode.is_some() {
            // The kind of a MeshConfig is not served before its definition is.
            let error = kubectl.fails(&["apply", "-k", &folder])?;
            assert!(error.contains("no matches for kind \"MeshConfig\""), "{overlay}: {error}");
        }
        kubectl.run(&["apply", "-k", &folder])?;
        let system = ["--namespace", "nodemesh-system"];
        let controller =
            kubectl.json(&[&["get", "deployment", "mesh-controller"][..], &system].concat())?;
        assert_eq!(controller["spec"]["replicas"], replicas, "{overlay}");
        for workload in ["deployment/mesh-controller", "daemonset/mesh-agent"] {
            let object = kubectl.json(&[&["get", workload][..], &system].concat())?;
            let image = &object["spec"]["template"]["spec"]["containers"][0]["image"];
            assert_eq!(
                image,
                concat!("nodemesh:", env!("CARGO_PKG_VERSION")),
                "{overlay}: {workload}"
            );
        }
        let config = kubectl.json(&["get", "meshconfigs"])?;
        let found = config["items"][0]["spec"]["peer"]["mode"].as_str();
        assert_eq!(found, mode, "{overlay}: {config}");
        kubectl.run(&["delete", "--ignore-not-found", "-k", &folder])?;
        let left = kubectl.run(&["get", "customresourcedefinitions,clusterroles", "-o", "name"])?;
        assert!(!left.contains("nodemesh"), "{overlay}: {left}");
    }
    Ok(())
}
