//! Plain language in what users read: help texts, errors, hints and documentation.
//!
//! The list names only phrases that have a plain replacement and that no sentence needs.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::rpull::Rpull;
use crate::support::scratch;

/// Words that describe programs as people, and words with a common term instead.
const WORDS: [(&str, &str); 10] = [
    ("nobody", "name what does not happen"),
    ("whoever", "name the process or user"),
    ("spoken", "contacted"),
    ("rubbish", "partial or invalid content"),
    ("mend", "resume, repair or rewrite"),
    ("mended", "resumed, repaired or rewritten"),
    ("lane", "connection"),
    ("lanes", "connections"),
    ("inflating", "decompressing"),
    ("anew", "again"),
];

/// Nouns that were used without "per": "one line per change", not "a line a change".
const COUNTED: [&str; 8] = ["line", "row", "lock", "file", "call", "thread", "record", "object"];

/// What follows "is no" in plain English.
const AFTER_IS_NO: [&str; 4] = ["longer", "more", "slower", "faster"];

/// Returns why `line` is not plain, if it is not.
fn fault(line: &str) -> Option<String> {
    line.split(['.', ',', ';', ':', '(', ')', '|']).find_map(fault_of_clause)
}

fn fault_of_clause(clause: &str) -> Option<String> {
    let lower = clause.to_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| !c.is_alphanumeric() && c != '\'')
        .filter(|word| !word.is_empty())
        .collect();
    if let Some((word, better)) = WORDS.iter().find(|(word, _)| words.contains(word)) {
        return Some(format!("'{word}': {better}"));
    }
    for (i, word) in words.iter().enumerate() {
        let at = |offset: usize| words.get(i + offset).copied().unwrap_or_default();
        let there = i > 0 && words[i - 1] == "there";
        if *word == "is" && at(1) == "no" && !there && !AFTER_IS_NO.contains(&at(2)) {
            return Some(format!("'is no {}': is not a", at(2)));
        }
        let bare = at(1) == "a" || at(1) == "an";
        if COUNTED.contains(word) && bare && !at(2).is_empty() {
            return Some(format!("'{word} {} {}': one .. per ..", at(1), at(2)));
        }
    }
    None
}

/// Appends the faults of `text` to `faults`, as `NAME:LINE: FAULT`.
fn check(name: &str, text: &str, faults: &mut Vec<String>) {
    let numbered = (1..).zip(text.lines());
    faults.extend(numbered.filter_map(|(n, line)| Some(format!("{name}:{n}: {}", fault(line)?))));
}

fn assert_plain(faults: &[String]) {
    assert!(faults.is_empty(), "not plain language:\n{}", faults.join("\n"));
}

#[test]
fn help_of_every_command_is_plain() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let main = rpull.ok(["--help"]);
    let listed = main.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<String> = listed
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|command| command != "help")
        .collect();
    assert!(commands.len() >= 10, "{main}");
    let mut faults = Vec::new();
    check("rpull --help", &main, &mut faults);
    for command in commands {
        for flag in ["-h", "--help"] {
            let help = rpull.ok([command.as_str(), flag]);
            let examples = help.split("\nExamples:\n").nth(1).unwrap_or_default();
            let count = examples.lines().filter(|line| line.starts_with("  rpull ")).count();
            assert!(count >= 3, "not three examples: {command} {flag}");
            check(&format!("rpull {command} {flag}"), &help, &mut faults);
        }
    }
    assert_plain(&faults);
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_in(dir: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(repository().join(dir)).expect(dir);
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// Removes code, which keeps its names: blocks between fences and spans in backticks.
fn prose(markdown: &str) -> String {
    let mut fenced = false;
    let line = |line: &str| {
        if line.starts_with("```") {
            fenced = !fenced;
            return String::new();
        }
        if fenced {
            String::new()
        } else {
            line.split('`').step_by(2).collect::<Vec<_>>().join("_")
        }
    };
    markdown.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn documentation_is_plain() {
    let mut files = files_in(".", "md");
    files.extend(files_in("docs", "md"));
    assert!(files.len() >= 9, "{files:?}");
    let mut faults = Vec::new();
    for file in files {
        let text = prose(&fs::read_to_string(&file).unwrap());
        check(&file.strip_prefix(repository()).unwrap().display().to_string(), &text, &mut faults);
    }
    assert_plain(&faults);
}

#[test]
fn errors_and_hints_are_plain() {
    let mut files = files_in("src/commands", "rs");
    for file in ["failure", "hints", "names", "unknown"] {
        files.push(repository().join(format!("src/cli/{file}.rs")));
    }
    for module in ["", "layer/", "registry/", "store/"] {
        files.push(repository().join(format!("src/{module}error.rs")));
    }
    let mut faults = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        // Only string literals: every second part between quotation marks.
        let literals = |line: &str| match line.trim_start().starts_with("//") {
            true => String::new(),
            false => line.split('"').skip(1).step_by(2).collect::<Vec<_>>().join(" | "),
        };
        let text = text.lines().map(literals).collect::<Vec<_>>().join("\n");
        check(&file.strip_prefix(repository()).unwrap().display().to_string(), &text, &mut faults);
    }
    assert_plain(&faults);
}

#[test]
fn fault_is_found_in_known_examples_only() {
    for bad in [
        "asks nobody",
        "loopback ones are spoken to so anyway",
        "A line a change, in Docker's words",
        "blobs that mend themselves",
        "an entry that is no file",
        "one thread an image",
    ] {
        assert!(fault(bad).is_some(), "{bad}");
    }
    for good in [
        "one line per change",
        "there is no image store at /x",
        "schema 1 is no longer supported",
        "the file is a link",
        "under the lock (a file)",
        "a recommendation for planes",
    ] {
        assert_eq!(fault(good), None, "{good}");
    }
}
