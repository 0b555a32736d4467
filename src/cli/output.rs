//! Printing that survives a closed pipe; tables; JSON; the last words of a failure.

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use rpull::error::Error;

/// Prints text as it is. A reader that went away is no error: it has seen enough.
///
/// # Errors
/// Any other failure to write.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::Other(format!("cannot write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// Prints a line.
///
/// # Errors
/// As [`print`].
pub fn line(text: &str) -> Result<(), Error> {
    print(&format!("{text}\n"))
}

/// Prints a value as indented JSON.
///
/// # Errors
/// As [`print`].
pub fn json(value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Other(e.to_string()))?;
    line(&text)
}

/// Prints a table with its columns aligned, three spaces between them, as docker does.
///
/// # Errors
/// As [`print`].
pub fn table(header: &[&str], rows: &[Vec<String>]) -> Result<(), Error> {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&header).chain(rows) {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}   "));
        text.push_str(cells.collect::<String>().trim_end());
        text.push('\n');
    }
    print(&text)
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
pub fn human_age(created: &str, now: jiff::Timestamp) -> String {
    let Ok(then) = created.parse::<jiff::Timestamp>() else { return String::new() };
    let seconds = now.duration_since(then).as_secs().max(0);
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

/// Says why the command failed and what to do; its exit code.
pub fn fail(error: &Error) -> ExitCode {
    say(error);
    ExitCode::from(error.kind() as u8)
}

/// Says why something failed, on standard error.
pub fn say(error: &Error) {
    let mut err = io::stderr().lock();
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(err, "rpull: {}", one_line(&error.to_string()));
    if let Some(hint) = error.hint() {
        let _ = writeln!(err, "hint: {hint}");
    }
}

fn one_line(text: &str) -> String {
    text.split('\n').map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let now: jiff::Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
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
