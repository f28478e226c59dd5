//! A daemon that stories start, kill and start again.

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::{
    process::{Background, Place, tail},
    wait,
};

/// How long a daemon may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(20);

/// The controller, or the agent of a node.
#[derive(Debug)]
pub struct Daemon {
    /// What logs and errors call it.
    pub name: String,
    place: Place,
    command_line: Vec<String>,
    log: PathBuf,
    running: Mutex<Option<Background>>,
}

impl Daemon {
    /// A daemon that is not running yet.
    pub fn new(name: &str, place: Place, command_line: Vec<String>, log: PathBuf) -> Self {
        Self { name: name.to_owned(), place, command_line, log, running: Mutex::default() }
    }

    /// Starts it; fails where it is running.
    pub fn start(&self) -> Result<()> {
        let mut running = self.lock();
        if running.is_some() {
            bail!("{} is running already", self.name);
        }
        let (program, arguments) = self.command_line.split_first().context("no program")?;
        let mut command = self.place.command(program);
        command.args(arguments).env("RUST_BACKTRACE", "1");
        *running = Some(Background::spawn(command, &self.log)?);
        Ok(())
    }

    /// Ends it with SIGKILL and waits until it is gone.
    pub fn kill(&self) {
        self.lock().take();
    }

    /// Ends it with SIGTERM; its exit code.
    pub fn stop(&self) -> Result<i32> {
        let mut daemon = self.lock().take().with_context(|| format!("{} is down", self.name))?;
        daemon.signal(Signal::TERM)?;
        wait::until(&format!("{} to end after SIGTERM", self.name), STOP, || daemon.ended())
            .with_context(|| self.last_words())
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(Background::pid)
    }

    /// Fails if it has ended by itself.
    pub fn check_alive(&self) -> Result<()> {
        let mut running = self.lock();
        let daemon = running.as_mut().with_context(|| format!("{} is down", self.name))?;
        if let Some(code) = daemon.ended()? {
            drop(running);
            bail!("{} ended with {code}\n{}", self.name, self.last_words());
        }
        Ok(())
    }

    /// Everything it has logged, earlier runs included.
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The end of its log, for errors.
    pub fn last_words(&self) -> String {
        format!("last lines of {}:\n{}", self.name, tail(&self.log(), 30))
    }

    /// The lines of its log that contain every one of `words`.
    pub fn lines_with(&self, words: &[&str]) -> Vec<String> {
        let log = self.log();
        log.lines()
            .filter(|line| words.iter().all(|word| line.contains(word)))
            .map(str::to_owned)
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Background>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
