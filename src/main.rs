//! The `rpull` command: flags, verbs, renderers, exit codes.

mod cli;
mod commands;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match cli::parse() {
        Ok(args) => args,
        Err(error) => return cli::usage(error),
    };
    if let Err(failure) = cli::log::start(args.global.verbose) {
        return cli::output::fail(&failure);
    }
    match commands::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => cli::output::fail(&failure),
    }
}
