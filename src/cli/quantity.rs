//! Sizes and ages: those of the command line, and those that are printed.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// Parses a size in bytes: a number with an optional unit, decimal as in `20GB` and in docker's
/// output, or binary as in `512MiB`. Upper and lower case are the same.
///
/// # Errors
/// Why it is not a size.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || "use a size like 20GB, 512MiB or 1000000".to_owned();
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let unit = unit.to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let (prefix, base) = match unit.strip_suffix('i') {
        Some(prefix) if !prefix.is_empty() => (prefix, 1024_f64),
        _ => (unit, 1000.0),
    };
    let power = ["", "k", "m", "g", "t", "p"].iter().position(|it| *it == prefix);
    let power = i32::try_from(power.ok_or_else(wrong)?).map_err(|_| wrong())?;
    let bytes = number * base.powi(power);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is in the range"
    )]
    let bytes = if bytes < 9e18 { Ok(bytes as u64) } else { Err(wrong()) };
    bytes
}

/// Parses an age: a number of seconds, minutes, hours, days or weeks, such as `90s`, `30m`, `12h`,
/// `7d` or `2w`.
///
/// # Errors
/// Why it is not an age.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    let wrong = || "use an age like 7d, 12h or 30m".to_owned();
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        "w" => 604_800.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())
}

/// Splits a text into a number that is not negative and a unit.
fn split(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

/// A size in bytes as docker prints it: decimal units, three digits.
pub fn human_size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    // Go's %.3g: three significant digits, no trailing zeros.
    let decimals = if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    let text = format!("{value:.decimals$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

/// How long ago `created` (RFC 3339) was, in docker's words; empty if it is no time.
pub fn human_age(created: &str, now: DateTime<Utc>) -> String {
    let Ok(then) = created.parse::<DateTime<Utc>>() else { return String::new() };
    let seconds = now.signed_duration_since(then).num_seconds().max(0);
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second ago".to_owned(),
        () if seconds == 1 => "1 second ago".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds ago"),
        () if minutes == 1 => "About a minute ago".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes ago"),
        () if hours == 1 => "About an hour ago".to_owned(),
        () if hours < 48 => format!("{hours} hours ago"),
        () if hours < 24 * 7 * 2 => format!("{} days ago", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks ago", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months ago", hours / 24 / 30),
        () => format!("{} years ago", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_units_are_parsed() {
        for (text, bytes) in [
            ("0", 0),
            ("1000000", 1_000_000),
            ("20GB", 20_000_000_000),
            ("512MiB", 512 << 20),
            ("1.5kB", 1500),
            ("2g", 2_000_000_000),
            ("2 TB", 2_000_000_000_000),
            ("7B", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "-1", "1XB", "1iB", "1.2.3", "99999PB", "∞"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ages_with_units_are_parsed() {
        for (text, seconds) in
            [("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600)]
        {
            assert_eq!(parse_age(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "7", "d", "-7d", "7y", "99999999999999999999w"] {
            assert!(parse_age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_as_docker_prints_them() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (13_256, "13.3kB"),
            (187_400_000, "187MB"),
            (1_090_000_000, "1.09GB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn ages_are_as_docker_prints_them() {
        let now: DateTime<Utc> = "2026-01-31T12:00:00Z".parse().unwrap();
        for (then, text) in [
            ("2026-01-31T11:59:30Z", "30 seconds ago"),
            ("2026-01-31T11:58:30Z", "About a minute ago"),
            ("2026-01-31T11:00:00Z", "About an hour ago"),
            ("2026-01-30T12:00:00Z", "24 hours ago"),
            ("2026-01-28T12:00:00.5Z", "3 days ago"),
            ("2026-01-10T12:00:00Z", "3 weeks ago"),
            ("2025-06-01T00:00:00+02:00", "8 months ago"),
            ("1970-01-01T00:00:00Z", "56 years ago"),
            ("yesterday", ""),
        ] {
            assert_eq!(human_age(then, now), text, "{then}");
        }
    }
}
