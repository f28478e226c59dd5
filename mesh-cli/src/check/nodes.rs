//! Whether agents can work on the nodes, as far as the API server knows them.

use anyhow::Result;
use serde_json::Value;

use crate::{checklist::Checklist, cluster::Cluster};

/// The oldest kernel that capture works on, and the first with the guards of a pod's link; the
/// agent checks the same when it starts.
const NEEDED: (u32, u32) = (6, 1);
const GUARDS: (u32, u32) = (6, 6);

/// What the image is built for.
const ARCHITECTURE: &str = "amd64";

/// When it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Nothing is installed that could show it.
    Before,
    /// Agents run, in whatever image, or say why not.
    Installed,
}

pub(super) async fn check(cluster: &Cluster, when: When, list: &mut Checklist) -> Result<()> {
    list.section("nodes");
    for node in cluster.list("/api/v1/nodes").await? {
        one(&node, when, list);
    }
    Ok(())
}

fn one(node: &Value, when: When, list: &mut Checklist) {
    let name = node["metadata"]["name"].as_str().unwrap_or("?");
    let info = &node["status"]["nodeInfo"];
    let text = |field: &str| info[field].as_str().unwrap_or("unknown");
    let kernel = text("kernelVersion");
    if text("operatingSystem") != "linux" {
        let what = format!("{name}: {}, left out", text("operatingSystem"));
        return list.warning(what, "its pods stay outside the mesh");
    }
    let architecture = info["architecture"].as_str().unwrap_or(ARCHITECTURE);
    if when == When::Before && architecture != ARCHITECTURE {
        return list.bad(
            format!("{name}: {architecture}, and the image is for {ARCHITECTURE} alone"),
            "no agent starts there: keep captured pods off it, or build an image for it and give it \
             with --image",
        );
    }
    match version(kernel) {
        Some(version) if version >= GUARDS => list.good(format!("{name}: Linux {kernel}")),
        Some(version) if version >= NEEDED => list.warning(
            format!("{name}: Linux {kernel}, without the guards of pods' links"),
            "a pod there with NET_ADMIN or NET_RAW can send plaintext; they need Linux 6.6",
        ),
        _ => list.bad(
            format!("{name}: Linux {kernel}, too old"),
            "agents need Linux 6.1: upgrade the node, or keep captured pods off it",
        ),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checklist::Outcome;

    #[test]
    fn old_kernels_are_named() {
        for (kernel, os, outcome) in [
            ("6.18.44-amd64", "linux", None),
            ("6.6.0", "linux", None),
            ("6.1.0-18-cloud-amd64", "linux", Some(Outcome::Warning)),
            ("5.15.0-1019-aws", "linux", Some(Outcome::Bad)),
            ("", "linux", Some(Outcome::Bad)),
            ("10.0.20348.2402", "windows", Some(Outcome::Warning)),
        ] {
            let mut list = Checklist::default();
            let info = json!({ "kernelVersion": kernel, "operatingSystem": os });
            let node = json!({ "metadata": { "name": "a" }, "status": { "nodeInfo": info } });
            one(&node, When::Before, &mut list);
            assert_eq!(list.complaints().first().map(|it| it.0), outcome, "{kernel}");
        }
    }

    #[test]
    fn nodes_that_the_image_is_not_for_are_named_before_it_is_there() {
        let named = |architecture: &str, when| {
            let mut list = Checklist::default();
            let info = json!({
                "kernelVersion": "6.12.0", "operatingSystem": "linux",
                "architecture": architecture,
            });
            let node = json!({ "metadata": { "name": "a" }, "status": { "nodeInfo": info } });
            one(&node, when, &mut list);
            !list.is_good()
        };
        assert!(named("arm64", When::Before));
        assert!(!named("amd64", When::Before));
        assert!(!named("arm64", When::Installed), "it may be another image");
    }
}
