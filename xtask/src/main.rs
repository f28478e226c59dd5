//! Everything a person runs in this repository: `cargo xtask demo`, `cargo xtask test`.

#![forbid(unsafe_code)]

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod demo;
mod ebpf;
mod fuzz;
mod image;
mod manifests;
mod preflight;
mod setup;
mod step;
mod supervise;
mod test;

/// How long something may take before it is announced.
const QUIET: Duration = Duration::from_secs(2);

#[derive(Parser)]
#[command(about = "Everything a person runs in this repository", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs what building, the demo and the tests need; the commands below do it themselves.
    Setup,
    /// Builds the kernel programs into target/bpf/mesh-ebpf.o.
    Ebpf,
    /// Shows the mesh at work on this machine, step by step.
    Demo {
        /// Leaves the mesh up and says how to look around.
        #[arg(long)]
        keep: bool,
        /// Takes down what --keep left up.
        #[arg(long, conflicts_with = "keep")]
        down: bool,
        /// The demo itself; without it, a parent that cleans up whatever happens.
        #[arg(long, hide = true)]
        supervised: bool,
    },
    /// Measures nodemesh beside no mesh, a bare relay pair, Envoy, HAProxy and nginx; fails where
    /// verdicts take longer than is promised.
    Bench {
        /// One part of it.
        #[arg(long, value_enum)]
        only: Option<bench::Part>,
        /// The benchmark itself; without it, a build with optimisation that then runs it.
        #[arg(long, hide = true)]
        supervised: bool,
    },
    /// Builds the image for clusters into target/image/nodemesh.tar: static programs, no daemon.
    Image,
    /// Writes the definitions of nodemesh's kinds, deploy/crds, from the Rust types, and the chart.
    Crds,
    /// Writes the Helm chart, deploy/chart, from deploy/base.
    Manifests,
    /// Tries random input on what reads what strangers send, or on those targets of fuzz/.
    Fuzz {
        /// Names of targets.
        targets: Vec<String>,
        /// How long each of them is tried.
        #[arg(long, default_value_t = 8)]
        seconds: u32,
    },
    /// Runs all tests, or those whose names contain one of the filters.
    Test {
        /// Parts of test names.
        filters: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup => setup::run()?,
        Command::Ebpf => println!("{}", ebpf::build()?.display()),
        Command::Demo { down: true, .. } => demo::take_down()?,
        Command::Demo { keep, supervised: true, .. } => demo::run(keep)?,
        Command::Demo { keep, .. } => {
            setup::run()?;
            setup::build()?;
            return supervise::run(demo::supervised(keep));
        }
        Command::Bench { only, supervised: true } => bench::run(only)?,
        Command::Bench { only, .. } => return bench::launch(only),
        Command::Image => println!("{}", image::run()?.display()),
        Command::Crds => {
            manifests::crds()?;
            manifests::chart()?;
        }
        Command::Manifests => manifests::chart()?,
        Command::Fuzz { targets, seconds } => fuzz::run(&targets, seconds)?,
        Command::Test { filters } => {
            setup::run()?;
            setup::build()?;
            return test::run(&filters);
        }
    }
    Ok(ExitCode::SUCCESS)
}
