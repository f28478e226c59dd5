//! `nodemesh flows`: the connections and requests that ended, by time.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::ValueEnum;
use mesh_common::api::v1;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    agents::{self, Agents, Place},
    output::{self, Palette},
};

mod compact;
mod json;

/// How long flows are held back to put those of several agents in order.
const MERGE: Duration = Duration::from_millis(100);
/// Flows that may wait to be printed.
const QUEUE: usize = 256;

/// Shows connections and requests that ended: who called whom, what became of it, how it was
/// protected.
///
/// A connection between two nodes is seen by both: once by the caller's agent (reporter=source)
/// and once by that of the pod that is called (reporter=destination). The fields of `-o json` are
/// described in docs/flows.md. The agents asked are those of this machine, where they have their
/// sockets; else, or where one is named, those of a cluster.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    agents: Agents,
    /// How many of the remembered flows to show; 0 for all
    #[arg(long, value_name = "N", default_value_t = 20)]
    last: u32,
    /// Go on with new flows
    #[arg(short, long)]
    follow: bool,
    /// Only flows from or to this pod; may be repeated
    #[arg(long = "pod", value_name = "[NAMESPACE/]NAME")]
    pods: Vec<String>,
    /// Only flows with this verdict; may be repeated
    #[arg(long = "verdict", value_name = "VERDICT", ignore_case = true)]
    verdicts: Vec<Verdict>,
    /// Only flows of this protocol: tcp, http, http/1.1, http/2 or grpc; may be repeated
    #[arg(long = "protocol", value_name = "PROTOCOL")]
    protocols: Vec<String>,
    /// Only requests that were answered with this status, or class of statuses; may be repeated
    #[arg(long = "http-status", value_name = "503|5xx")]
    http_statuses: Vec<String>,
    /// Only requests with this method; may be repeated
    #[arg(long = "http-method", value_name = "METHOD")]
    http_methods: Vec<String>,
    /// Only requests for this path, or with a `*` at the end what it begins with; may be repeated
    #[arg(long = "http-path", value_name = "PATH")]
    http_paths: Vec<String>,
    /// A line for people, or a JSON object, a flow
    #[arg(short, long, value_name = "FORMAT", default_value = "compact")]
    output: Format,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Verdict {
    /// Carried.
    Forwarded,
    /// Refused by a policy.
    Denied,
    /// Could not be carried.
    Error,
    /// Carried, though policies that only audit would have refused it.
    Audit,
}

/// How flows are printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One line, for people.
    Compact,
    /// One JSON object a line.
    Json,
}

/// Runs the command.
///
/// # Errors
/// Where no agent is found, or nobody reads what is printed.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let runtime = agents::runtime().context("cannot start")?;
    runtime.block_on(async {
        let (flows, printed) = mpsc::channel(QUEUE);
        let mut readers = Vec::new();
        for place in args.agents.find().await? {
            let request = args.request();
            let flows = flows.clone();
            readers.push(tokio::spawn(async move { read(&place, request, flows).await }));
        }
        drop(flows);
        if args.follow {
            args.print_as_they_come(printed).await
        } else {
            args.print_all(printed).await
        }?;
        let mut code = ExitCode::SUCCESS;
        for reader in readers {
            if let Err(error) = reader.await.context("a reader was interrupted")? {
                eprintln!("nodemesh: {error:#}");
                code = ExitCode::FAILURE;
            }
        }
        Ok(code)
    })
}

impl Args {
    fn request(&self) -> v1::ObserveRequest {
        let verdicts = self.verdicts.iter().map(|verdict| match verdict {
            Verdict::Forwarded => v1::Verdict::Forwarded.into(),
            Verdict::Denied => v1::Verdict::Denied.into(),
            Verdict::Error => v1::Verdict::Error.into(),
            Verdict::Audit => v1::Verdict::Audit.into(),
        });
        let filter = v1::FlowFilter {
            pods: self.pods.clone(),
            verdicts: verdicts.collect(),
            protocols: self.protocols.clone(),
            http_statuses: self.http_statuses.clone(),
            http_methods: self.http_methods.clone(),
            http_paths: self.http_paths.clone(),
        };
        v1::ObserveRequest { last: self.last, follow: self.follow, filter: Some(filter) }
    }

    /// Every flow there is, in order.
    async fn print_all(&self, mut flows: mpsc::Receiver<v1::Flow>) -> anyhow::Result<()> {
        let mut all = Vec::new();
        while let Some(flow) = flows.recv().await {
            all.push(flow);
        }
        self.print(newest(all, self.last))
    }

    /// What is remembered, in order, then everything new as it comes.
    async fn print_as_they_come(&self, mut flows: mpsc::Receiver<v1::Flow>) -> anyhow::Result<()> {
        let mut limit = self.last;
        while let Some(first) = flows.recv().await {
            let mut batch = vec![first];
            let end = Instant::now() + MERGE;
            while let Ok(Some(flow)) = tokio::time::timeout_at(end, flows.recv()).await {
                batch.push(flow);
            }
            self.print(newest(batch, limit))?;
            // Only what was remembered is limited.
            limit = 0;
        }
        Ok(())
    }

    fn print(&self, flows: Vec<v1::Flow>) -> anyhow::Result<()> {
        let palette = Palette::detect();
        let mut text = String::new();
        for flow in &flows {
            text += &match self.output {
                Format::Compact => compact::line(flow, palette),
                Format::Json => json::line(flow)?,
            };
            text.push('\n');
        }
        Ok(output::print(&text)?)
    }
}

/// Reads one agent's flows until it has no more.
async fn read(
    place: &Place,
    request: v1::ObserveRequest,
    flows: mpsc::Sender<v1::Flow>,
) -> anyhow::Result<()> {
    let mut agent = place.connect().await?;
    let refused = |status: tonic::Status| anyhow::anyhow!("{place}: {}", status.message());
    let mut stream = agent.observe(request).await.map_err(refused)?.into_inner();
    while let Some(flow) = stream.message().await.map_err(refused)? {
        if flows.send(flow).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The last `last` of `flows` (0: all) by time, oldest first.
fn newest(mut flows: Vec<v1::Flow>, last: u32) -> Vec<v1::Flow> {
    flows.sort_by_key(|flow| flow.time_unix_nano);
    let last = usize::try_from(last).unwrap_or(usize::MAX);
    if last != 0 {
        flows.drain(..flows.len().saturating_sub(last));
    }
    flows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_of_several_agents_are_merged_by_time() {
        let flow = |time_unix_nano| v1::Flow { time_unix_nano, ..Default::default() };
        let times = |last| -> Vec<u64> {
            let flows = [3, 1, 4, 2].map(flow).to_vec();
            newest(flows, last).iter().map(|flow| flow.time_unix_nano).collect()
        };
        assert_eq!(times(0), [1, 2, 3, 4]);
        assert_eq!(times(2), [3, 4]);
        assert_eq!(times(9), [1, 2, 3, 4]);
    }
}
