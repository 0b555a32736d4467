//! `rpull save`: images as an archive.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use serde_json::json;

use rpull::error::ArchiveError;
use rpull::{ArchiveFormat, Error, SavedImage};

use super::Context;
use crate::cli::format::Format;
use crate::cli::output;

const EXAMPLES: &str = "\
Examples:
  rpull save -o images.tar nginx:1.27 debian:12
  rpull save nginx | ssh HOST docker load
  rpull save --format docker nginx:1.27 > nginx.tar   # for docker before 23 and zstd layers
  rpull save -o layout/ nginx:1.27                    # an OCI image layout in a directory";

/// Save images to an archive that docker, podman and skopeo read
///
/// The archive is an OCI image layout with Docker's manifest.json, as docker 25 and later write it. Digests
/// are kept if the content store has the compressed layers (see `rpull pull --keep-blobs`); otherwise the
/// layers are uncompressed. A name without a tag saves all tags of its repository, as in docker.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Save {
    /// The images: references or IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// Write to FILE instead of standard output; a name that ends with / is a directory for an OCI
    /// image layout
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// Write an OCI image layout to DIR, which is empty or created
    #[arg(long, value_name = "DIR", conflicts_with = "output", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

impl Save {
    /// Writes the archive. Prints nothing besides, as docker does, unless JSON is requested.
    ///
    /// # Errors
    /// An image is missing or damaged, or the archive cannot be written.
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let format = match &context.global.format {
            Format::Archive(format) => *format,
            _ => ArchiveFormat::default(),
        };
        let save = context.store()?.save(self.images.iter().map(String::as_str)).format(format);
        let output = self.output.as_deref();
        let dir = self.dir.as_deref().or(output.filter(|path| is_directory_name(path)));
        let saved = match (dir, output) {
            (Some(dir), _) => save.to_dir(dir)?,
            (None, Some(file)) => save.to_file(file)?,
            (None, None) if output::is_terminal() => return Err(Error::Usage(TERMINAL.to_owned())),
            (None, None) if context.json() => return Err(Error::Usage(JSON.to_owned())),
            (None, None) => {
                let out = output::archive().map_err(|e| Error::Other(e.to_string()))?;
                save.to(out).map_err(of_stdout)?
            }
        };
        match context.json() {
            true => saved.iter().try_for_each(|image| show(image, dir.or(output))),
            false => Ok(()),
        }
    }
}

/// docker's words.
const TERMINAL: &str = "cowardly refusing to save to a terminal. Use the -o flag or redirect";

/// Standard output cannot have both.
const JSON: &str = "--format json needs -o FILE: the archive itself goes to standard output";

/// Names standard output in an error of writing to it, as other commands do.
fn of_stdout(error: Error) -> Error {
    match error {
        Error::Archive(ArchiveError::Write(e)) => {
            Error::Other(format!("cannot write to standard output: {e}"))
        }
        error => error,
    }
}

fn is_directory_name(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

fn show(image: &SavedImage, output: Option<&Path>) -> Result<(), Error> {
    output::json_line(&json!({
        "id": image.id,
        "names": image.names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "digest": image.digest,
        "output": output,
    }))
}
