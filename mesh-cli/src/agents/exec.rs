//! A way to an agent of a cluster: the API server runs `nodemesh agent-socket` in the agent's pod,
//! which joins its standard input and output to the agent's socket.
//!
//! So agents need no port for this, and whoever may ask them is who may `create` `pods/exec` in
//! nodemesh's namespace.

use anyhow::{Context, bail};
use kube::api::{AttachParams, AttachedProcess};
use tokio::io::{
    AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, copy, duplex,
};

use crate::cluster::Cluster;

/// What `agent-socket` writes first, when the agent's socket has taken its connection.
pub const GREETING: &str = "nodemesh agent-socket 1\n";
/// The command in the image, with what it is told to do.
const COMMAND: [&str; 3] = ["/nodemesh", "agent-socket", "--socket"];
/// Bytes that wait between the API server and a command, each way.
const BUFFER: usize = 64 * 1024;
/// What is read of complaints at most.
const COMPLAINT: u64 = 4096;

/// A stream to the socket of the agent in `pod`.
///
/// # Errors
/// Where the API server refuses, or the agent cannot be connected to there.
pub async fn open(cluster: &Cluster, pod: &str, socket: &str) -> anyhow::Result<DuplexStream> {
    let command = COMMAND.into_iter().chain([socket]);
    let how =
        AttachParams::default().stdin(true).max_stdin_buf_size(BUFFER).max_stdout_buf_size(BUFFER);
    let mut process = cluster.exec(pod, command, &how).await?;
    let output = process.stdout().context("standard output was asked for")?;
    let mut output = BufReader::new(output);
    let mut greeting = String::new();
    output.read_line(&mut greeting).await.context("the API server ended the stream")?;
    if greeting != GREETING {
        bail!("{}", complaint(process).await);
    }
    let mut input = process.stdin().context("standard input was asked for")?;
    let (ours, theirs) = duplex(BUFFER);
    tokio::spawn(async move {
        let (mut from_us, mut to_us) = tokio::io::split(theirs);
        let there = async {
            copy(&mut from_us, &mut input).await?;
            input.shutdown().await
        };
        let back = async {
            copy(&mut output, &mut to_us).await?;
            to_us.shutdown().await
        };
        // What breaks here ends the stream, which the command on it tells of.
        let _broken = tokio::join!(there, back);
        drop(process);
    });
    Ok(ours)
}

/// Why the command in the pod did not come so far as to greet.
async fn complaint(mut process: AttachedProcess) -> String {
    let mut said = String::new();
    if let Some(errors) = process.stderr() {
        // What cannot be read is no more than a missing reason.
        let _unread = errors.take(COMPLAINT).read_to_string(&mut said).await;
    }
    let status = match process.take_status() {
        Some(status) => status.await.and_then(|status| status.message),
        None => None,
    };
    let said = said.trim();
    match (said.is_empty(), status) {
        (false, _) if said.contains("agent-socket") => {
            format!("its image is older than this command ({said}); `nodemesh upgrade`")
        }
        (false, _) => said.strip_prefix("nodemesh: ").unwrap_or(said).to_owned(),
        (true, Some(status)) => status,
        (true, None) => "the command in its pod ended without a word; try again".to_owned(),
    }
}
