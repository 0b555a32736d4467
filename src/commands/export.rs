//! `rpull export`: the files of an image as one tar.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use serde_json::json;

use rpull::error::TreeTarError;
use rpull::{Error, NotCopied};

use super::Context;
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull export -o rootfs.tar nginx
  rpull export nginx | tar -x -C rootfs
  rpull export -o changed.tar web   # a writable mount
  rpull export --rootfs nginx.squashfs nginx";

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
    /// Make a root file system instead: in the directory TO, or in a file with the suffix .ext4, .erofs or
    /// .squashfs (by mke2fs, mkfs.erofs or sqfstar)
    #[arg(long, value_name = "TO", conflicts_with = "output", value_hint = ValueHint::AnyPath)]
    rootfs: Option<PathBuf>,
}

impl Export {
    /// Writes the tar. Prints nothing besides, as docker does, unless JSON is requested.
    ///
    /// # Errors
    /// The image is missing, a file of it cannot be read, or the tar cannot be written.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        if let Some(file) = self.rootfs.as_ref().or(self.output.as_ref()) {
            let files = context.store()?.files(&self.source)?;
            match &self.rootfs {
                Some(to) => {
                    let not_copied = files.export_rootfs(to)?;
                    warn(&not_copied);
                    if not_copied != NotCopied::default() {
                        warn_of_tool(to);
                    }
                }
                None => files.export_to_file(file)?,
            }
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

/// Warns of what this process may not set.
pub fn warn(not_copied: &NotCopied) {
    let NotCopied { owners, devices, attributes, .. } = *not_copied;
    for (count, what) in [
        (owners, "files without their owners"),
        (devices, "devices left out"),
        (attributes, "extended attributes left out"),
    ] {
        if count > 0 {
            output::warning(&format!("{what}: {count}; this user may not create them"));
        }
    }
}

/// Warns that another version of a tool, or another user, keeps what is missing in `to`.
fn warn_of_tool(to: &Path) {
    output::warning(match to.extension() {
        Some(suffix) if suffix == "erofs" => {
            "mkfs.erofs 1.7 or newer keeps all of them, and so do .squashfs and .ext4"
        }
        _ => "root, .squashfs and .ext4 keep all of them",
    });
}
