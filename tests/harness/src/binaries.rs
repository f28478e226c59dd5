//! Where the binaries under test are.

use std::{env, path::PathBuf};

use anyhow::{Context, Result, bail};

/// The path of one of the workspace's binaries: beside the running test or program, where cargo
/// puts them.
pub fn find(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("finding out where this program is")?;
    let parent = own.parent().context("a program without a directory")?;
    // Tests are in target/<profile>/deps, binaries one above.
    let directory = if parent.ends_with("deps") { parent.parent() } else { Some(parent) };
    let path = directory.context("a deps directory without a parent")?.join(name);
    if !path.exists() {
        bail!("{} is missing: run `cargo build --workspace` or `cargo xtask test`", path.display());
    }
    Ok(path)
}
