//! One round of one course through one proxy.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{Course, Protocol, Proxy, stage::Stage};
use crate::bench::{case::resident_mib, cpu};

const SECONDS: u32 = 4;
const CONNECTIONS: u32 = 16;
/// Calls that are under way on each of the connections of gRPC.
const STREAMS: u32 = 4;
/// More than any of them takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one round showed; every field has its unit in its name.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    pub requests_per_second: f64,
    pub proxy_us_per_request: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Of the largest of the proxy's processes.
    pub resident_mib: f64,
}

/// What a client counted.
struct Counted {
    requests: f64,
    p50_us: f64,
    p99_us: f64,
}

impl Measurement {
    pub fn take(stage: &Stage, course: Course, proxy: Proxy) -> Result<Self> {
        let proxies = stage.proxies(proxy);
        let before = cpu::of_processes(&proxies)?;
        let counted = match course.protocol {
            Protocol::Http1 => wrk(stage, course, proxy),
            Protocol::Grpc => h2load(stage, course, proxy),
        };
        let Counted { requests, p50_us, p99_us } =
            counted.with_context(|| format!("{course}: {}", proxy.name()))?;
        let spent = cpu::of_processes(&proxies)?.saturating_sub(before);
        let sizes = proxies.into_iter().map(resident_mib).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            requests_per_second: requests / f64::from(SECONDS),
            proxy_us_per_request: spent.as_secs_f64() * 1e6 / requests,
            p50_us,
            p99_us,
            resident_mib: sizes.into_iter().fold(0.0, f64::max),
        })
    }
}

fn wrk(stage: &Stage, course: Course, proxy: Proxy) -> Result<Counted> {
    let url = format!("http://{}/", stage.address(course, proxy));
    let (connections, duration) = (format!("-c{CONNECTIONS}"), format!("-d{SECONDS}s"));
    let command = ["wrk", "-t1", &connections, &duration, "--latency", &url];
    let output = stage.client(proxy).place.run_for(&command, PATIENCE)?.success()?;
    ensure!(!output.contains("Socket errors") && !output.contains("Non-2xx"), "{output}");
    read_wrk(&output).with_context(|| format!("wrk printed: {output}"))
}

fn read_wrk(output: &str) -> Option<Counted> {
    let lines = output.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let latency = |percent: &str| {
        let line = lines.clone().find(|words| words.first() == Some(&percent))?;
        wrk_time(line.get(1)?)
    };
    let total = lines.clone().find(|words| words.get(1..3) == Some(&["requests", "in"]))?;
    Some(Counted {
        requests: total.first()?.parse().ok()?,
        p50_us: latency("50%")?,
        p99_us: latency("99%")?,
    })
}

/// Microseconds of `1.23ms` and its like.
fn wrk_time(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    let (number, unit) =
        units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    Some(number.parse::<f64>().ok()? * unit)
}

fn h2load(stage: &Stage, course: Course, proxy: Proxy) -> Result<Counted> {
    let run_dir = stage.mesh.layout().run_dir();
    let (log, message) = (run_dir.join("h2load.log"), run_dir.join("message"));
    // A message of gRPC: not compressed, its length, and as many bytes.
    fs::write(&message, [&[0, 0, 0, 0, 59][..], &[b'm'; 59]].concat())?;
    fs::write(&log, "")?;
    let url = format!("http://{}/bench.Echo/Say", stage.address(course, proxy));
    let words = [
        format!("-c{CONNECTIONS}"),
        format!("-m{STREAMS}"),
        format!("-D{SECONDS}"),
        format!("--data={}", message.display()),
        format!("--log-file={}", log.display()),
        "--header=content-type: application/grpc".to_owned(),
        "--header=te: trailers".to_owned(),
        url,
    ];
    let command: Vec<&str> =
        ["h2load"].into_iter().chain(words.iter().map(String::as_str)).collect();
    let output = stage.client(proxy).place.run_for(&command, PATIENCE)?.success()?;
    let (counted, failed) =
        read_h2load(&fs::read_to_string(&log)?).with_context(|| format!("it printed: {output}"))?;
    // nginx answers a call in some hundreds with 502 where it meets a connection that just ends.
    let allowed = if Proxy::OTHERS.contains(&proxy) { counted.requests / 100.0 } else { 0.0 };
    ensure!(failed <= allowed && output.contains(" 0 errored, 0 timeout"), "{output}");
    Ok(counted)
}

/// What was answered with 200, and how many calls were not; rows are of start, status and microseconds.
fn read_h2load(log: &str) -> Result<(Counted, f64)> {
    let (mut times, mut failed) = (Vec::new(), 0.0);
    for row in log.lines() {
        let mut columns = row.split('\t');
        let status = columns.nth(1).context("a row has a status")?;
        if status == "200" {
            times.push(columns.next().context("a row has a time")?.parse()?);
        } else {
            failed += 1.0;
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = times.len().checked_sub(1)?;
        times.get((last as f64 * share) as usize).copied()
    };
    let percentile = |share| at(share).context("no call was answered");
    let (requests, p50_us, p99_us) = (times.len() as f64, percentile(0.5)?, percentile(0.99)?);
    Ok((Counted { requests, p50_us, p99_us }, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_clients_print() {
        let wrk = "    Req/Sec    48.44k     8.47k   55.95k    77.50%\n  Latency Distribution\n     50%  250.00us\n     75%  300.00us\n     99%    1.50ms\n  \
                   12345 requests in 5.00s, 1.00MB read\n";
        let counted = read_wrk(wrk).expect("figures");
        assert_eq!((counted.requests, counted.p50_us, counted.p99_us), (12345.0, 250.0, 1500.0));
        assert!(read_wrk("").is_none());
        let log: String = (1..=100).rev().map(|us| format!("17\t200\t{us}\n")).collect();
        let (counted, failed) = read_h2load(&(log + "17\t503\t1\n")).expect("figures");
        assert_eq!((counted.requests, counted.p50_us, counted.p99_us), (100.0, 50.0, 99.0));
        assert_eq!(failed, 1.0);
        assert!(read_h2load("").is_err());
    }
}
