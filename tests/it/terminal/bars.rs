//! The rows that a pull draws on a terminal, and what stays there.

use std::fs;
use std::process::{Command, Output};

use indicatif::{InMemoryTerm, TermLike};

use super::text;
use crate::support::hub::Hub;
use crate::support::image::{Image, Pushed};
use crate::support::proxy::{Fault, Proxy};
use crate::support::rpull::{BINARY, Rpull};
use crate::support::scratch;
use crate::support::tar::{Tar, noise};

fn push(image: &Image) -> Pushed {
    let hub = Hub::shared();
    image.push(&hub.host, &format!("{}:latest", hub.repository("bars")))
}

/// An image whose layers have about `size` bytes each.
fn of_layers(count: usize, size: usize) -> Image {
    let layer = |n: usize| Tar::new().file("noise", noise(size + n)).end();
    (1..=count).fold(Image::new(), |image, n| image.layer(layer(n)))
}

/// What a command wrote to a pseudo-terminal.
struct Shown {
    output: Output,
    lines: u16,
    columns: u16,
}

/// Runs `line` in a shell on a terminal of this size, with `rpull` for the command.
fn on_terminal(
    rpull: &Rpull,
    (lines, columns): (u16, u16),
    env: &[(&str, &str)],
    line: &str,
) -> Shown {
    let line = format!(
        "stty rows {lines} cols {columns} -onlcr; set -o pipefail; {}",
        line.replace("rpull", BINARY)
    );
    let mut command = Command::new("script");
    rpull.dress(&mut command);
    command.args(["-q", "-e", "-c", &line, "/dev/null"]);
    command.envs([("TERM", "xterm"), ("SHELL", "/bin/bash")]).envs(env.iter().copied());
    Shown { output: command.output().expect("start script"), lines, columns }
}

impl Shown {
    fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    fn raw(&self) -> String {
        text(&self.output.stdout).replace('\n', "\r\n")
    }

    /// The screen in the end.
    fn screen(&self) -> String {
        let terminal = InMemoryTerm::new(self.lines, self.columns);
        terminal.write_str(&self.raw()).unwrap();
        terminal.contents()
    }

    /// The screen whenever rows are about to be replaced.
    fn screens(&self) -> Vec<String> {
        let terminal = InMemoryTerm::new(self.lines, self.columns);
        let mut screens = Vec::new();
        for piece in self.raw().split_inclusive("\x1b[2K") {
            let (written, clear) = match piece.strip_suffix("\r\x1b[2K") {
                Some(written) => (written, "\r\x1b[2K"),
                None => (piece, ""),
            };
            terminal.write_str(written).unwrap();
            screens.push(terminal.contents());
            terminal.write_str(clear).unwrap();
        }
        screens
    }
}

/// Whether `line` is a row, and not the rest of one that was too long.
fn is_row(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_id = |word: &str| word.len() == 12 && word.chars().all(|c| c.is_ascii_hexdigit());
    let is_step = |word: &str| ["Downloading", "Extracting", "Copying"].contains(&word);
    match words.as_slice() {
        ["Total" | "Resolving", _, ..] => true,
        [id, step, ..] if is_id(id) => is_step(step),
        [count, what, ..] if count.parse::<u32>().is_ok() => {
            ["layer", "layers", "more", "waiting"].contains(what)
        }
        _ => false,
    }
}

#[test]
fn rows_of_61_layers_fit_every_terminal_and_vanish() {
    let pushed = push(&of_layers(61, 40_000));
    let slow = Proxy::every("/blobs/", Fault::Slow(400_000));
    let name = slow.name(&pushed.name());
    for size in [(24, 40), (24, 80), (50, 200), (6, 80)] {
        let scratch = scratch::dir();
        let rpull = Rpull::on(scratch.path().join("root"));
        let shown = on_terminal(&rpull, size, &[], &format!("rpull {name}"));
        assert_eq!(shown.code(), Some(0), "{}", shown.screen());
        let screens = shown.screens();
        let during = screens.iter().take_while(|screen| !screen.contains("Digest: "));
        let (mut layers, mut totals) = (0, 0);
        for screen in during {
            let rows = screen.lines().filter(|line| !line.is_empty());
            for row in rows {
                assert!(is_row(row), "{row:?} in: {screen}");
                layers += usize::from(row.contains("Downloading"));
                totals += usize::from(row.starts_with("Total ") && row.contains('%'));
            }
        }
        assert!(layers > 0 && totals > 0, "{size:?}: {layers} rows of layers, {totals} totals");
        let end = shown.screen();
        let whole = end.replace('\n', "");
        let summary = format!(
            "Digest: {}Status: Downloaded newer image for {name}{name}Fetched 2.4",
            pushed.digest
        );
        assert!(whole.starts_with(&summary), "{end}");
        assert!(whole.contains("MB (61 layers), ") && whole.ends_with(" s"), "{end}");
    }
}

#[test]
fn rows_of_several_images_tell_the_image() {
    let (one, two) = (push(&of_layers(2, 100_000)), push(&of_layers(3, 90_000)));
    let slow = Proxy::every("/blobs/", Fault::Slow(200_000));
    let (one, two) = (slow.name(&one.name()), slow.name(&two.name()));
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let shown = on_terminal(&rpull, (24, 120), &[], &format!("rpull {one} {two}"));
    assert_eq!(shown.code(), Some(0), "{}", shown.screen());
    let screens = shown.screens().concat();
    for name in [&one, &two] {
        let row = |line: &str| line.starts_with(name) && line.contains(" Downloading ");
        assert!(screens.lines().any(row), "no row of {name}");
    }
    let end = shown.screen();
    let order = ["Digest: ", &one, "Digest: ", &two, "Fetched "];
    let mut rest = end.as_str();
    for part in order {
        let at = rest.find(part).unwrap_or_else(|| panic!("no {part} in order in: {end}"));
        rest = &rest[at + part.len()..];
    }
    assert_eq!(end.matches("Fetched ").count(), 1, "{end}");
}

