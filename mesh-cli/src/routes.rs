//! `nodemesh routes`: which way requests to a Service go, and which route says so.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use crate::output;

mod judged;
mod matched;
mod request;
mod seen;
mod service;
mod shown;
mod table;
mod words;

/// Shows for each port of a Service what it speaks and why, the routes that are for it, and those
/// that are refused.
///
/// The objects of the cluster, or with -f those of files, are compiled as the controller does it;
/// no agent is asked.
///
/// Exit status: 0 where the Service is known, for `match` where the request gets somewhere, 1 where it
/// is answered with an error, 2 for wrong usage and where it cannot be said.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    service: service::Question,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say which rule of which route decides over a request, and why no other does
    Match(Box<matched::Question>),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// One JSON object on a line.
    Json,
    /// The same object as YAML.
    Yaml,
}

/// Runs the command.
///
/// # Errors
/// Where nobody reads what is printed; what else is wrong is printed.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let answer = match &args.command {
        Some(Command::Match(question)) => question.answer(),
        None => args.service.answer().map(|text| (true, text)),
    };
    output::answer(answer)
}

impl Format {
    fn print<T: Serialize>(
        self,
        shown: &T,
        table: impl Fn(&T) -> String,
    ) -> anyhow::Result<String> {
        Ok(match self {
            Self::Table => table(shown),
            Self::Json => serde_json::to_string(shown)? + "\n",
            Self::Yaml => serde_saphyr::to_string(shown).context("as YAML")?,
        })
    }
}
