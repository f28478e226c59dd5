//! `nodemesh status`: what each agent does, and what is wrong.

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::ValueEnum;
use mesh_common::api::v1;
use tokio::runtime::Runtime;

use crate::{
    agents::{self, Agents, PATIENCE, Place},
    cluster::Cluster,
    output::{self, Palette},
};

pub(crate) mod json;
mod table;

/// How often agents are asked with --wait.
const LOOK: Duration = Duration::from_millis(500);

/// Shows what the agents do, and what is wrong.
///
/// Of this machine, where agents have their sockets; else, or where one is named, of a cluster.
///
/// Exit status: 0 where all is well, 1 where an agent reports a problem or cannot be reached.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    agents: Agents,
    /// Wait until every agent answers and has no problem
    #[arg(long)]
    wait: bool,
    /// Seconds to wait at most
    #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "wait")]
    timeout: u64,
    /// For people, or one JSON object a line and agent
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// How status is printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Sections with columns.
    Table,
    /// One JSON object a line.
    Json,
}

/// Runs the command.
///
/// # Errors
/// Where no agent is found, or nobody reads what is printed.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = agents::runtime().context("cannot start")?;
    let patience = Duration::from_secs(if args.wait { args.timeout } else { 0 });
    let start = Instant::now();
    let seen = loop {
        let seen = look(args, &runtime);
        let is_good = seen.as_ref().is_ok_and(|seen| seen.is_good);
        if is_good || start.elapsed() >= patience {
            break seen?;
        }
        thread::sleep(LOOK);
    };
    for problem in &seen.unreached {
        eprintln!("nodemesh: {problem}");
    }
    output::print(&seen.text)?;
    Ok(if seen.is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the agents said at one time.
struct Seen {
    is_good: bool,
    text: String,
    unreached: Vec<String>,
}

fn look(args: &Args, runtime: &Runtime) -> anyhow::Result<Seen> {
    let palette = Palette::detect();
    let mut is_good = true;
    let (mut text, mut unreached) = (Vec::new(), Vec::new());
    for answer in runtime.block_on(ask_all(&args.agents))? {
        let status = match answer {
            Ok(status) => status,
            Err(error) => {
                unreached.push(format!("{error:#}"));
                continue;
            }
        };
        is_good &= status.problems.is_empty();
        text.push(match args.output {
            Format::Table => table::section(&status, palette),
            Format::Json => json::line(&status)? + "\n",
        });
    }
    let between = match args.output {
        Format::Table => "\n",
        Format::Json => "",
    };
    Ok(Seen { is_good: is_good && unreached.is_empty(), text: text.join(between), unreached })
}

/// What each agent says, all asked at once.
///
/// # Errors
/// Where no agent is found.
pub async fn ask_all(agents: &Agents) -> anyhow::Result<Vec<anyhow::Result<v1::NodeStatus>>> {
    let places = agents.find().await?;
    Ok(agents::each(places, |place| async move { ask(&place).await }).await)
}

/// What the agent of a cluster's node says.
///
/// # Errors
/// Where there is none, or it does not answer.
pub async fn of_node(cluster: &Cluster, node: &str) -> anyhow::Result<v1::NodeStatus> {
    let places = agents::of_cluster(cluster, Some(node)).await?;
    ask(places.first().context("no agent was found")?).await
}

/// What an agent says.
///
/// # Errors
/// Where it cannot be reached or does not answer.
pub async fn ask(place: &Place) -> anyhow::Result<v1::NodeStatus> {
    let mut agent = place.connect().await?;
    let answer = tokio::time::timeout(PATIENCE, agent.get_status(v1::GetStatusRequest {})).await;
    match answer {
        Ok(Ok(status)) => Ok(status.into_inner()),
        Ok(Err(status)) => bail!("{place} says: {}", status.message()),
        Err(_) => bail!("{place} does not answer; look at its log, then restart it"),
    }
}
