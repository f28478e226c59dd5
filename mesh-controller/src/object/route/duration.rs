//! Durations as the Gateway API writes them (GEP-2257): one to four of a number and a unit.

use std::time::Duration;

/// The duration that `text` is.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        // Five digits at most.
        let number: u64 = rest[..digits].parse().ok().filter(|_| digits <= 5)?;
        rest = &rest[digits..];
        let unit = ["ms", "h", "m", "s"].into_iter().find(|unit| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        sum += match unit {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            _ => Duration::from_millis(number),
        };
        if rest.is_empty() {
            return Some(sum);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_specification_has_as_examples() {
        // The tables "Examples" and "Invalid" of GEP-2257.
        for (text, milliseconds) in [
            ("0h", 0),
            ("0s", 0),
            ("1h", 3_600_000),
            ("30m", 1_800_000),
            ("10s", 10_000),
            ("500ms", 500),
            ("2h30m", 9_000_000),
            ("150m", 9_000_000),
            ("7230s", 7_230_000),
            ("1h30m10s", 5_410_000),
            ("10s30m1h", 5_410_000),
            ("100ms200ms300ms", 600),
            ("100ms200ms300ms400ms", 1000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in [
            "",
            "1",
            "1d",
            "1.5h",
            "-1h",
            "+1h",
            " 1h",
            "1h ",
            "1 h",
            "1H",
            "h",
            "100000s",
            "1us",
            "1h1m1s1ms1s",
            "1h30",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
