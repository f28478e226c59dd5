//! `cargo xtask test`: everything under test, by cargo-nextest.

use std::{
    env,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::setup::{cargo, tools};

/// Runs the tests of the workspace; the daemons that stories start have just been built.
pub fn run(filters: &[String]) -> Result<ExitCode> {
    let mut command = with_tools(cargo())?;
    command.args(["nextest", "run", "--workspace"]).args(filters);
    // Failed stories bring their own explanation, and in it the logs; not forty frames as well.
    command.env("RUST_LIB_BACKTRACE", "0");
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Lets a command find what setup has built.
fn with_tools(mut command: Command) -> Result<Command> {
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(env::split_paths(&path).chain([tools()]))
        .context("a directory of PATH has a colon in its name")?;
    command.env("PATH", path);
    Ok(command)
}
