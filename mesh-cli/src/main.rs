//! `nodemesh`: what people ask of the mesh. A file a command.

#![forbid(unsafe_code)]

use std::{io, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

mod agents;
mod authz;
mod flows;
mod output;
mod status;
mod validate;

/// Looks into a nodemesh service mesh and checks its configuration.
///
/// Exit status: 0 where all is well, 1 where something is not, 2 for wrong usage.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show connections that ended: who called whom, what became of it, how it was protected
    Flows(flows::Args),
    /// Show what the agents of this machine do, and what is wrong
    Status(status::Args),
    /// Say who may call whom, and which policy decides
    Authz(authz::Args),
    /// Check Kubernetes YAML offline, as the controller would read it
    Validate(validate::Args),
    /// Print a completion script for a shell
    Completion {
        /// Which shell
        shell: Shell,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Flows(args) => flows::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Authz(args) => authz::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "nodemesh", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        // A reader such as `head` that has seen enough is no error.
        if error.downcast_ref::<io::Error>().is_some_and(is_broken_pipe) {
            return ExitCode::SUCCESS;
        }
        eprintln!("nodemesh: {error:#}");
        ExitCode::FAILURE
    })
}

fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }
}
