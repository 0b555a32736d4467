//! The `rpull` command: flags, commands, renderers, exit codes.

mod cli;
mod commands;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some((first, words)) = words.split_first()
        && first == "__complete"
    {
        return commands::completions::answer(words);
    }
    let args = match cli::parse() {
        Ok(args) => args,
        Err(why) => return cli::stop(why),
    };
    if let Err(error) = cli::log::start(args.global.verbose) {
        return cli::failure::fail(&error.into());
    }
    match commands::run(args) {
        Ok(code) => code,
        Err(failure) => cli::failure::fail(&failure),
    }
}
