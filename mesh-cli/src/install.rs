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
    image,
    manifests::{self, IMAGE, Manifest, Profile},
    output,
    rollout::{self, Component},
};

mod strict;

/// What this command installs.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Applies the manifests of nodemesh on the server and waits until every part is ready.
///
/// What is applied again is left as it is, so that an installation that was cut short is completed
/// by another. Where nodemesh is installed already, it is upgraded; where --profile secure would then
/// refuse callers that are let in now, nothing is done without --yes.
///
/// Exit status: 0 where all is ready, 1 where something is not, 2 for wrong usage.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// What holds where no policy says otherwise
    #[arg(long, value_enum, default_value = "default")]
    profile: Profile,
    /// Make the mesh strict though callers would be refused by it
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    common: Common,
}

/// Applies this version's manifests over an installed one and waits until every part is ready.
///
/// The controller first: agents are replaced when it is ready, so that an image which cannot be
/// pulled costs no node its agent. The MeshConfig and every policy stay as they are. Exit status: 0
/// where all is ready, 1 where something is not, 2 for wrong usage.
#[derive(Debug, clap::Args)]
pub struct UpgradeArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// The image of controller and agents, where the cluster's nodes find it [default: this
    /// command's version from where the installed one comes from, else nodemesh:VERSION]
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// Print the manifests instead of applying them
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until every part is ready; agents are then replaced without waiting for the
    /// controller
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
    let common = &args.common;
    if common.dry_run {
        output::print(&manifests::text(args.profile, common.image.as_deref().unwrap_or(IMAGE))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    agents::runtime()?.block_on(async {
        let cluster = args.cluster.connect().await?;
        let installed = installed(&cluster).await?;
        if args.profile == Profile::Secure && installed.is_some() && !args.yes {
            strict::stands(&cluster).await?;
        }
        let image = common.image(installed.as_deref())?;
        put(&cluster, args.profile, common, &image, installed.as_deref()).await
    })
}

/// Runs `upgrade`.
///
/// # Errors
/// Where nothing is installed, the cluster refuses, or is not reached.
pub fn upgrade(args: &UpgradeArgs) -> anyhow::Result<ExitCode> {
    let common = &args.common;
    if let (true, Some(image)) = (common.dry_run, &common.image) {
        output::print(&manifests::text(Profile::Default, image)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    agents::runtime()?.block_on(async {
        let cluster = args.cluster.connect().await?;
        let Some(installed) = installed(&cluster).await? else {
            bail!("nodemesh is not installed in this cluster: nodemesh install");
        };
        if common.dry_run {
            let image = image::of_version(&installed, VERSION)?;
            output::print(&manifests::text(Profile::Default, &image)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let image = common.image(Some(&installed))?;
        put(&cluster, Profile::Default, common, &image, Some(&installed)).await
    })
}

impl Common {
    /// The image to put there, where `installed` is there already; says which, where nobody did.
    fn image(&self, installed: Option<&str>) -> anyhow::Result<String> {
        let Some(installed) = installed else {
            return Ok(self.image.clone().unwrap_or_else(|| IMAGE.to_owned()));
        };
        let image = match &self.image {
            Some(image) => image.clone(),
            None => image::of_version(installed, VERSION)?,
        };
        output::say(&format!("from {installed} to {image}"));
        Ok(image)
    }
}

/// The image that is installed, as far as anything is: that of the agents, which change last.
async fn installed(cluster: &Cluster) -> anyhow::Result<Option<String>> {
    for component in [Component::Agents, Component::Controller] {
        let workload = cluster.get(&component.path()).await?;
        if let Some(image) = workload.as_ref().and_then(rollout::image) {
            return Ok(Some(image.to_owned()));
        }
    }
    Ok(None)
}

async fn put(
    cluster: &Cluster,
    profile: Profile,
    common: &Common,
    image: &str,
    installed: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let deadline = Instant::now() + Duration::from_secs(common.timeout);
    let mut problems = Vec::new();
    let mut are_agents_old = installed.is_some();
    for manifest in manifests::objects(profile, image)? {
        // The controller is applied before. That it runs shows that the image is there for nodes
        // to pull: an agent that is replaced by one that cannot start takes its node's pods along.
        if are_agents_old && !common.no_wait && manifest.is_agents() {
            problems = rollout::wait(cluster, Component::Controller, deadline)
                .await
                .unwrap_or_else(|error| vec![format!("{error:#}")]);
            if !problems.is_empty() {
                break;
            }
        }
        are_agents_old &= !manifest.is_agents();
        if let Err(error) = apply(cluster, &manifest, deadline).await {
            problems.push(format!("{error:#}"));
            break;
        }
    }
    if problems.is_empty() && !common.no_wait {
        for component in Component::ALL {
            problems.extend(rollout::wait(cluster, component, deadline).await?);
        }
    }
    for problem in &problems {
        eprintln!("nodemesh: {problem}");
    }
    if let (false, true, Some(installed)) = (problems.is_empty(), are_agents_old, installed) {
        eprintln!(
            "nodemesh: the agents were left as they were ({installed}): mend what is said above \
             and run this again"
        );
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn apply(cluster: &Cluster, manifest: &Manifest, deadline: Instant) -> anyhow::Result<()> {
    if manifest.is_of_own_kind() {
        known(cluster, manifest, deadline).await?;
    }
    let applied = cluster.apply(&manifest.path(), &manifest.object).await;
    applied.with_context(|| format!("{} was not applied", manifest.title()))?;
    output::say(&format!("applied {}", manifest.title()));
    Ok(())
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
