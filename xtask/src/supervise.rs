//! Runs what lays out a mesh in a process of its own and cleans up after it, however it ends.

use std::{
    os::unix::process::CommandExt,
    process::{Child, Command, ExitCode},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result};
use mesh_harness::cleanup;
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

/// Runs `command`. On Ctrl-C and its like it is killed and what it made taken away, also where the
/// signal is to this process alone.
///
/// The command is in a process group of its own: nothing of it may go on making namespaces while
/// they are being removed.
pub fn run(mut command: Command) -> Result<ExitCode> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("catching signals")?;
    let mut child =
        command.process_group(0).spawn().with_context(|| format!("starting {command:?}"))?;
    let code = loop {
        if let Some(status) = child.try_wait()? {
            break status.code().unwrap_or(1);
        }
        if let Some(signal) = signals.pending().next() {
            println!("\nInterrupted; cleaning up.");
            end(&mut child)?;
            // As shells have it for a program that a signal ended.
            break 128 + signal;
        }
        sleep(Duration::from_millis(20));
    };
    // The owner is dead: what it did not disown or take away itself goes now.
    cleanup::sweep_abandoned()?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

fn end(child: &mut Child) -> Result<()> {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a pid")?;
    kill_process_group(group, Signal::KILL).context("ending what runs")?;
    child.wait()?;
    Ok(())
}
