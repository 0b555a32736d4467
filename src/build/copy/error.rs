//! Why files cannot be copied.

use std::io;
use std::path::PathBuf;

use crate::fsutil::FsError;
use crate::layer::LayerError;

/// Why files cannot be copied. The text is docker's where docker has one; it does not begin with the name of
/// the instruction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// No source is given, or no file matches the wildcards.
    #[error("no source files were specified")]
    NoSource,
    /// A source does not exist, or `.dockerignore` excludes it.
    #[error(
        "file not found in build context or excluded by .dockerignore: stat {0}: file does not exist"
    )]
    NotFound(String),
    /// A source does not exist in the other stage.
    #[error("stat {0}: file does not exist")]
    NotInStage(String),
    /// The path of a source leads out of the context.
    #[error("forbidden path outside the build context: {0} ()")]
    Outside(String),
    /// Several sources need a directory.
    #[error(
        "When using {0} with more than one source file, the destination must be a directory and end with a /"
    )]
    DestinationNotDirectory(&'static str),
    /// The destination cannot be created.
    #[error("cannot copy to {path}: {why}")]
    Destination {
        /// The path in the image.
        path: String,
        /// Why.
        why: String,
    },
    /// A source is not a file, directory or symlink, or its name means something else in a layer.
    #[error("cannot copy {path}: {why}")]
    Refused {
        /// The path in the context or stage.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// A source has too many symlinks, or one cannot be followed.
    #[error("cannot copy {path}: {why}")]
    Unresolved {
        /// The path in the context or stage.
        path: String,
        /// Why.
        why: String,
    },
    /// A line of a `.dockerignore` file is not a pattern.
    #[error("{}: line {line}: invalid pattern {pattern:?}", file.display())]
    IgnorePattern {
        /// The file.
        file: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The pattern.
        pattern: String,
    },
    /// A file changed after its checksum was computed.
    #[error("{0} changed while it was copied")]
    Changed(String),
    /// An archive cannot be unpacked.
    #[error("cannot unpack {path}: {source}")]
    Archive {
        /// The path in the context or stage.
        path: String,
        /// Why.
        source: LayerError,
    },
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] FsError),
    /// The layer cannot be written.
    #[error("cannot write the layer: {0}")]
    Write(#[source] io::Error),
}

/// Returns a path for an error.
pub fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
