//! `cargo xtask fuzz`: what strangers can send, at random, against everything that reads it.
//!
//! With the stable compiler: the sanitizers want nightly, and what they find is the business of
//! `unsafe`, which has no place in what is fuzzed.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    ebpf::repository,
    setup::{self, cargo},
    step,
};

/// The longest input, in bytes: a head of HTTP/1.1 may be as long, and nothing else needs to be.
const LONGEST: u32 = 64 * 1024;
/// What one input may take, in seconds, on a machine that does other things as well.
const PATIENCE: u32 = 20;

/// Builds every target and runs those called `only`, or all, for so many seconds each.
pub fn run(only: &[String], seconds: u32) -> Result<()> {
    setup::install_fuzzer()?;
    step::run("building the fuzz targets", fuzz("build")?)?;
    let targets = targets()?;
    for name in only {
        ensure!(targets.contains(name), "no target {name}; there are {}", targets.join(", "));
    }
    for name in targets.iter().filter(|name| only.is_empty() || only.contains(name)) {
        one(name, seconds)?;
        println!("✓ {name}");
    }
    Ok(())
}

/// What is found new is kept in the first folder, and what breaks it in fuzz/artifacts.
fn one(name: &str, seconds: u32) -> Result<()> {
    let corpus = target().join("corpus").join(name);
    fs::create_dir_all(&corpus).with_context(|| format!("creating {}", corpus.display()))?;
    let mut run = fuzz("run")?;
    run.arg(name).arg(&corpus);
    run.args(seeds(name).into_iter().filter(|folder| folder.is_dir())).arg("--").args([
        format!("-max_total_time={seconds}"),
        format!("-max_len={LONGEST}"),
        format!("-timeout={PATIENCE}"),
    ]);
    step::run(&format!("fuzzing {name}"), run)
}

/// Inputs that are worth to begin with.
fn seeds(name: &str) -> Vec<PathBuf> {
    let own = repository().join("fuzz/seeds").join(name);
    let deploy = repository().join("deploy");
    match name {
        "objects" => vec![own, deploy.join("demo"), deploy.join("examples")],
        _ => vec![own],
    }
}

fn targets() -> Result<Vec<String>> {
    let folder = repository().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Beside the workspace's own: its artifacts have other flags.
fn target() -> PathBuf {
    repository().join("target/fuzz")
}

fn fuzz(command: &str) -> Result<Command> {
    let mut cargo = setup::with_tools(cargo())?;
    cargo.args(["fuzz", command, "--sanitizer", "none", "--target-dir"]).arg(target());
    Ok(cargo)
}
