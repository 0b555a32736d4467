//! Fuzz target for text from outside.

use super::{escape, escape_json, is_printable, one_line, shorten};

/// Control characters, and some that have no shape or change the order of others.
fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[test]
fn mutated_text_is_printable_once_escaped() {
    fuzz_harness::run("tests/corpus/printable", 20_000, |input| {
        let text = String::from_utf8_lossy(input);
        let safe = escape(&text);
        assert!(is_printable(&safe) && !safe.contains(hidden), "{safe:?}");
        assert_eq!(escape(&safe), safe);
        for limit in [50, 200] {
            let line = one_line(&text, limit);
            assert!(line.len() <= limit && is_printable(&line), "{line:?}");
            assert!(shorten(&text, limit).len() <= limit);
        }
        if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
            let safe = escape_json(&text);
            assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).ok(), Some(value));
            assert!(safe.split('\n').all(is_printable), "{safe:?}");
        }
    });
}
