//! Manual pages, made from the help texts. Only a build with the feature `man` has them:
//! `cargo run --features man -- man DIR`.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::flags::Cli;
use super::help;

/// The heading of the examples in a help text.
const EXAMPLES: &str = "Examples:\n";

/// Writes rpull.1, and rpull-COMMAND.1 of each command, to `dir`.
///
/// # Errors
/// A file cannot be written.
pub fn write(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut names = Vec::new();
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        names.push(format!("rpull-{}", verb.get_name()));
        page(verb.clone(), &["rpull".to_owned()], dir)?;
    }
    page(command, &names, dir)
}

fn page(mut command: Command, see_also: &[String], dir: &Path) -> io::Result<()> {
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let usage = help::plain(&command.render_usage().to_string());
    let is_main = command.get_name() == "rpull";
    if !is_main {
        command = command.override_usage(usage.trim_start_matches("Usage: ").to_owned());
    }
    // A page has what the short help leaves out.
    let command = command.mut_args(|arg| arg.hide_short_help(false));
    // The version of rpull, also on the pages of its commands.
    let source = concat!("rpull ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command).source(source).manual("rpull");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if is_main {
        man.render_subcommands_section(&mut text)?;
    }
    let mut roff = Roff::new();
    if let Some((_, lines)) = examples.split_once(EXAMPLES) {
        roff.control("SH", ["EXAMPLES"]);
        roff.control("nf", []);
        let lines = lines.lines().take_while(|line| line.starts_with("  "));
        for line in lines {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
    }
    roff.control("SH", ["SEE ALSO"]);
    for name in see_also {
        roff.text([bold(name), roman("(1)")]);
    }
    roff.to_writer(&mut text)?;
    // Names of values are in italics already.
    let text = String::from_utf8_lossy(&text).replace(r"\fI<", r"\fI").replace(r">\fR", r"\fR");
    fs::write(dir.join(man.get_filename()), text)
}

#[cfg(test)]
mod tests {
    use std::process::Command as Process;

    use super::*;

    #[test]
    fn pages_of_all_commands_have_examples_and_are_accepted_by_man() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let paths: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().path()).collect();
        assert!(paths.len() > 10, "{paths:?}");
        for name in ["rpull.1", "rpull-pull.1", "rpull-umount.1"] {
            assert!(dir.path().join(name).exists(), "{name}");
        }
        for path in paths {
            let mut man = Process::new("man");
            man.args(["--local-file", "--encoding=utf8"]).arg(&path);
            let output = man.env("MANWIDTH", "80").output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{}: {output:?}", path.display());
            assert!(text.contains("EXAMPLES\n"), "{text}");
            let examples =
                text.split("EXAMPLES\n").nth(1).unwrap().split("SEE ALSO").next().unwrap();
            let count = examples.lines().filter(|line| line.trim().starts_with("rpull ")).count();
            assert!(count >= 3, "{}: {examples}", path.display());
            if path.ends_with("rpull-pull.1") {
                assert!(text.contains("rpull pull [OPTIONS] IMAGE...\n"), "{text}");
                // Lines are justified by spaces between words.
                let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(
                    words.contains("--max-ratio N") && words.contains("Refuse layers over 1"),
                    "{text}"
                );
            }
        }
    }
}
