//! What is printed: colour where it helps, columns, sizes and times.

use std::{
    env,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Whether to colour: only on a terminal, and not where NO_COLOR is set
/// (<https://no-color.org>).
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    enabled: bool,
}

/// What a word means to the reader.
#[derive(Clone, Copy, Debug)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Worth a look.
    Notable,
    /// Wrong.
    Bad,
}

impl Palette {
    /// As standard output and the environment say.
    pub fn detect() -> Self {
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { enabled: io::stdout().is_terminal() && !refused }
    }

    /// Without any colour.
    #[cfg(test)]
    pub const fn plain() -> Self {
        Self { enabled: false }
    }

    /// `text` in the colour of `tone`.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        if !self.enabled {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => 32,
            Tone::Notable => 33,
            Tone::Bad => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Prints `text` as it is.
///
/// # Errors
/// Where nobody reads any more.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// How a command ends where the question cannot be answered, as clap ends too.
const USAGE: u8 = 2;

/// Prints the answer to a question, and ends by whether it is a good one; an error is printed too.
///
/// # Errors
/// Where nobody reads any more.
pub fn answer(answer: anyhow::Result<(bool, String)>) -> anyhow::Result<ExitCode> {
    match answer {
        Ok((is_good, text)) => {
            print(&text)?;
            Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(error) => {
            eprintln!("nodemesh: {error:#}");
            Ok(ExitCode::from(USAGE))
        }
    }
}

/// Tells how far something has got. That nobody reads it any more is no reason to stop half-way.
pub fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// `rows` in columns, each as wide as its widest cell, every line indented by `indent`.
pub fn columns(indent: &str, rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<_> = (0..count).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{indent}{}", cells.collect::<Vec<_>>().join("  ")).trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// Nanoseconds since the epoch as RFC 3339 in UTC.
pub fn timestamp(nanos: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanos))
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "-".to_owned())
}

/// Nanoseconds since the epoch as RFC 3339 in UTC, to the millisecond.
pub fn short_timestamp(nanos: u64) -> String {
    let full = timestamp(nanos - nanos % 1_000_000);
    // RFC 3339 leaves zeros at the end out; a column wants them.
    let (seconds, fraction) = match full.trim_end_matches('Z').split_once('.') {
        Some((seconds, fraction)) => (seconds.to_owned(), fraction.to_owned()),
        None => (full.trim_end_matches('Z').to_owned(), String::new()),
    };
    format!("{seconds}.{fraction:0<3}Z")
}

/// A number of bytes for people, in powers of 1024.
pub fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count}B");
    }
    // Precise enough for one decimal place.
    #[allow(clippy::cast_precision_loss)]
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1}{}", units[unit])
}

/// A duration for people, to three digits.
pub fn duration(nanos: u64) -> String {
    let duration = Duration::from_nanos(nanos);
    if duration >= Duration::from_secs(1) {
        format!("{:.2}s", duration.as_secs_f64())
    } else {
        format!("{:.2}ms", duration.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_readable() {
        for (count, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0KiB"),
            (1 << 20, "1.0MiB"),
            (1 << 50, "1024.0TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(duration(1_234_567), "1.23ms");
        assert_eq!(duration(61_000_000_000), "61.00s");
        assert_eq!(short_timestamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(short_timestamp(1_020_999_999), "1970-01-01T00:00:01.020Z");
        assert_eq!(timestamp(1_020_999_999), "1970-01-01T00:00:01.020999999Z");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["long".to_owned(), "c".to_owned()]];
        assert_eq!(columns(" ", &rows), " a     b\n long  c\n");
    }
}
