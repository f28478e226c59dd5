//! One long command with progress: quiet while it is quick, its log shown when it fails.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use mesh_harness::process::tail;

use crate::{QUIET, ebpf::repository};

/// How often a sign of life is given.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// Runs `command`, which is to `what`: nothing is said before [`QUIET`], then how long it takes.
///
/// # Errors
/// Where the command fails; with the end of its log.
pub fn run(what: &str, mut command: Command) -> Result<()> {
    let log = log_file(what)?;
    let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    let start = Instant::now();
    let mut next = QUIET;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() >= next {
            if next == QUIET {
                println!("   {what}: {}", log.display());
            } else {
                println!("   {what}: {} s, {}", start.elapsed().as_secs(), last_line(&log));
            }
            next += SIGN_OF_LIFE;
        }
        sleep(Duration::from_millis(50));
    };
    if !status.success() {
        let text = fs::read_to_string(&log).unwrap_or_default();
        bail!(
            "{what} failed, {status}: {command:?}\n{}\n(all of it: {})",
            tail(&text, 40),
            log.display()
        );
    }
    if next > QUIET {
        println!("   {what}: done in {} s", start.elapsed().as_secs());
    }
    Ok(())
}

/// `target/xtask/<what>.log`, the words joined by dashes.
fn log_file(what: &str) -> Result<PathBuf> {
    let directory = repository().join("target/xtask");
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let name: String =
        what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    Ok(directory.join(name).with_extension("log"))
}

/// The last line of a log, cut to fit beside the rest of a progress line.
fn last_line(log: &PathBuf) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or_default().trim().chars().take(70).collect()
}
