//! The arguments of instructions: lists, ports, signals and health checks.

use std::fmt::Display;

use serde_json::{Map, Value};

/// The names of signals (signal(7)); real-time ones are `RTMIN+n` and `RTMAX-n`.
const SIGNALS: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// The largest number of a port.
const MAX_PORT: u32 = 65535;

/// Splits off the first word.
pub fn first_word(text: &str) -> (&str, &str) {
    text.split_once(char::is_whitespace).unwrap_or((text, ""))
}

/// Returns the strings of a JSON list; `None` if `text` is something else, which then is for a shell.
pub fn json_list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text.trim()).ok()
}

/// Returns the ports of `80`, `80/udp` or `8000-8010/tcp`, each with its protocol. A published port before a
/// colon does not matter.
///
/// # Errors
/// A description of what is wrong.
pub fn ports(text: &str) -> Result<Vec<String>, String> {
    let invalid = |why: &dyn Display| format!("the port '{text}' is invalid: {why}");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(invalid(&"its protocol is not tcp, udp or sctp"));
    }
    let range = range.rsplit(':').next().unwrap_or(range);
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| match text.parse::<u32>() {
        Ok(number) if number <= MAX_PORT && text.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
        _ => Err(invalid(&"it is not a number up to 65535")),
    };
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(invalid(&"its range ends before it begins"));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// Checks that `signal` is the number or the name of a signal.
///
/// # Errors
/// A description of what is wrong.
pub fn check_signal(signal: &str) -> Result<(), String> {
    let number = signal.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number));
    let name = signal.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = name == "RTMIN"
        || name == "RTMAX"
        || name
            .strip_prefix("RTMIN+")
            .is_some_and(|n| n.parse::<u8>().is_ok_and(|n| (1..=15).contains(&n)))
        || name
            .strip_prefix("RTMAX-")
            .is_some_and(|n| n.parse::<u8>().is_ok_and(|n| (1..=14).contains(&n)));
    if number || real_time || SIGNALS.contains(&name) {
        Ok(())
    } else {
        Err(format!("'{signal}' is not a signal"))
    }
}

/// Returns the `Healthcheck` of a config for the arguments of HEALTHCHECK.
///
/// # Errors
/// A description of what is wrong.
pub fn health_check(rest: &str) -> Result<Value, String> {
    let mut check = Map::new();
    let mut rest = rest.trim();
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = first_word(flag);
        rest = after.trim_start();
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        let key = match name {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "retries" => {
                let count = value.parse::<u32>().ok().filter(|count| *count > 0);
                let count = count.ok_or_else(|| format!("'{value}' is not a number of retries"))?;
                check.insert("Retries".to_owned(), count.into());
                continue;
            }
            name => return Err(format!("HEALTHCHECK has no flag --{name}")),
        };
        let nanos = duration(value).filter(|nanos| *nanos >= 1_000_000);
        let nanos = nanos.ok_or_else(|| format!("'{value}' is not a duration such as 30s"))?;
        check.insert(key.to_owned(), nanos.into());
    }
    let (kind, command) = first_word(rest);
    let test = match (kind.to_ascii_uppercase().as_str(), command.trim()) {
        ("NONE", "") => vec!["NONE".to_owned()],
        ("NONE", _) => return Err("HEALTHCHECK NONE has no arguments".to_owned()),
        ("CMD", "") => return Err("HEALTHCHECK CMD needs a command".to_owned()),
        ("CMD", command) => match json_list(command) {
            Some(list) => [vec!["CMD".to_owned()], list].concat(),
            None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        _ => return Err("HEALTHCHECK needs CMD or NONE".to_owned()),
    };
    check.insert("Test".to_owned(), test.into());
    Ok(check.into())
}

/// Returns the nanoseconds of a duration of Go, such as `1m30s` or `1.5h`.
fn duration(text: &str) -> Option<u64> {
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    // The largest duration of Go.
    (!text.is_empty() && total <= i64::MAX as f64).then_some(total as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        assert_eq!(duration("1h2m3.5s"), Some(3_723_500_000_000));
        assert_eq!(
            (duration("5"), duration(""), duration("1x"), duration("..s")),
            (None, None, None, None)
        );
    }
}
