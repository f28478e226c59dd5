//! `cargo xtask test`: everything under test, by cargo-nextest.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::setup::{cargo, with_tools};

/// Runs the tests of the workspace; the daemons that stories start have just been built.
pub fn run(filters: &[String]) -> Result<ExitCode> {
    let mut command = with_tools(cargo())?;
    command.args(["nextest", "run", "--workspace"]).args(filters);
    // Failed stories bring their own explanation, and in it the logs; not forty frames as well.
    command.env("RUST_LIB_BACKTRACE", "0");
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
