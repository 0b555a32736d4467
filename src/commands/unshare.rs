//! `rpull unshare`: runs a command in a user namespace, in which it may mount.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use clap::Args;

use rpull::{Error, MappedIds, enter_user_namespace};

use super::Context;
use crate::cli::failure::Failure;
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull unshare                       # a shell
  rpull unshare sh -c 'rpull mount nginx m && ls m'
  rpull unshare rpull run --rm -it debian bash

The mounts disappear with the last process of the namespace; the changes of writable mounts stay.
The exit code is that of COMMAND, 126 if COMMAND cannot be executed, 127 if it does not exist, and
125 if there is no namespace.";

/// The exit code of a command that cannot have a namespace, as in podman.
const FAILED: u8 = 125;

/// Run a command in a user namespace, where it may mount without root
///
/// COMMAND is root there, as with `podman unshare`. With newuidmap and newgidmap, and ranges for you in
/// /etc/subuid and /etc/subgid, layers keep their owners. In a user namespace that permits mounts,
/// COMMAND runs as it is. Root of the machine needs no namespace, and is refused.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Unshare {
    /// The command and its arguments [default: $SHELL, or /bin/sh]
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    command: Vec<OsString>,
}

impl Unshare {
    /// Replaces this process with the command, so that signals and the exit code are its own. Returns only
    /// why it failed.
    pub fn run(&self, context: &Context) -> Failure {
        match enter_user_namespace() {
            Ok(MappedIds::Own { why }) if !context.global.quiet => {
                output::notice(&format!("only your own user and group are mapped: {why}"));
            }
            Ok(_) => {}
            Err(error) => return Failure::from(error).with_code(FAILED),
        }
        let shell = || std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
        let (program, args) = match self.command.split_first() {
            Some((program, args)) => (program.clone(), args),
            None => (shell().unwrap_or_else(|| "/bin/sh".into()), &[][..]),
        };
        let mut command = Command::new(&program);
        command.args(args);
        // Without HOME, the default root would be that of root.
        command.env("RPULL_ROOT", &context.root);
        if let Some(content) = &context.global.content {
            let absolute = std::path::absolute(content);
            command.env("RPULL_CONTENT", absolute.as_deref().unwrap_or(content));
        }
        let why = command.exec();
        let code = if why.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        let text = format!("cannot run {}: {why}", Path::new(&program).display());
        Failure::from(Error::Other(text)).with_code(code)
    }
}
