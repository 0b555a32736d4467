//! What the command line says. Parsed low here, resolved by `commands`.

pub mod flags;
pub mod hints;
pub mod log;
pub mod output;
pub mod quantity;
pub mod render;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::builder::{Resettable, StyledStr};
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, CommandFactory, FromArgMatches};

use flags::Cli;
use rpull::printable;

/// The most bytes of a word of the command line that a usage error repeats.
const LONGEST_WORD: usize = 400;

/// Reads the command line. `rpull IMAGE...` is `rpull pull IMAGE...`: a first word that is
/// no command's name is an image. A command's name wins over an image of that name.
///
/// # Errors
/// What is wrong with it, or `--help` and `--version`.
pub fn parse() -> Result<Cli, clap::Error> {
    let mut command = command();
    let args = with_verb(std::env::args_os().collect());
    let mut matches = command.try_get_matches_from_mut(args)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|e| e.format(&mut command))
}

/// The parser, for which an empty variable counts as unset.
fn command() -> clap::Command {
    fn without_empty(command: clap::Command) -> clap::Command {
        let is_empty = |arg: &Arg| {
            arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty())
        };
        command
            .mut_args(|arg| if is_empty(&arg) { arg.env(Resettable::Reset) } else { arg })
            .mut_subcommands(without_empty)
    }
    without_empty(Cli::command())
}

/// Says what is wrong with the command line.
pub fn usage(error: clap::Error) -> ExitCode {
    // `--help` and `--version` are errors to clap, and print to stdout.
    let wrong = error.use_stderr();
    let text = in_lines(error).render().ansi().to_string();
    match output::usage(&text, wrong) {
        Err(failure) => output::fail(&failure),
        Ok(()) if wrong => ExitCode::from(2),
        Ok(()) => ExitCode::SUCCESS,
    }
}

/// Makes each word of the user's in `error` one short line: in the rendered text, its
/// newlines could not be told from the parser's.
fn in_lines(mut error: clap::Error) -> clap::Error {
    let line = |text: &str| printable::one_line(text, LONGEST_WORD);
    let styled = |text: &StyledStr| StyledStr::from(line(&text.ansi().to_string()));
    let words: Vec<(ContextKind, ContextValue)> =
        error.context().map(|(kind, value)| (kind, value.clone())).collect();
    for (kind, value) in words {
        let value = match value {
            _ if kind == ContextKind::Usage => continue,
            ContextValue::String(text) => ContextValue::String(line(&text)),
            ContextValue::Strings(all) => {
                ContextValue::Strings(all.iter().map(|text| line(text)).collect())
            }
            ContextValue::StyledStr(text) => ContextValue::StyledStr(styled(&text)),
            ContextValue::StyledStrs(all) => {
                ContextValue::StyledStrs(all.iter().map(styled).collect())
            }
            _ => continue,
        };
        error.insert(kind, value);
    }
    error
}

fn with_verb(args: Vec<OsString>) -> Vec<OsString> {
    let command = Cli::command();
    let takes_value = |flag: &str| {
        command.get_arguments().any(|arg| {
            let long = flag.strip_prefix("--").is_some_and(|name| arg.get_long() == Some(name));
            let short = flag.len() == 2 && arg.get_short().is_some_and(|s| flag.ends_with(s));
            (long || short) && arg.get_action().takes_values()
        })
    };
    let is_verb = |word: &str| word == "help" || command.find_subcommand(word).is_some();
    let mut position = 1;
    while let Some(word) = args.get(position).and_then(|word| word.to_str()) {
        if !word.starts_with('-') || word == "-" {
            if is_verb(word) {
                return args;
            }
            break;
        }
        if matches!(word, "--help" | "-h" | "--version" | "-V") {
            return args;
        }
        position += if takes_value(word) { 2 } else { 1 };
    }
    if position >= args.len() {
        return args;
    }
    let mut args = args;
    args.insert(1, "pull".into());
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verb(line: &str) -> String {
        let args = with_verb(line.split(' ').map(OsString::from).collect());
        args.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn an_image_is_pulled_and_a_verb_is_a_verb() {
        assert_eq!(verb("rpull nginx"), "rpull pull nginx");
        assert_eq!(verb("rpull --root images nginx"), "rpull pull --root images nginx");
        assert_eq!(verb("rpull -q nginx a"), "rpull pull -q nginx a");
        assert_eq!(verb("rpull --jobs=2 nginx"), "rpull pull --jobs=2 nginx");
        assert_eq!(verb("rpull images"), "rpull images");
        assert_eq!(verb("rpull --root x images"), "rpull --root x images");
        assert_eq!(verb("rpull --version"), "rpull --version");
        assert_eq!(verb("rpull"), "rpull");
        assert_eq!(verb("rpull -q"), "rpull -q");
    }

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }
}
