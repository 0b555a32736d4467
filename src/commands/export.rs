//! `rpull export`: the files of an image as one tar.

use std::io;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde_json::json;

use rpull::Error;
use rpull::error::TreeTarError;

use super::Context;
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull export -o rootfs.tar nginx
  rpull export nginx | tar -x -C rootfs
  rpull export -o changed.tar web   # a writable mount";

/// Write the files of an image or a writable mount as a tar stream
///
/// The tar has what a mount of the image shows, sorted by name, with owners, modes, times, attributes, hard
/// links, devices and sparse files. The same image gives the same bytes: times of directories are not later
/// than the image, and no time is later than SOURCE_DATE_EPOCH.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Export {
    /// The image, or the name of a writable mount
    #[arg(value_name = "IMAGE|NAME")]
    source: String,
    /// Write to FILE instead of standard output
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
}

impl Export {
    /// Writes the tar. Prints nothing besides, as docker does, unless JSON is requested.
    ///
    /// # Errors
    /// The image is missing, a file of it cannot be read, or the tar cannot be written.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        if let Some(file) = &self.output {
            context.store()?.files(&self.source)?.export_to_file(file)?;
            return match context.json() {
                true => output::json_line(&json!({ "source": self.source, "output": file })),
                false => Ok(()),
            };
        }
        if output::is_terminal() {
            return Err(Error::Usage(TERMINAL.to_owned()));
        }
        if context.json() {
            return Err(Error::Usage(JSON.to_owned()));
        }
        let files = context.store()?.files(&self.source)?;
        let out = output::archive().map_err(|e| Error::Other(e.to_string()))?;
        to_stdout(files.export(out))
    }
}

/// docker's words.
pub const TERMINAL: &str = "cowardly refusing to save to a terminal. Use the -o flag or redirect";

/// Standard output cannot have both.
const JSON: &str = "--format json needs -o FILE: the archive itself goes to standard output";

/// Names standard output in an error of writing to it, as other commands do.
pub fn to_stdout(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Tar(TreeTarError::Write(e))) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::Other(format!("cannot write to standard output: {e}")))
        }
        other => other,
    }
}
