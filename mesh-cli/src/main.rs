//! `nodemesh`: what people ask of the mesh. A file a command.

#![forbid(unsafe_code)]

use std::{io, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

mod agent_socket;
mod agents;
mod authz;
mod bug_report;
mod bypass;
mod check;
mod checklist;
mod cluster;
mod container;
mod describe;
mod enroll;
mod flows;
mod image;
mod install;
mod manifests;
mod output;
mod picture;
mod rollout;
mod routes;
mod status;
mod uninstall;
mod validate;
mod value;
mod version;

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
    /// Show what the agents do, and what is wrong
    Status(status::Args),
    /// Say whether pods are in the mesh, and end their connections from before
    Enroll(enroll::Args),
    /// Let pods around the mesh for a while
    Bypass(bypass::Args),
    /// Say who may call whom, and which policy decides
    Authz(authz::Args),
    /// Show which way requests to a Service go, and which route says so
    Routes(routes::Args),
    /// Check Kubernetes YAML offline, as the controller would read it
    Validate(validate::Args),
    /// Put nodemesh into a cluster, or print what would be put there
    Install(install::Args),
    /// Bring what is installed in a cluster to this version
    Upgrade(install::UpgradeArgs),
    /// Take nodemesh out of a cluster, agents first
    Uninstall(uninstall::Args),
    /// Check a cluster: what an installation needs, or what it would break
    Check(check::Args),
    /// Show what the mesh makes of a pod or a Service
    Describe(describe::Args),
    /// Show the values in effect for a pod, and where each comes from
    Config(describe::ConfigArgs),
    /// Collect what somebody needs who was not there into one file
    BugReport(bug_report::Args),
    /// Show which version is where
    Version(version::Args),
    #[command(hide = true)]
    AgentSocket(agent_socket::Args),
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
        Command::Enroll(args) => enroll::run(&args),
        Command::Bypass(args) => bypass::run(&args),
        Command::Authz(args) => authz::run(&args),
        Command::Routes(args) => routes::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Install(args) => install::run(&args),
        Command::Upgrade(args) => install::upgrade(&args),
        Command::Uninstall(args) => uninstall::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Describe(args) => describe::run(&args),
        Command::Config(args) => describe::config(&args),
        Command::BugReport(args) => bug_report::run(&args),
        Command::Version(args) => version::run(&args),
        Command::AgentSocket(args) => agent_socket::run(&args),
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
