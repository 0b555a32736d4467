//! Sizes and ages on the command line.

use std::time::Duration;

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
}
