//! `nodemesh authz`: who may call whom, and which policy says so.

use std::process::ExitCode;

use clap::Subcommand;

use crate::output::{self, Palette};

mod check;
mod objects;
mod pod;
mod shown;
mod table;
mod words;

pub use check::verdict;

/// Shows what decides over connections to a pod, and judges one that nobody has made.
///
/// The answer is that of the agent of the pod's node: with --from, --from-ip and --port the
/// verdict of the proxy's own code on what it knows now. With --objects the objects of a cluster
/// are read instead, wherever the pod is, and no agent is asked.
///
/// Exit status: 0 where the connection is allowed or none is judged, 1 where it is denied, 2 for
/// wrong usage and where it cannot be said.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    pod: pod::Question,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Judge one connection by Kubernetes YAML, offline
    Check(check::Check),
}

/// Runs the command.
///
/// # Errors
/// Where nobody reads what is printed; what else is wrong is printed.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let answer = match &args.command {
        Some(Command::Check(check)) => check.answer().map(|(allowed, text)| (allowed, text + "\n")),
        None => args.pod.answer(Palette::detect()),
    };
    output::answer(answer)
}
