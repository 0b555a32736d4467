//! `rpull cat`: the content of files of an image.

use std::io;
use std::path::PathBuf;

use clap::Args;

use rpull::Error;

use super::Context;
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull cat nginx /etc/os-release
  rpull cat nginx /etc/passwd /etc/group
  rpull cat nginx /usr/bin/env > env";

/// Print files of an image or a writable mount
///
/// Nothing is mounted. Symlinks are resolved inside the image. On a terminal, control characters are
/// printed escaped; otherwise the bytes are those of the file.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Cat {
    /// The image, or the name of a writable mount
    #[arg(value_name = "IMAGE|NAME")]
    source: String,
    /// The files
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

impl Cat {
    /// Prints the files, one after the other.
    ///
    /// # Errors
    /// There is no such image or file, or it is not a regular file.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        if context.json() {
            let text = "cat prints the bytes of files, which have no form in JSON";
            return Err(Error::Usage(text.to_owned()));
        }
        let files = context.store()?.files(&self.source)?;
        for path in &self.paths {
            let mut file = files.open(path)?;
            if output::is_terminal() {
                output::escaped(&mut file)?;
                continue;
            }
            let mut out = output::archive().map_err(|e| Error::Other(e.to_string()))?;
            output::printed(io::copy(&mut file, &mut out).map(drop))?;
        }
        Ok(())
    }
}
