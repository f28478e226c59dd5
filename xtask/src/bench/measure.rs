//! One round of one case.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    case::{Case, Server, Stage},
    cpu,
};

const WRK_SECONDS: u32 = 8;
const WRK_CONNECTIONS: u32 = 16;
const IPERF_SECONDS: u32 = 4;
const PINGS: u32 = 20_000;
/// More than any of them takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// What one round showed; every field has its unit in its name.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    pub requests_per_second: f64,
    pub total_us_per_request: f64,
    pub proxy_us_per_request: f64,
    pub one_stream_gbit_s: f64,
    pub eight_streams_gbit_s: f64,
    pub proxy_cpu_s_per_gb: f64,
    pub ping_p50_us: f64,
    pub ping_p99_us: f64,
}

/// CPU time of everything, and of the processes between client and server.
struct Spent {
    total: Duration,
    proxies: Duration,
}

impl Measurement {
    /// Runs wrk, iperf3 and the ping-pong.
    pub fn take(stage: &Stage, case: Case, peer: &Path) -> Result<Self> {
        let (requests, http) = spent(stage, case, || wrk(stage, case))?;
        let (one_stream, _) = spent(stage, case, || iperf3(stage, case, 1))?;
        let (eight_streams, bulk) = spent(stage, case, || iperf3(stage, case, 8))?;
        let ping = ping(stage, case, peer)?;
        let per_request = |spent: Duration| spent.as_secs_f64() * 1e6 / requests;
        let gigabytes = eight_streams / 1e9;
        Ok(Self {
            requests_per_second: requests / f64::from(WRK_SECONDS),
            total_us_per_request: per_request(http.total),
            proxy_us_per_request: per_request(http.proxies),
            one_stream_gbit_s: gbit_s(one_stream),
            eight_streams_gbit_s: gbit_s(eight_streams),
            proxy_cpu_s_per_gb: bulk.proxies.as_secs_f64() / gigabytes,
            ping_p50_us: field(&ping, "/p50_us")?,
            ping_p99_us: field(&ping, "/p99_us")?,
        })
    }
}

fn gbit_s(bytes: f64) -> f64 {
    bytes * 8.0 / 1e9 / f64::from(IPERF_SECONDS)
}

fn spent<T>(stage: &Stage, case: Case, run: impl FnOnce() -> Result<T>) -> Result<(T, Spent)> {
    let (cgroup, proxies) = (stage.mesh.layout().cgroup(), stage.proxies(case));
    let before = (cpu::of_cgroup(&cgroup)?, cpu::of_processes(&proxies)?);
    let result = run()?;
    let total = cpu::of_cgroup(&cgroup)?.saturating_sub(before.0);
    let proxies = cpu::of_processes(&proxies)?.saturating_sub(before.1);
    Ok((result, Spent { total, proxies }))
}

fn run(stage: &Stage, case: Case, command_line: &[&str]) -> Result<String> {
    stage.client(case).place.run_for(command_line, PATIENCE)?.success()
}

/// How many requests wrk had answered, none of them with an error.
fn wrk(stage: &Stage, case: Case) -> Result<f64> {
    let url = format!("http://{}/", stage.address(case, Server::Http));
    let (connections, duration) = (format!("-c{WRK_CONNECTIONS}"), format!("-d{WRK_SECONDS}s"));
    let output = run(stage, case, &["wrk", "-t1", &connections, &duration, &url])?;
    ensure!(!output.contains("Socket errors"), "{case}: {output}");
    ensure!(!output.contains("Non-2xx"), "{case}: {output}");
    let requests = output.lines().find(|line| line.contains(" requests in "));
    let count = requests.and_then(|line| line.split_whitespace().next());
    count.with_context(|| format!("wrk printed: {output}"))?.parse().context("requests")
}

/// How many bytes arrived.
fn iperf3(stage: &Stage, case: Case, streams: u32) -> Result<f64> {
    let address = stage.address(case, Server::Bulk);
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let (streams, seconds) = (streams.to_string(), IPERF_SECONDS.to_string());
    let output = run(
        stage,
        case,
        &["iperf3", "-c", &host, "-p", &port, "-P", &streams, "-t", &seconds, "--json"],
    )?;
    let report: Value = serde_json::from_str(&output).context("iperf3's report")?;
    field(&report, "/end/sum_received/bytes")
}

fn ping(stage: &Stage, case: Case, peer: &Path) -> Result<Value> {
    let address = stage.address(case, Server::Echo).to_string();
    let (peer, count) = (peer.to_string_lossy(), PINGS.to_string());
    let output = run(stage, case, &[&peer, "ping", &address, "--count", &count])?;
    serde_json::from_str(&output).context("the ping-pong's report")
}

fn field(report: &Value, pointer: &str) -> Result<f64> {
    let value = report.pointer(pointer).and_then(Value::as_f64);
    value.with_context(|| format!("no number at {pointer} in {report}"))
}
