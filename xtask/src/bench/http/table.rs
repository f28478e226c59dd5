//! The table: medians, and nodemesh's CPU time as a ratio to that of the others.

use std::fmt::Write;

use super::{Course, Proxy, measure::Measurement};
use crate::bench::table::median;

/// A row: what it is, its unit, and which figure of a round it shows.
type Row = (&'static str, fn(&Measurement) -> f64);

const ROWS: [Row; 5] = [
    ("requests/s", |round| round.requests_per_second),
    ("proxies' CPU us/request", CPU),
    ("p50 us", |round| round.p50_us),
    ("p99 us", |round| round.p99_us),
    ("RSS MiB, largest process", |round| round.resident_mib),
];
const CPU: fn(&Measurement) -> f64 = |round| round.proxy_us_per_request;

/// All rows as text.
pub fn render(measured: &[(Course, Proxy, Vec<Measurement>)]) -> String {
    let mut text = format!("{:<32}", "median of interleaved rounds");
    for proxy in Proxy::ALL {
        // Writing to a String cannot fail, here and below.
        let _ = write!(text, " {:>10}", proxy.name());
    }
    for course in Course::ALL {
        let _ = write!(text, "\n{course}\n");
        let of = |proxy: Proxy, figure: fn(&Measurement) -> f64| {
            let rounds = measured.iter().filter(|it| (it.0, it.1) == (course, proxy));
            median(rounds.flat_map(|it| &it.2).map(figure).collect())
        };
        for (name, figure) in ROWS {
            let _ = write!(text, "  {name:<30}");
            for proxy in Proxy::ALL {
                let _ = write!(text, " {:>10.1}", of(proxy, figure));
            }
            text.push('\n');
        }
        let ratio = |other| of(Proxy::Nodemesh, CPU) / of(other, CPU);
        let _ = writeln!(
            text,
            "  nodemesh's CPU to Envoy's {:.2} (bar {}), to HAProxy's {:.2}, to nginx's {:.2}",
            ratio(Proxy::Envoy),
            course.bar(),
            ratio(Proxy::Haproxy),
            ratio(Proxy::Nginx),
        );
    }
    text
}
