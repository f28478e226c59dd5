//! Programs in a place: a network namespace and a cgroup.

use std::{
    ffi::OsStr,
    fmt,
    fs::{self, File},
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{netns::Netns, wait};

/// How long a program may run before it counts as stuck.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where a program runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its network.
    pub netns: Netns,
    /// Its cgroup, which decides whose hooks see its sockets.
    pub cgroup: PathBuf,
}

impl Place {
    /// A command that will run here, in a process group of its own (Ctrl-C is for the one who
    /// started the mesh, who then takes it down in order).
    ///
    /// `nsenter` and not `ip netns exec`, which remounts /sys and so hides cgroup2. The shell
    /// joins the cgroup before it becomes the program, so no socket is ever opened outside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        const ENTER: &str =
            r#"echo 0 >"$1" && netns=$2 && shift 2 && exec nsenter --net="$netns" -- "$@""#;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", ENTER, "enter"])
            .arg(self.cgroup.join("cgroup.procs"))
            .arg(self.netns.path())
            .arg(program)
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    /// Runs a program to its end.
    pub fn run<S: AsRef<OsStr>>(&self, command_line: &[S]) -> Result<Seen> {
        self.run_for(command_line, PATIENCE)
    }

    /// Runs a program to its end, which has to come within `patience`.
    pub fn run_for<S: AsRef<OsStr>>(&self, command_line: &[S], patience: Duration) -> Result<Seen> {
        let (program, arguments) = command_line.split_first().context("no program to run")?;
        let mut command = self.command(program);
        run(command.args(arguments), patience)
    }

    /// Starts a program that goes on until it is dropped; what it prints goes to `log`.
    pub fn spawn<S: AsRef<OsStr>>(&self, command_line: &[S], log: &Path) -> Result<Background> {
        let (program, arguments) = command_line.split_first().context("no program to start")?;
        let mut command = self.command(program);
        command.args(arguments);
        Background::spawn(command, log)
    }
}

/// What a program that has ended left to see.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The command line.
    pub command: String,
    /// Its exit code; 128 plus the signal where one ended it, as in a shell.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Seen {
    /// Standard output of a program that succeeded.
    pub fn success(self) -> Result<String> {
        if self.code != 0 {
            bail!("{self}");
        }
        Ok(self.stdout)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` exited with {}", self.command, self.code)?;
        for text in [&self.stdout, &self.stderr] {
            if !text.trim().is_empty() {
                write!(f, ": {}", text.trim())?;
            }
        }
        Ok(())
    }
}

/// Runs a command to its end, which has to come within `patience`.
pub fn run(command: &mut Command, patience: Duration) -> Result<Seen> {
    let description = describe(command);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {description}"))?;
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let status = wait::until(&format!("{description} to end"), patience, || Ok(child.try_wait()?));
    if status.is_err() {
        child.kill()?;
        child.wait()?;
    }
    let text = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
        let bytes = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    let status = status.with_context(|| format!("it said: {stdout}{stderr}"))?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(Seen { command: description, code, stdout, stderr })
}

/// Reads a pipe to its end on a thread of its own, so that it never fills up.
fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks ends the text; the exit code tells the rest.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// The command line as a person would have typed it, without the way into its place.
fn describe(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    let inside = if words.get(3).is_some_and(|word| word == "enter") { 6 } else { 0 };
    words[inside..].join(" ")
}

/// A program that runs until this is dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    log: PathBuf,
}

impl Background {
    /// Starts `command`; what it prints is appended to `log`.
    pub fn spawn(mut command: Command, log: &Path) -> Result<Self> {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening {}", log.display()))?;
        writeln!(file, "--- {}", describe(&command))?;
        let child = command
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {}", describe(&command)))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has printed so far, earlier runs with the same log included.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The exit code, if it has ended.
    pub fn ended(&mut self) -> Result<Option<i32>> {
        Ok(self
            .child
            .try_wait()?
            .map(|status| status.code().unwrap_or(128 + status.signal().unwrap_or_default())))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("a pid")?;
        kill_process(pid, signal).with_context(|| format!("signalling process {}", self.pid()))
    }

    /// Asks it to end with SIGINT and waits for that.
    pub fn interrupt(&mut self) -> Result<i32> {
        self.signal(Signal::INT)?;
        wait::until("the program to end after SIGINT", PATIENCE, || self.ended())
    }

    /// Waits until a line of its log contains `text`.
    pub fn wait_for_line(&mut self, text: &str, deadline: Duration) -> Result<String> {
        let found = wait::until(&format!("a line with {text:?}"), deadline, || {
            let line = self.log().lines().find(|line| line.contains(text)).map(str::to_owned);
            if line.is_none()
                && let Some(code) = self.ended()?
            {
                bail!("the program ended with {code} before it printed {text:?}");
            }
            Ok(line)
        });
        found.with_context(|| format!("its log:\n{}", tail(&self.log(), 30)))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Fails only where the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last `count` lines of `text`.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
