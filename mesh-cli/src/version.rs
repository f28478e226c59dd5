//! `nodemesh version`: which version is where.

use std::{collections::BTreeMap, fmt, process::ExitCode};

use serde_json::Value;

use crate::{
    agents,
    cluster::ClusterArgs,
    image::Image,
    output,
    rollout::{self, Component},
};

/// Shows the version of this command, of the controller and of every agent.
///
/// Versions in a cluster are the tags of images; of an image without such a tag it is unknown, which
/// counts as no difference. Exit status: 0 where all that are known are one, 1 where they differ, 2
/// for wrong usage.
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
                    is_one &= version.known().is_none_or(|it| it == client);
                    rows.push(vec![
                        component.title().to_owned(),
                        version.to_string(),
                        pieces(count),
                    ]);
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
fn versions(pods: &[Value]) -> BTreeMap<Version<'_>, usize> {
    let mut versions = BTreeMap::new();
    for pod in pods {
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or("?");
        let known = Image::of(image).version().map(Version::Known);
        *versions.entry(known.unwrap_or(Version::Unknown { image })).or_default() += 1;
    }
    versions
}

/// What the name of an image says of its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Version<'i> {
    Known(&'i str),
    /// Its name is a digest, or a tag that is somebody's own.
    Unknown {
        image: &'i str,
    },
}

impl<'i> Version<'i> {
    fn known(self) -> Option<&'i str> {
        match self {
            Self::Known(version) => Some(version),
            Self::Unknown { .. } => None,
        }
    }
}

impl fmt::Display for Version<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(version) => f.write_str(version),
            Self::Unknown { image } => write!(f, "unknown (image {image})"),
        }
    }
}
