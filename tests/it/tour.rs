//! docs/tour.md: every command runs as written and in order, in one shell, and prints what the page shows.
//!
//! IDs, sizes, times and random names differ from run to run. They are replaced on both sides, each
//! ID by the number of its first occurrence, so that the page and the run must show the same ID in
//! the same places. `RPULL_UPDATE_TOUR=1 cargo test --test it -- tour::` writes the output of the
//! run into the page.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::mount::mount_bind;

use crate::support::busybox;
use crate::support::image::Image;
use crate::support::internet::Internet;
use crate::support::rpull::BINARY;
use crate::support::scratch;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tour.md");

/// The words of an age, as in "Less than a second ago" and "3 weeks ago".
const AGE: [&str; 16] = [
    "Less", "than", "About", "a", "an", "second", "seconds", "minute", "minutes", "hour", "hours",
    "days", "weeks", "months", "years", "year",
];

/// The line that ends the output of a command.
const END: &str = "--- end of the output ---";

/// What stands for the image of this name on Docker Hub.
fn busybox() -> Image {
    let dirs = ["dev/", "proc/", "root/", "sys/", "tmp/"];
    let tar = dirs.iter().fold(busybox::base(), |tar, dir| tar.dir(dir));
    Image::oci().layer(tar.end()).cmd(&["sh"])
}

/// A shell that keeps its directory and variables from command to command.
struct Shell {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Shell {
    fn start(dir: &Path) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "bash", "--norc", "--noprofile", "-s"]);
        command.env_clear().current_dir(dir);
        let programs = Path::new(BINARY).parent().expect("a directory").display();
        let path =
            format!("{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("PATH", path).env("HOME", dir).env("COLUMNS", "100").env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start bash");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut shell = Self { child, output };
        shell.run("exec 2>&1");
        shell
    }

    /// Runs a command and returns what it prints, with its exit code if that is not zero.
    fn run(&mut self, command: &str) -> String {
        let input = self.child.stdin.as_mut().expect("a pipe");
        // The command must not read the commands that follow.
        let line = format!(
            "{{ {command}\n}} </dev/null; code=$?; [ $code = 0 ] || echo \"(exit code $code)\"; echo; echo '{END}'\n"
        );
        input.write_all(line.as_bytes()).expect("feed bash");
        let mut text = String::new();
        loop {
            let mut line = Vec::new();
            let count = self.output.read_until(b'\n', &mut line).expect("read from bash");
            assert!(count > 0, "the shell ended after: {command}");
            let line = String::from_utf8_lossy(&line);
            if line.trim_end() == END {
                break;
            }
            text.push_str(&line);
        }
        text.trim_end().to_owned()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A part of the page.
enum Part {
    /// Text, with the marks of blocks.
    Text(String),
    /// A command and what it prints.
    Command(String, String),
}

/// Splits the page. In a `console` block, a line that begins with `$ ` is a command, which
/// continues on the next line after a backslash or in a here-document.
fn parts(page: &str) -> Vec<Part> {
    let (mut parts, mut in_block) = (Vec::new(), false);
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            in_block = line == "```console";
            parts.push(Part::Text(line.to_owned()));
        } else if !in_block {
            parts.push(Part::Text(line.to_owned()));
        } else if let Some(command) = line.strip_prefix("$ ") {
            let mut command = command.to_owned();
            let end = command.split_once("<<").map(|(_, end)| end.trim_matches('\'').to_owned());
            let is_complete = |command: &str| match &end {
                Some(end) => command.lines().skip(1).any(|line| line == end),
                None => !command.ends_with('\\'),
            };
            while !is_complete(&command) {
                command = format!("{command}\n{}", lines.next().expect("the rest of a command"));
            }
            parts.push(Part::Command(command, String::new()));
        } else if let Some(Part::Command(_, output)) = parts.last_mut() {
            output.push_str(line);
            output.push('\n');
        } else {
            panic!("output without a command: {line}");
        }
    }
    parts
}

/// Replaces what differs from run to run.
#[derive(Default)]
struct Normalizer {
    ids: HashMap<String, usize>,
}

