//! Escaping of untrusted text for output.
//!
//! Registries, archives, image configs, files of the root and arguments supply text that is
//! printed in errors, events, tables and JSON. A terminal interprets control characters, and
//! invisible characters mislead the reader. The binary's output layer (`cli/output.rs`) escapes
//! everything with this module; other programs that print errors and events of this library
//! should do the same.
//!
//! Escaped are, as [`char::escape_default`] writes them (`\n`, `\u{1b}`, `\u{202e}`):
//!
//! - control characters: C0, DEL and C1 (Unicode category Cc)
//! - line and paragraph separators (Zl, Zp) and interlinear annotation (U+FFF9 to U+FFFB)
//! - invisible characters (Unicode's `Default_Ignorable_Code_Point`): bidirectional controls,
//!   zero-width characters, fillers, tags, the byte order mark. The variation selectors U+FE00
//!   to U+FE0F stay, because emoji use them and they only change the look of the character
//!   before them.
//!
//! A backslash is not escaped, so escaping is idempotent.

use std::borrow::Cow;
use std::fmt::Write;

/// Bytes reserved for the note on what was cut.
const NOTE: usize = 40;

/// Returns `text` with all characters escaped that must not reach a terminal.
pub fn escape(text: &str) -> Cow<'_, str> {
    replaced(text, |out, c| out.extend(c.escape_default()))
}

/// Returns `text` as one line of at most `limit` bytes: its lines joined by `; `, escaped, and
/// its middle replaced by a note if it is longer. The beginning and the end stay, because they
/// mostly contain what failed and why.
pub fn one_line(text: &str, limit: usize) -> String {
    let lines = text
        .split('\n')
        .map(|line| line.trim_matches([' ', '\t', '\r']))
        .filter(|line| !line.is_empty());
    let joined = lines.collect::<Vec<_>>().join("; ");
    match cut(&joined, limit, width) {
        None => escape(&joined).into_owned(),
        Some((head, note, tail)) => format!("{}{note}{}", escape(head), escape(tail)),
    }
}

/// Returns `text` in at most `limit` bytes, its middle replaced by a note if it is longer.
/// Escapes nothing.
pub fn shorten(text: &str, limit: usize) -> Cow<'_, str> {
    match cut(text, limit, char::len_utf8) {
        None => Cow::Borrowed(text),
        Some((head, note, tail)) => Cow::Owned(format!("{head}{note}{tail}")),
    }
}

/// Returns JSON text with the same values that is safe to print: in strings, characters that
/// [`escape`] would change become `\u001b`. Newlines between tokens stay.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    replaced(json, |out, c| match c {
        // In strings, JSON has no bare control characters below U+0020.
        '\n' => out.push(c),
        '\t' | '\r' => out.push(' '),
        c => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    })
}

/// Returns whether [`escape`] would not change `text`.
pub fn is_printable(text: &str) -> bool {
    !text.contains(must_be_escaped)
}

fn must_be_escaped(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Default_Ignorable_Code_Point of Unicode 16, without U+FE00 to U+FE0F.
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
            // Zl, Zp, interlinear annotation.
            | '\u{2028}' | '\u{2029}' | '\u{fff9}'..='\u{fffb}')
}

/// Returns the bytes of `c` after escaping.
fn width(c: char) -> usize {
    if must_be_escaped(c) { c.escape_default().len() } else { c.len_utf8() }
}

