//! `nodemesh install` and `nodemesh upgrade`: puts nodemesh into a cluster, and waits until it
//! works there.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{
    agents,
    cluster::{Cluster, ClusterArgs},
    manifests::{self, IMAGE, Manifest, Profile},
    output,
    rollout::{self, Component},
};

/// Applies the manifests of nodemesh on the server and waits until every part is ready.
///
/// What is applied again is left as it is, so that an installation that was cut short is completed
/// by another. Exit status: 0 where all is ready, 1 where something is not, 2 for wrong usage.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// What holds where no policy says otherwise
    #[arg(long, value_enum, default_value = "default")]
    profile: Profile,
    #[command(flatten)]
    common: Common,
}

/// Applies this version's manifests over an installed one and waits until every part is ready.
///
/// The MeshConfig and every policy stay as they are. Exit status: 0 where all is ready, 1 where
/// something is not, 2 for wrong usage.
#[derive(Debug, clap::Args)]
pub struct UpgradeArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// The image of controller and agents, where the cluster's nodes find it
    #[arg(long, value_name = "NAME", default_value = IMAGE)]
    image: String,
    /// Print the manifests instead of applying them; no cluster is asked
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until every part is ready
    #[arg(long)]
    no_wait: bool,
    /// Seconds to wait at most
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
}

/// Runs `install`.
///
/// # Errors
/// Where the cluster refuses, or is not reached.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.common.dry_run {
        output::print(&manifests::text(args.profile, &args.common.image)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    agents::runtime()?.block_on(async {
        let cluster = args.cluster.connect().await?;
        put(&cluster, args.profile, &args.common).await
    })
}

/// Runs `upgrade`.
///
/// # Errors
/// Where nothing is installed, the cluster refuses, or is not reached.
pub fn upgrade(args: &UpgradeArgs) -> anyhow::Result<ExitCode> {
    if args.common.dry_run {
        output::print(&manifests::text(Profile::Default, &args.common.image)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    agents::runtime()?.block_on(async {
        let cluster = args.cluster.connect().await?;
        let Some(agent) = cluster.get(&Component::Agents.path()).await? else {
            bail!("nodemesh is not installed in this cluster: nodemesh install");
        };
        let before = rollout::image(&agent).unwrap_or("an unknown image");
        output::say(&format!("from {before} to {}", args.common.image));
        put(&cluster, Profile::Default, &args.common).await
    })
}

async fn put(cluster: &Cluster, profile: Profile, common: &Common) -> anyhow::Result<ExitCode> {
    let deadline = Instant::now() + Duration::from_secs(common.timeout);
    for manifest in manifests::objects(profile, &common.image)? {
        if manifest.is_of_own_kind() {
            known(cluster, &manifest, deadline).await?;
        }
        let applied = cluster.apply(&manifest.path(), &manifest.object).await;
        applied.with_context(|| format!("{} was not applied", manifest.title()))?;
        output::say(&format!("applied {}", manifest.title()));
    }
    if common.no_wait {
        return Ok(ExitCode::SUCCESS);
    }
    let mut waiting = Vec::new();
    for component in Component::ALL {
        waiting.extend(rollout::wait(cluster, component, deadline).await?);
    }
    for problem in &waiting {
        eprintln!("nodemesh: {problem}");
    }
    Ok(if waiting.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until the API server serves the kind of `manifest`, which it does a moment after it has
/// taken the definition.
async fn known(cluster: &Cluster, manifest: &Manifest, deadline: Instant) -> anyhow::Result<()> {
    let path = format!(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}.{}",
        manifest.plural(),
        manifest.group()
    );
    loop {
        let definition = cluster.get(&path).await?.unwrap_or_default();
        if is_established(&definition) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("the API server does not serve {} yet; install again", manifest.kind());
        }
        tokio::time::sleep(rollout::LOOK).await;
    }
}

fn is_established(definition: &Value) -> bool {
    let conditions = definition["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|it| it["type"] == "Established" && it["status"] == "True")
}
