//! `cargo xtask bench`: nodemesh beside no mesh, beside a bare relay pair for bytes, and beside other
//! proxies for requests.
//!
//! One run, the cases interleaved, three rounds, medians. Between runs figures move by a third on
//! a shared machine; within a run ratios hold. CPU time is what the kernel accounts to the
//! processes, so it does not depend on what else the machine does as much as the clock does.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use mesh_harness::binaries;

use crate::{
    ebpf::repository,
    setup::{self, cargo},
    step, supervise,
};

mod case;
mod cpu;
mod http;
mod measure;
mod table;

use case::{Case, Stage};
use measure::Measurement;

/// What is run with optimisation: without the tests' servers, which take long to compile.
const MEASURED: [&str; 5] = ["mesh-agent", "mesh-controller", "mesh-cli", "mesh-bench", "xtask"];

/// How often each case is measured.
const ROUNDS: usize = 3;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Connections and bytes, beside a bare relay pair.
    Bytes,
    /// Requests, beside Envoy, HAProxy and nginx.
    Http,
}

/// Builds everything with optimisation and runs the benchmark with those binaries.
pub fn launch(only: Option<Part>) -> Result<ExitCode> {
    setup::run_with(&setup::BENCH_PROGRAMS)?;
    if only != Some(Part::Bytes) {
        setup::install_envoy()?;
    }
    setup::build_kernel_programs()?;
    let mut build = cargo();
    build.args(["build", "--release", "--bins"]);
    for package in MEASURED {
        build.args(["--package", package]);
    }
    step::run("building the workspace with optimisation", build)?;
    let optimised: PathBuf = repository().join("target/release/xtask");
    let mut command = Command::new(optimised);
    command.args(["bench", "--supervised"]);
    if let Some(part) = only.and_then(|part| part.to_possible_value()) {
        command.args(["--only", part.get_name()]);
    }
    supervise::run(command)
}

/// Measures, and prints the tables; fails where verdicts take longer than is promised.
pub fn run(only: Option<Part>) -> Result<()> {
    ensure!(!cfg!(debug_assertions), "start this with `cargo xtask bench`, which optimises");
    let peer = binaries::find("mesh-bench")?;
    if only != Some(Part::Bytes) {
        http::run(&peer)?;
    }
    if only != Some(Part::Http) {
        bytes(&peer)?;
    }
    Ok(())
}

fn bytes(peer: &Path) -> Result<()> {
    println!("Laying out the mesh, servers and relays.");
    let stage = Stage::set_up(peer)?;
    let idle = stage.agent_memory()?;

    let mut measured = Case::ALL.map(|case| (case, Vec::new()));
    for round in 1..=ROUNDS {
        for (case, rounds) in &mut measured {
            println!("Round {round} of {ROUNDS}: {case}");
            rounds.push(Measurement::take(&stage, *case, peer)?);
        }
    }
    println!("Holding 1,000 connections through the mesh.");
    let held = stage.agent_memory_with_connections(peer)?;

    println!("\n{}", table::render(&measured));
    println!("agent RSS: idle {idle:.1} MiB, with 1,000 connections {held:.1} MiB (bar: 30)");
    // Nothing else runs any more that would take time from it.
    drop(stage);
    println!("\nVerdicts, with 10,000 policies for one workload (bar: p99 below 5 us):");
    let verdicts = Command::new(peer).arg("verdicts").status()?;
    ensure!(verdicts.success(), "verdicts take longer than is promised, see above");
    Ok(())
}