fn replaced(text: &str, mut replace: impl FnMut(&mut String, char)) -> Cow<'_, str> {
    if is_printable(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if must_be_escaped(c) { replace(&mut out, c) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Returns the beginning, a note and the end that fit in `limit` if each character takes
/// `width` bytes; `None` if all of `text` fits.
fn cut(text: &str, limit: usize, width: fn(char) -> usize) -> Option<(&str, String, &str)> {
    let mut left = limit;
    let whole = text.chars().all(|c| {
        let rest = left.checked_sub(width(c));
        left = rest.unwrap_or_default();
        rest.is_some()
    });
    if whole {
        return None;
    }
    let room = limit.saturating_sub(NOTE);
    // The beginning of an error is more important than its end.
    let tail_room = room / 4;
    let head_room = room - tail_room;
    let end = fitting(text.char_indices(), head_room, width).map_or(0, |(at, c)| at + c.len_utf8());
    let rest = &text[end..];
    let start =
        fitting(rest.char_indices().rev(), tail_room, width).map_or(rest.len(), |(at, _)| at);
    Some((&text[..end], format!("… ({} more bytes) …", grouped(start)), &rest[start..]))
}

/// Returns the last character up to which `chars` fit in `room` bytes.
fn fitting(
    chars: impl Iterator<Item = (usize, char)>,
    mut room: usize,
    width: fn(char) -> usize,
) -> Option<(usize, char)> {
    let fits = |(_, c): &(usize, char)| match room.checked_sub(width(*c)) {
        Some(rest) => {
            room = rest;
            true
        }
        None => false,
    };
    chars.take_while(fits).last()
}

/// Formats `57344` as `57,344`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_format_characters_are_escaped_visibly() {
        for (text, shown) in [
            ("plain", "plain"),
            ("grüße 日本 ❤\u{fe0f} e\u{301} \u{a0}", "grüße 日本 ❤\u{fe0f} e\u{301} \u{a0}"),
            (r"C:\u{1b}", r"C:\u{1b}"),
            ("\0\x07\x08\x0b\x1b\x1f", r"\u{0}\u{7}\u{8}\u{b}\u{1b}\u{1f}"),
            ("a\tb\r\nc", r"a\tb\r\nc"),
            ("\x7f\u{80}\u{85}\u{9b}\u{9f}", r"\u{7f}\u{80}\u{85}\u{9b}\u{9f}"),
            ("\u{202a}\u{202e}\u{2066}\u{2069}", r"\u{202a}\u{202e}\u{2066}\u{2069}"),
            ("\u{200e}\u{200f}\u{61c}", r"\u{200e}\u{200f}\u{61c}"),
            ("\u{200b}\u{200c}\u{200d}\u{2060}\u{ad}", r"\u{200b}\u{200c}\u{200d}\u{2060}\u{ad}"),
            ("\u{2028}\u{2029}\u{feff}\u{fffa}", r"\u{2028}\u{2029}\u{feff}\u{fffa}"),
            ("\u{e0001}\u{e0061}\u{e007f}\u{e0100}", r"\u{e0001}\u{e0061}\u{e007f}\u{e0100}"),
            ("\u{115f}\u{3164}\u{ffa0}\u{180e}", r"\u{115f}\u{3164}\u{ffa0}\u{180e}"),
        ] {
            assert_eq!(escape(text), shown, "{text:?}");
            assert_eq!(escape(shown), shown, "escaping twice: {text:?}");
            assert_eq!(is_printable(text), text == shown, "{text:?}");
        }
    }

    #[test]
    fn control_or_format_character_of_any_plane_is_escaped() {
        for c in '\0'..=char::MAX {
            let text = c.to_string();
            if c.is_control() || is_format(c) {
                assert!(escape(&text).is_ascii(), "{c:?}");
            }
        }
    }

    /// Unicode category Cf by ranges, without the Arabic, Syriac, Kaithi and hieroglyphic
    /// marks, which have a shape.
    fn is_format(c: char) -> bool {
        let ranges = [0xad..=0xad, 0x61c..=0x61c, 0x180e..=0x180e, 0x200b..=0x200f]
            .into_iter()
            .chain([0x202a..=0x202e, 0x2060..=0x2064, 0x2066..=0x206f, 0xfeff..=0xfeff])
            .chain([0xfff9..=0xfffb, 0x1bca0..=0x1bca3, 0x1d173..=0x1d17a])
            .chain([0xe0001..=0xe0001, 0xe0020..=0xe007f]);
        ranges.into_iter().any(|range| range.contains(&u32::from(c)))
    }

    #[test]
    fn escaped_json_keeps_its_values() {
        let value = serde_json::json!({
            "k\u{9b}\u{202e}": "\x1b]0;pwn\x07\x7f\u{85}\u{2028}\u{e0041}\u{1d173}\r\n\t\u{200d}ü😀"
        });
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let safe = escape_json(&text);
            assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
            assert!(safe.split('\n').all(is_printable), "{safe}");
            assert!(safe.contains("ü😀"), "{safe}");
        }
        assert_eq!(escape_json("[1,\r\n\t2]"), "[1, \n 2]");
    }

    #[test]
    fn long_line_keeps_its_beginning_and_its_end() {
        let text = format!("cannot open {}: No space left on device", "x".repeat(60_000));
        let line = one_line(&text, 200);
        assert!(line.len() <= 200 && line.starts_with("cannot open xxx"), "{line}");
        assert!(line.ends_with("xx: No space left on device"), "{line}");
        assert!(line.contains("x… (59,"), "{line}");
        let kept: usize = line.split("… (").next().unwrap().len()
            + line.rsplit("more bytes) …").next().unwrap().len();
        let noted: String = line.chars().filter(char::is_ascii_digit).collect();
        assert_eq!(kept + noted.parse::<usize>().unwrap(), text.len());
    }

    #[test]
    fn shortened_text_of_any_characters_stays_within_the_limit() {
        for c in ["\x1b", "\u{202e}", "\u{e0041}", "😀", "ü", "\n", "a\nb"] {
            for length in [0, 1, 39, 40, 41, 100, 5000] {
                let text = c.repeat(length);
                for limit in [0, 30, 60, 100, 101, 2000] {
                    let (line, short) = (one_line(&text, limit), shorten(&text, limit));
                    let most = limit.max(NOTE);
                    assert!(line.len() <= most, "{c:?} {length} {limit}: {line}");
                    assert!(short.len() <= most, "{c:?} {length} {limit}: {short}");
                }
            }
        }
        assert_eq!(shorten("short\x1b", 6), "short\x1b");
        assert_eq!(one_line("short\x1b", 11), r"short\u{1b}");
        assert_eq!(one_line(" a\r\n\n  b \n", 100), "a; b");
    }
}
