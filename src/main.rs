//! The `rpull` command: flags, verbs, renderers, exit codes.

mod cli;
mod commands;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match cli::parse() {
        Ok(args) => args,
        Err(why) => return cli::stop(why),
    };
    if let Err(error) = cli::log::start(args.global.verbose) {
        return cli::failure::fail(&error.into());
    }
    match commands::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => cli::failure::fail(&failure),
    }
}
