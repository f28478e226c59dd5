//! `nodemesh status`: what each agent of this machine does, and what is wrong.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, bail};
use clap::ValueEnum;
use mesh_common::api::v1;

use crate::{
    agents::{self, PATIENCE, Sockets},
    output::{self, Palette},
};

mod json;
mod table;

/// Shows what the agents of this machine do, and what is wrong.
///
/// Exit status: 0 where all is well, 1 where an agent reports a problem or cannot be reached.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    sockets: Sockets,
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
    let sockets = args.sockets.find()?;
    let runtime = agents::runtime().context("cannot start")?;
    let palette = Palette::detect();
    let mut code = ExitCode::SUCCESS;
    let mut text = Vec::new();
    for socket in sockets {
        let status = match runtime.block_on(ask(&socket)) {
            Ok(status) => status,
            Err(error) => {
                eprintln!("nodemesh: {error:#}");
                code = ExitCode::FAILURE;
                continue;
            }
        };
        if !status.problems.is_empty() {
            code = ExitCode::FAILURE;
        }
        text.push(match args.output {
            Format::Table => table::section(&status, palette),
            Format::Json => json::line(&status)? + "\n",
        });
    }
    let between = match args.output {
        Format::Table => "\n",
        Format::Json => "",
    };
    output::print(&text.join(between))?;
    Ok(code)
}

async fn ask(socket: &Path) -> anyhow::Result<v1::NodeStatus> {
    let mut agent = agents::connect(socket).await?;
    let answer = tokio::time::timeout(PATIENCE, agent.get_status(v1::GetStatusRequest {})).await;
    match answer {
        Ok(Ok(status)) => Ok(status.into_inner()),
        Ok(Err(status)) => {
            bail!("the agent behind {} says: {}", socket.display(), status.message())
        }
        Err(_) => bail!(
            "the agent behind {} does not answer; look at its log, then restart it",
            socket.display()
        ),
    }
}
