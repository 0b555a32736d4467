//! Text from outside never reaches a terminal as more than text: through every way by which
//! it comes in, in every form of output, control characters are escaped, and what is said
//! about one failure stays short.

mod bars;
mod commands;
mod log;
mod order;
mod pulls;

use std::process::{Command, Output};

use serde_json::Value;

use crate::support::rpull::{BINARY, Rpull};
use crate::support::scratch;

/// What a terminal would obey or a reader not see: a title, a cleared screen, a return to
/// the line's beginning, an 8-bit CSI, an override of direction, an isolate, and more.
const PAYLOAD: &str =
    "\x1b]0;pwn\x07\x1b[2J\r\u{9b}31m\u{202e}\u{2066}\x7f\u{200b}\u{2028}\u{feff}\u{e0041}";

/// How the beginning of [`PAYLOAD`] is shown.
const SHOWN: &str = r"\u{1b}]0;pwn\u{7}";

/// All that may be said on standard error about one failure.
const LONGEST: usize = 4096;

const MODES: [&[&str]; 4] =
    [&["--progress", "plain"], &["--progress", "json"], &["-q"], &["--progress", "none"]];

/// Fails on any character that [`PAYLOAD`] is made of, and on its relatives.
#[track_caller]
fn assert_text(bytes: &[u8], what: &str) {
    let text = std::str::from_utf8(bytes)
        .unwrap_or_else(|e| panic!("{what}: {e}: {}", bytes.escape_ascii()));
    for c in text.chars().filter(|&c| c != '\n') {
        let invisible = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{61c}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
        assert!(!c.is_control() && !invisible, "{what}: {c:?} in: {text:?}");
    }
}

#[track_caller]
fn assert_clean(output: &Output, what: &str) {
    assert_text(&output.stdout, &format!("stdout of {what}"));
    assert_text(&output.stderr, &format!("stderr of {what}"));
    let length = output.stderr.len();
    assert!(length < LONGEST, "{what}: {length} bytes: {}", output.stderr.escape_ascii());
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn leaked(text: impl Into<String>) -> &'static str {
    Box::leak(text.into().into_boxed_str())
}

/// Runs `rpull ARGS` on a pseudo-terminal; what it showed, without the sequences by which
/// bars are drawn.
fn on_a_terminal(rpull: &Rpull, args: &[&str]) -> String {
    let quoted = |word: &&str| format!("'{}'", word.replace('\'', "'\\''"));
    let line = [BINARY].iter().chain(args).map(quoted).collect::<Vec<_>>().join(" ");
    let mut command = Command::new("script");
    rpull.dress(&mut command);
    let output = command
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .envs([("TERM", "xterm"), ("SHELL", "/bin/sh")])
        .output()
        .expect("start script");
    let shown = String::from_utf8(output.stdout).expect("text on the terminal");
    for sequence in ["\x1b]", "\x1b[2J", "\x1b[31m", "\x1b[3J"] {
        assert!(!shown.contains(sequence), "{sequence:?} in: {shown:?}");
    }
    without_sequences(&shown)
}

/// Without CSI sequences, and without the carriage returns of lines and bars.
fn without_sequences(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(part.len(), |at| at + 1);
        plain.push_str(&part[end..]);
    }
    plain.replace('\r', "")
}

/// `rpull pull ARGS` in every mode, each on a fresh root. `shown` stands on standard error;
/// with `failed`, the event of the failure tells the same of `PAYLOAD` itself.
struct Pull<'a> {
    args: &'a [&'a str],
    code: i32,
    shown: &'a str,
}

impl Pull<'_> {
    #[track_caller]
    fn in_every_mode(&self) {
        for mode in MODES {
            let scratch = scratch::dir();
            let rpull = Rpull::on(scratch.path().join("root"));
            let args = ["pull"].iter().chain(mode).chain(self.args);
            let output = rpull.command(args).output().expect("start rpull");
            let what = format!("{mode:?} {:?}", self.args);
            assert_clean(&output, &what);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(self.code), "{what}: {said}");
            assert!(said.contains(self.shown), "{what}: no {} in: {said}", self.shown);
            if mode.contains(&"json") {
                events(&output.stdout);
            }
        }
        let scratch = scratch::dir();
        let rpull = Rpull::on(scratch.path().join("root"));
        let args: Vec<_> = ["pull"].iter().chain(self.args).copied().collect();
        let shown = on_a_terminal(&rpull, &args);
        assert_text(shown.as_bytes(), "a terminal");
        assert!(shown.contains(self.shown), "a terminal: no {} in: {shown}", self.shown);
    }
}

/// The lines of `--progress json`, each a value.
#[track_caller]
fn events(stdout: &[u8]) -> Vec<Value> {
    let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    text(stdout).lines().map(line).collect()
}
