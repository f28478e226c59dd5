//! Ages as kubectl prints them: `5s`, `3m12s`, `47h`, `12d`, `3y20d`.

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The time from `moment` (RFC 3339) to `now`; `<unknown>` for what is no time.
pub fn since(moment: &Value, now: OffsetDateTime) -> String {
    let moment = moment.as_str().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    match moment {
        Some(moment) => human((now - moment).whole_seconds()),
        None => "<unknown>".to_owned(),
    }
}

/// The steps of apimachinery's `duration.HumanDuration`: two units while the first is small.
fn human(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let years = days / 365;
    let two = |first: i64, unit: &str, second: i64, other: &str| match second {
        0 => format!("{first}{unit}"),
        second => format!("{first}{unit}{second}{other}"),
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, "m", seconds % 60, "s")
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if days < 8 {
        two(days, "d", hours % 24, "h")
    } else if days < 2 * 365 {
        format!("{days}d")
    } else if days < 8 * 365 {
        two(years, "y", days % 365, "d")
    } else {
        format!("{years}y")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps() {
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (192, "3m12s"),
            (3600, "60m"),
            (4 * 3600 + 60, "4h1m"),
            (47 * 3600, "47h"),
            (3 * 86_400 + 3600, "3d1h"),
            (12 * 86_400, "12d"),
            ((3 * 365 + 20) * 86_400, "3y20d"),
        ] {
            assert_eq!(human(seconds), expected);
        }
    }
}