impl Normalizer {
    fn text(&mut self, text: &str) -> String {
        let lines = text.trim_end().lines().map(|line| self.line(line));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn line(&mut self, line: &str) -> String {
        // Images are listed by their IDs.
        let line = line.split_once("(images ").map_or(line, |(before, _)| before);
        // Columns are as wide as what is in them.
        let words: Vec<String> = line.split_whitespace().map(|word| self.word(word)).collect();
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        while let Some(end) = words.iter().position(|word| *word == "ago") {
            let is_of_age = |word: &&str| AGE.contains(word) || word.parse::<u32>().is_ok();
            let before = words[..end].iter().rev().take_while(|word| is_of_age(word)).count();
            words.splice(end - before..=end, ["TIME"]);
        }
        words.join(" ")
    }

    fn word(&mut self, word: &str) -> String {
        let is_part_of_id = |c: char| c.is_ascii_alphanumeric();
        let (mut result, mut rest) = (String::new(), word);
        while !rest.is_empty() {
            let end = rest.find(|c| !is_part_of_id(c)).unwrap_or(rest.len());
            if end == 0 {
                let length = rest.chars().next().map_or(1, char::len_utf8);
                result.push_str(&rest[..length]);
                rest = &rest[length..];
                continue;
            }
            result.push_str(&self.run(&rest[..end]));
            rest = &rest[end..];
        }
        let is_number =
            |c: char| c.is_ascii_digit() || matches!(c, '.' | ',' | '-' | ':' | 'T' | 'Z' | '+');
        let number = word.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ',');
        let unit = word[number.len()..].trim_end_matches(',');
        let is_size = ["B", "kB", "KB", "MB", "GB", "KiB", "MiB", "s", "ms"].contains(&unit);
        let is_time = word.len() >= 8 && word.chars().all(is_number) && word.contains([':', '-']);
        match number.parse::<f64>().is_ok() && is_size || is_time {
            true => "NUMBER".to_owned(),
            false => result,
        }
    }

    /// Replaces digests, IDs and the names of links.
    fn run(&mut self, run: &str) -> String {
        let is_hex = run.len() >= 12 && run.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let is_link =
            run.len() == 26 && run.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'2'..=b'7'));
        if !is_hex && !is_link {
            return run.to_owned();
        }
        let next = self.ids.len() + 1;
        let number = self.ids.entry(run[..12].to_owned()).or_insert(next);
        format!("ID{number}")
    }
}

/// Runs the page in a mount namespace of its own, in which docker.io is a registry of the tests.
fn run_page() {
    let internet = Internet::new(&["registry-1.docker.io"]);
    busybox().push(internet.backend(), "library/busybox:latest");
    let place = scratch::dir();
    let (hosts, certificates) = (place.path().join("hosts"), place.path().join("certificates"));
    internet.write(&hosts, &certificates);
    mount_bind(&hosts, "/etc/hosts").expect("bind");
    mount_bind(&certificates, "/etc/ssl/certs/ca-certificates.crt").expect("bind");
    let dir = place.path().join("tour");
    fs::create_dir(&dir).expect("a directory");
    let mut shell = Shell::start(&dir);
    let page = fs::read_to_string(PAGE).expect("the page");
    let update = std::env::var_os("RPULL_UPDATE_TOUR").is_some();
    let (mut updated, mut wrong, mut commands) = (String::new(), Vec::new(), 0);
    let (mut shown, mut printed) = (Normalizer::default(), Normalizer::default());
    for part in parts(&page) {
        match part {
            Part::Text(line) => updated.push_str(&format!("{line}\n")),
            Part::Command(command, output) => {
                commands += 1;
                let actual = shell.run(&command).replace(dir.to_str().expect("UTF-8"), "/tour");
                let newline = if actual.is_empty() { "" } else { "\n" };
                updated.push_str(&format!("$ {command}\n{actual}{newline}"));
                if shown.text(&output) != printed.text(&actual) {
                    wrong.push(format!(
                        "$ {command}\n-- the page shows\n{output}-- it prints\n{actual}\n"
                    ));
                }
            }
        }
    }
    drop(shell);
    if update {
        fs::write(PAGE, updated).expect("write the page");
        return;
    }
    assert!(commands > 40, "the page has {commands} commands");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn commands_of_the_tour_print_what_it_shows() {
    scratch::in_private_mounts(run_page);
}

#[test]
fn ids_are_compared_by_their_place_and_sizes_are_not() {
    let text = |texts: &[&str]| {
        let mut normalizer = Normalizer::default();
        texts.iter().map(|text| normalizer.text(text)).collect::<Vec<_>>()
    };
    let (a, b) = ("0123456789abcdef", "fedcba9876543210");
    let page = text(&[&format!("x  {a} 1.5MB"), &format!("{b}/{} 3 seconds ago", &a[..12])]);
    assert_eq!(page, ["x ID1 NUMBER", "ID2/ID1 TIME"]);
    assert_eq!(page, text(&[&format!("x {b} 20kB"), &format!("{a}/{b} Less than a second ago")]));
    assert_ne!(page, text(&[&format!("x {b} 20kB"), &format!("{b}/{b} 2 minutes ago")]));
    assert_eq!(
        text(&["C /etc", "2026-01-01T00:00:00Z 12 file-1.5"]),
        ["C /etc", "NUMBER 12 file-1.5"]
    );
}
