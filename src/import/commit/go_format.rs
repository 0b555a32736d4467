//! Values as Go's fmt package prints them with %q, which dockerd writes to the history of a build.

use serde_json::Value;

/// Returns a list of texts: `["a" "b"]`.
pub fn quoted_list(list: &[String]) -> String {
    let words: Vec<String> = list.iter().map(|word| quoted(word)).collect();
    format!("[{}]", words.join(" "))
}

/// Returns a health check: `&{["CMD" "x"] "30s" "0s" "0s" '\x03'}`.
pub fn health(check: &Value) -> String {
    let test = check.get("Test").and_then(Value::as_array).into_iter().flatten();
    let test: Vec<String> = test.filter_map(Value::as_str).map(str::to_owned).collect();
    let nanos = |key| check.get(key).and_then(Value::as_u64).unwrap_or(0);
    let time = |key| quoted(&duration(nanos(key)));
    let (interval, timeout, start) = (time("Interval"), time("Timeout"), time("StartPeriod"));
    let retries = u32::try_from(nanos("Retries")).ok().and_then(char::from_u32);
    let retries = retries.map_or_else(|| "\u{fffd}".to_owned(), |c| escaped(c, '\''));
    format!("&{{{} {interval} {timeout} {start} '{retries}'}}", quoted_list(&test))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.chars().map(|c| escaped(c, '"')).collect::<String>())
}

fn escaped(c: char, quote: char) -> String {
    match c {
        '\\' => "\\\\".to_owned(),
        c if c == quote => format!("\\{c}"),
        '\u{7}' => "\\a".to_owned(),
        '\u{8}' => "\\b".to_owned(),
        '\u{c}' => "\\f".to_owned(),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '\u{b}' => "\\v".to_owned(),
        c if (c as u32) < 0x20 || c as u32 == 0x7f => format!("\\x{:02x}", c as u32),
        c if !c.is_control() => c.to_string(),
        c => format!("\\u{:04x}", c as u32),
    }
}

/// Returns a time as Go's `time.Duration.String`: `1h2m3.5s`, `250ms`.
fn duration(nanos: u64) -> String {
    let fraction = |value: u64, unit: u64| {
        let digits = unit.to_string().len() - 1;
        let (whole, rest) = (value / unit, value % unit);
        let rest = format!("{rest:0digits$}");
        match rest.trim_end_matches('0') {
            "" => whole.to_string(),
            rest => format!("{whole}.{rest}"),
        }
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 1_000_000)),
        _ => {
            let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
            let seconds = fraction(rest, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_printed_as_go_prints_them() {
        assert_eq!(
            quoted_list(&["a\"b".to_owned(), "\n\u{1}é".to_owned()]),
            r#"["a\"b" "\n\x01é"]"#
        );
        for (nanos, text) in [
            (0, "0s"),
            (1_500_000, "1.5ms"),
            (30_000_000_000, "30s"),
            (90_500_000_000, "1m30.5s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(duration(nanos), text);
        }
        let check = json!({"Test": ["CMD", "x"], "Interval": 5_000_000_000_u64, "Retries": 3});
        assert_eq!(health(&check), r#"&{["CMD" "x"] "5s" "0s" "0s" '\x03'}"#);
    }
}
