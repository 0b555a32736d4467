//! What the command line says. Parsed low here, resolved by `commands`.

pub mod colour;
pub mod complete;
pub mod failure;
pub mod flags;
pub mod format;
mod help;
pub mod hints;
pub mod log;
#[cfg(any(test, feature = "man"))]
pub mod manual;
pub mod names;
pub mod output;
pub mod quantity;
pub mod render;
mod template;
pub mod unknown;
mod words;

use std::process::ExitCode;

use clap::builder::{Resettable, StyledStr};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, CommandFactory, FromArgMatches};

use failure::{Failure, Forms};
use flags::Cli;
use rpull::printable;

/// The most bytes of a word of the command line that a usage error repeats.
const LONGEST_WORD: usize = 400;

/// Why there is nothing to run.
pub enum Stop {
    /// An invalid command line, or `--help` and `--version`.
    Parser(clap::Error),
    /// No arguments.
    NoArguments(clap::Error),
    /// The first word is rather a mistyped command than an image.
    Unknown(Failure),
}

/// Reads the command line. `rpull IMAGE...` is `rpull pull IMAGE...`.
///
/// # Errors
/// Why there is nothing to run.
pub fn parse() -> Result<Cli, Stop> {
    let mut command = command();
    let args: Vec<_> = std::env::args_os().collect();
    let none = args.len() <= 1;
    let words::Words { all, first_image } = words::arranged(args, &command);
    failure::print_as(Forms {
        json: words::has(&all, "--format", "json"),
        events: words::has(&all, "--progress", "json")
            && all.get(1).is_some_and(|verb| verb == "pull"),
    });
    let mut matches = command.try_get_matches_from_mut(all).map_err(|error| {
        match first_image.as_deref().and_then(unknown::command) {
            // The flags of the command that was meant would be wrong ones of `pull`.
            Some(failure) => Stop::Unknown(failure),
            None if none => Stop::NoArguments(error),
            None => Stop::Parser(with_owner_of_flag(error, &command)),
        }
    })?;
    let cli = Cli::from_arg_matches_mut(&mut matches);
    let cli = cli.map_err(|error| Stop::Parser(error.format(&mut command)))?;
    Ok(Cli { first_image, ..cli })
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

/// Prints why there is nothing to run; returns the exit code.
pub fn stop(why: Stop) -> ExitCode {
    let (error, none) = match why {
        Stop::Unknown(failure) => return failure::fail(&failure),
        Stop::NoArguments(error) => (error, true),
        Stop::Parser(error) => (error, false),
    };
    // `--help` and `--version` are errors to clap, and print to stdout.
    let wrong = error.use_stderr();
    let text = in_lines(error).render().ansi().to_string();
    if none {
        output::usage_error(&help::plain(&text));
    } else if wrong {
        failure::print_usage(&text);
    } else {
        return match output::help(&help::plain(&text)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failure::fail(&error.into()),
        };
    }
    ExitCode::from(2)
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

/// Names the commands that have a flag which the chosen command lacks. The parser would suggest to
/// pass the flag as an image.
fn with_owner_of_flag(mut error: clap::Error, command: &clap::Command) -> clap::Error {
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => flag.clone(),
        _ => return error,
    };
    let owners = words::commands_with(&flag, command);
    if !owners.is_empty() {
        let tip = format!("'{flag}' is a flag of: {}", owners.join(", "));
        let tips = ContextValue::StyledStrs(vec![StyledStr::from(tip)]);
        error.remove(ContextKind::SuggestedArg);
        error.insert(ContextKind::Suggested, tips);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }
}
