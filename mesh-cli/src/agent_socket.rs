//! `nodemesh agent-socket`: joins standard input and output to an agent's socket. Not for people: it
//! is what [`crate::agents::exec`] runs in an agent's pod.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
    process::ExitCode,
    thread,
};

use anyhow::{Context, anyhow};

use crate::agents::{self, exec::GREETING};

/// Joins standard input and output to the socket of an agent.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The agent's socket
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// Where the agent cannot be connected to, or the stream breaks.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut agent = UnixStream::connect(&args.socket)
        .map_err(|error| anyhow!("{}: {}", args.socket.display(), agents::reason(&error)))?;
    // Not those of `std`, which hold back what is no line.
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    output.write_all(GREETING.as_bytes())?;
    let mut there = agent.try_clone()?;
    // The process ends without it: a read may wait for as long as whoever is at the other end.
    thread::spawn(move || {
        let copied = copy(&mut input, &mut there);
        // What is asked no more is answered no more: this ends the copy back.
        let side = if copied.is_ok() { Shutdown::Write } else { Shutdown::Both };
        there.shutdown(side)
    });
    copy(&mut agent, &mut output).context("the stream from the agent broke")?;
    Ok(ExitCode::SUCCESS)
}

/// Copies what comes until the end. Not [`io::copy`]: it splices, and while splice(2) waits for a
/// socket it keeps the pipe that it writes to locked, so that nobody can read what is in there.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
