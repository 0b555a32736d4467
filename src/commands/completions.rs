//! `rpull completions`: completion of command lines in shells.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use rpull::{Error, Store};

use super::Context;
use crate::cli::complete::{self, Answer, Named};
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull completions bash > /etc/bash_completion.d/rpull
  rpull completions zsh > /usr/local/share/zsh/site-functions/_rpull
  rpull completions fish > ~/.config/fish/completions/rpull.fish";

/// Print a script that completes commands, flags and images in a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Completions {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// A shell that completes words by a script.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    /// Prints the script.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn run(&self, _: &Context) -> Result<(), Error> {
        output::script(match self.shell {
            Shell::Bash => include_str!("../../contrib/completions/rpull.bash"),
            Shell::Zsh => include_str!("../../contrib/completions/_rpull"),
            Shell::Fish => include_str!("../../contrib/completions/rpull.fish"),
        })
    }
}

/// Prints what the scripts ask for: one candidate per line, and its description after a space; or
/// `:directories` or `:files`. Errors would appear in the middle of a command line that is being typed, so
/// they print nothing.
pub fn answer(words: &[OsString]) -> ExitCode {
    let lines = match complete::complete(words, &names) {
        Answer::Directories => vec![":directories".to_owned()],
        Answer::Files => vec![":files".to_owned()],
        Answer::Words(all) => {
            let line = |it: complete::Candidate| format!("{} {}", it.word, it.about);
            all.into_iter().map(|it| line(it).trim_end().to_owned()).collect()
        }
    };
    let _ = lines.iter().try_for_each(output::line);
    ExitCode::SUCCESS
}

fn names(root: Option<&OsStr>, named: Named) -> Vec<String> {
    let variable = std::env::var_os("RPULL_ROOT").filter(|value| !value.is_empty());
    let root = root.map(OsStr::to_owned).or(variable);
    let root = super::root(root.as_ref().map(Path::new));
    let store = root.and_then(Store::open);
    match named {
        Named::Image => {
            let names = store.and_then(|store| store.names()).unwrap_or_default();
            names.iter().map(ToString::to_string).collect()
        }
        Named::Mount => store.and_then(|store| store.mount_names()).unwrap_or_default(),
    }
}
