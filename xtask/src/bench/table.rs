//! The table: medians, and nodemesh as a ratio to the relay pair.

use std::fmt::Write;

use super::{case::Case, measure::Measurement};

/// A row: what it is, its unit, and which figure of a round it shows.
type Row = (&'static str, fn(&Measurement) -> f64);

const ROWS: [Row; 8] = [
    ("wrk, 16 connections: requests/s", |round| round.requests_per_second),
    ("  CPU us/request, client and server included", |round| round.total_us_per_request),
    ("  CPU us/request, proxies only (bar: 1.20)", |round| round.proxy_us_per_request),
    ("iperf3, 1 stream: Gbit/s", |round| round.one_stream_gbit_s),
    ("iperf3, 8 streams: Gbit/s", |round| round.eight_streams_gbit_s),
    ("  CPU s/GB, proxies only", |round| round.proxy_cpu_s_per_gb),
    ("64-byte ping-pong: p50 us", |round| round.ping_p50_us),
    ("64-byte ping-pong: p99 us", |round| round.ping_p99_us),
];

/// All rows as text.
pub fn render(measured: &[(Case, Vec<Measurement>); 3]) -> String {
    let mut text = format!(
        "{:<46} {:>10} {:>10} {:>10} {:>10}\n",
        "median of three interleaved rounds", "no mesh", "bare pair", "nodemesh", "to pair"
    );
    for (name, figure) in ROWS {
        let [none, pair, mesh] =
            measured.each_ref().map(|(_, rounds)| median(rounds.iter().map(figure).collect()));
        let ratio = mesh / pair;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<46} {none:>10.2} {pair:>10.2} {mesh:>10.2} {ratio:>10.2}");
    }
    text
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert!(median(Vec::new()).is_nan());
    }
}