#[test]
fn error_is_printed_once_below_the_summary() {
    let (good, bad) = (of_layers(3, 50_000), of_layers(2, 20_000));
    let (pushed, broken) = (push(&good), push(&bad));
    let lost = format!("/blobs/{}", bad.layers[1].digest());
    let json = "Content-Type: application/json\r\n";
    let proxy = Proxy::new(move |_, path| match path {
        path if path.ends_with(&lost) => Fault::Instead("404 Not Found", json, "{}"),
        path if path.contains("/blobs/") => Fault::Slow(100_000),
        _ => Fault::None,
    });
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let (good, bad) = (proxy.name(&pushed.name()), proxy.name(&broken.name()));
    let shown = on_terminal(&rpull, (30, 200), &[], &format!("rpull {bad} {good}"));
    assert_eq!(shown.code(), Some(3), "{}", shown.screen());
    let end = shown.screen();
    let lines: Vec<&str> = end.lines().collect();
    assert!(lines[0].starts_with("Digest: "), "{end}");
    assert!(lines[1].ends_with(&good) && lines[2] == good, "{end}");
    assert!(lines[3].starts_with("Fetched "), "{end}");
    assert!(lines[4].starts_with("rpull: "), "{end}");
    assert!(lines.len() <= 6, "{end}");
    assert!(!end.contains("Downloading") && !end.contains("Total "), "{end}");
}

#[test]
fn retry_is_printed_above_the_rows() {
    let image = of_layers(2, 300_000);
    let pushed = push(&image);
    let cut = image.layers[0].digest();
    let proxy = Proxy::first(cut, [Fault::Cut(100_000)]);
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let line = format!("rpull {}", proxy.name(&pushed.name()));
    let shown = on_terminal(&rpull, (24, 100), &[], &line);
    assert_eq!(shown.code(), Some(0), "{}", shown.screen());
    let end = shown.screen();
    assert_eq!(end.lines().filter(|line| line.contains("attempt 2 in ")).count(), 1, "{end}");
    let after = end.lines().skip_while(|line| !line.contains("attempt 2 in "));
    assert!(after.skip(1).any(|line| line.starts_with("Digest: ")), "{end}");
    let screens = shown.screens().concat();
    assert!(screens.contains("Reconnecting"), "{screens}");
}

#[test]
fn standard_output_has_the_same_lines_in_every_place() {
    let pushed = push(&of_layers(1, 50_000));
    let slow = Proxy::every("/blobs/", Fault::Slow(100_000));
    let name = slow.name(&pushed.name());
    let scratch = scratch::dir();
    let rpull = |root: &str| Rpull::on(scratch.path().join(root));
    let plain = rpull("pipe").ok([&name]);
    assert!(plain.starts_with("latest: Pulling from "), "{plain}");

    // A file: the terminal shows rows and the summary.
    let file = scratch.path().join("file");
    let line = format!("rpull {name} > {}", file.display());
    let shown = on_terminal(&rpull("to-file"), (24, 120), &[], &line);
    assert_eq!(fs::read_to_string(&file).unwrap(), plain);
    assert!(shown.screens().concat().contains("Downloading"));
    assert!(shown.screen().starts_with("Digest: ") && shown.screen().contains("\nFetched "));

    // A program that prints to the same terminal, and a terminal that cannot move its cursor.
    let piped = on_terminal(&rpull("to-cat"), (24, 120), &[], &format!("rpull {name} | cat"));
    assert_eq!(text(&piped.output.stdout), plain);
    let line = format!("rpull {name}");
    for (root, env) in [("dumb", ("TERM", "dumb")), ("unset", ("TERM", ""))] {
        let dumb = on_terminal(&rpull(root), (24, 120), &[env], &line);
        assert_eq!(text(&dumb.output.stdout), plain);
    }
}

#[test]
fn colours_follow_the_terminal_and_the_variables() {
    let scratch = scratch::dir();
    let rpull = Rpull::on(scratch.path().join("root"));
    let args = ["pull", "--policy", "never", "localhost:1/missing"];
    let line = args.iter().fold("rpull".to_owned(), |line, arg| format!("{line} {arg}"));
    let (red, plain) = ("\x1b[1;31mrpull:\x1b[0m ", "rpull: ");
    for (env, expected) in [
        (&[][..], red),
        (&[("NO_COLOR", "")], red),
        (&[("NO_COLOR", "1")], plain),
        (&[("TERM", "dumb")], plain),
        (&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], plain),
    ] {
        let shown = on_terminal(&rpull, (24, 80), env, &line);
        let said = text(&shown.output.stdout);
        assert!(said.contains(expected), "{env:?}: {said:?}");
        assert_eq!(said.contains('\x1b'), expected == red, "{env:?}: {said:?}");
    }
    for (force, expected) in [("", plain), ("0", plain), ("1", red)] {
        let output = rpull.command(args).env("CLICOLOR_FORCE", force).output().unwrap();
        assert!(text(&output.stderr).starts_with(expected), "{force:?}: {output:?}");
    }
}
