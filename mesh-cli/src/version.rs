//! `nodemesh version`: which version is where.

use std::{collections::BTreeMap, process::ExitCode};

use serde_json::Value;

use crate::{
    agents,
    cluster::ClusterArgs,
    output,
    rollout::{self, Component},
};

/// Shows the version of this command, of the controller and of every agent.
///
/// Versions in a cluster are the tags of images. Exit status: 0 where all are one, 1 where they
/// differ, 2 for wrong usage.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Show the version of this command alone; no cluster is asked
    #[arg(long)]
    client: bool,
}

/// Runs the command.
///
/// # Errors
/// Where the cluster refuses, or is not reached.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let client = env!("CARGO_PKG_VERSION");
    let mut rows = vec![vec!["client".to_owned(), client.to_owned()]];
    let mut is_one = true;
    if !args.client {
        agents::runtime()?.block_on(async {
            let cluster = args.cluster.connect().await?;
            for component in Component::ALL {
                let pods = rollout::pods(&cluster, component).await?;
                for (version, count) in versions(&pods) {
                    is_one &= version == client;
                    rows.push(vec![component.title().to_owned(), version, pieces(count)]);
                }
            }
            anyhow::Ok(())
        })?;
    }
    output::print(&output::columns("", &rows))?;
    if !is_one {
        eprintln!("nodemesh: versions differ: `nodemesh upgrade` brings the cluster to {client}");
    }
    Ok(if is_one { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn pieces(count: usize) -> String {
    format!("{count} {}", if count == 1 { "pod" } else { "pods" })
}

/// How many pods are of which version.
fn versions(pods: &[Value]) -> BTreeMap<String, usize> {
    let mut versions = BTreeMap::new();
    for pod in pods {
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or("unknown");
        *versions.entry(tag(image).to_owned()).or_default() += 1;
    }
    versions
}

/// The tag of an image, or all of its name where it has none.
fn tag(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    match name.rsplit_once(':') {
        // What follows a slash is no port of a registry.
        Some((_, tag)) if !tag.contains('/') => tag,
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_versions() {
        for (image, version) in [
            ("nodemesh:0.1.0", "0.1.0"),
            ("registry.example:5000/mesh/nodemesh:0.2.0", "0.2.0"),
            ("registry.example:5000/nodemesh", "registry.example:5000/nodemesh"),
            ("nodemesh:0.1.0@sha256:00", "0.1.0"),
        ] {
            assert_eq!(tag(image), version);
        }
    }
}
