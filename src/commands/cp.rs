//! `rpull cp`: copies of files of an image.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use rpull::{CopyOwners, Error, LastLink};

use super::Context;
use super::export::{TERMINAL, to_stdout, warn};
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull cp nginx:/etc/nginx .
  rpull cp nginx:1.27:/etc/nginx/. conf    # the content of the directory
  rpull cp -L nginx:/etc/os-release -      # a tar, on standard output";

/// Copy files of an image or a writable mount, as `docker cp` does
///
/// Nothing is mounted, and symlinks in PATH are resolved inside the image. Without -a, the copies belong to
/// you.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Cp {
    /// The image or writable mount, and a path in it; PATH/. is the content of a directory
    #[arg(value_name = "IMAGE:PATH")]
    from: String,
    /// A directory to copy into, or the new name; `-` writes a tar to standard output
    #[arg(value_name = "DIR")]
    to: PathBuf,
    /// Copy what a symlink at PATH leads to
    #[arg(long, short = 'L')]
    follow_link: bool,
    /// Keep the owners of files
    #[arg(long, short)]
    archive: bool,
}

impl Cp {
    /// Copies. Prints nothing besides, unless JSON is requested.
    ///
    /// # Errors
    /// There is no such image or file, or the copy cannot be written.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let (source, path) = split(&self.from)?;
        let link = if self.follow_link { LastLink::Follow } else { LastLink::Keep };
        if self.to == Path::new("-") {
            if output::is_terminal() {
                return Err(Error::Usage(TERMINAL.to_owned()));
            }
            let files = context.store()?.files(source)?;
            let out = output::archive().map_err(|e| Error::Other(e.to_string()))?;
            return to_stdout(files.export_path(path, link, out));
        }
        let files = context.store()?.files(source)?;
        let owners = if self.archive { CopyOwners::Keep } else { CopyOwners::This };
        warn(&files.copy(path, link, &self.to, owners)?);
        match context.json() {
            true => {
                output::json_line(&json!({ "source": source, "path": path, "output": self.to }))
            }
            false => Ok(()),
        }
    }
}

/// Splits `IMAGE:PATH`. A reference contains colons too, but none before a slash.
fn split(from: &str) -> Result<(&str, &str), Error> {
    let absolute = from.find(":/").map(|at| (&from[..at], &from[at + 1..]));
    match absolute.or_else(|| from.rsplit_once(':')) {
        Some((source, path)) if !source.is_empty() && !path.is_empty() => Ok((source, path)),
        _ => Err(Error::Usage(format!("'{from}' is not IMAGE:PATH, such as nginx:/etc/nginx"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_and_path_are_split_at_the_first_absolute_path() {
        for (from, source, path) in [
            ("nginx:/etc", "nginx", "/etc"),
            ("nginx:1.27:/etc/a:/b", "nginx:1.27", "/etc/a:/b"),
            ("host:5000/nginx:1:etc/passwd", "host:5000/nginx:1", "etc/passwd"),
            ("sha256:abc:/.", "sha256:abc", "/."),
        ] {
            assert_eq!(split(from).unwrap(), (source, path));
        }
        for from in ["nginx", "", ":/etc", "nginx:"] {
            assert!(split(from).is_err(), "{from}");
        }
    }
}
