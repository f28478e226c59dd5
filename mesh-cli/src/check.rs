//! `nodemesh check`: whether a cluster can take nodemesh, and whether what is there would stand it.

use std::process::ExitCode;

use crate::{
    agents, checklist::Checklist, cluster::ClusterArgs, output, output::Palette, picture::Picture,
};

pub mod breakage;
mod callers;
mod mesh;
mod network_policy;
mod nodes;
mod others;
mod rights;
mod scrapes;
mod server;

/// Checks a cluster: before an installation with --pre, else the installation and what in the
/// cluster breaks by it, or would once the mesh is strict and allows nothing by itself.
///
/// Exit status: 0 where nothing is wrong, 1 where something is, 2 for wrong usage.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Check what an installation needs: versions, nodes, rights, other meshes
    #[arg(long)]
    pre: bool,
}

/// Runs the command.
///
/// # Errors
/// Where the cluster is not known or gives no answer that can be used.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let list = agents::runtime()?.block_on(checks(args))?;
    output::print(&list.text(Palette::detect()))?;
    Ok(if list.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn checks(args: &Args) -> anyhow::Result<Checklist> {
    let cluster = args.cluster.connect().await?;
    let mut list = Checklist::default();
    list.section("API server");
    let version = match cluster.get("/version").await {
        Ok(version) => version.unwrap_or_default(),
        Err(error) => {
            list.bad(format!("{error:#}"), "nothing else can be checked without it");
            return Ok(list);
        }
    };
    list.good(format!("answers: {}", version["gitVersion"].as_str().unwrap_or("?")));
    if args.pre {
        server::check(&version, &mut list);
        let ended = rights::check(&cluster, &mut list).await;
        list.looked(ended);
        let ended = nodes::check(&cluster, nodes::When::Before, &mut list).await;
        list.looked(ended);
        let ended = others::check(&cluster, &mut list).await;
        list.looked(ended);
    } else {
        let ended = mesh::check(&cluster, &mut list).await;
        list.looked(ended);
        let ended = nodes::check(&cluster, nodes::When::Installed, &mut list).await;
        list.looked(ended);
        match Picture::of(&cluster).await {
            Ok(picture) => {
                list.section("what is wanted of the mesh");
                let compiled = picture.compiled();
                mesh::problems(&compiled, &mut list);
                breakage::check(&cluster, &picture, &compiled, &mut list).await;
            }
            // What is there and what is ready is known all the same.
            Err(error) => list.warning(
                format!("what the mesh breaks was not looked at: {error:#}"),
                "ask as somebody who may list pods, Services and policies",
            ),
        }
    }
    Ok(list)
}
