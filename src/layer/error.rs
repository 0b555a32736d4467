//! Errors of layers.

use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::digest::Digest;
use crate::overlay::ChangesError;
use crate::printable;

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The blob has another digest than its descriptor.
    #[error("digest mismatch: the blob is {actual}, expected {expected}")]
    Digest {
        /// The digest in the manifest.
        expected: Digest,
        /// The digest of the bytes.
        actual: Digest,
    },
    /// Size mismatch: the blob has fewer or more bytes than its descriptor.
    #[error("size mismatch: the blob has {actual} bytes{}, expected {expected}", if *.more { " or more" } else { "" })]
    Size {
        /// The size in the manifest, bytes.
        expected: u64,
        /// The number of bytes read.
        actual: u64,
        /// Whether reading stopped before the end.
        more: bool,
    },
    /// The source of the compressed bytes failed.
    #[error("cannot read the layer's compressed bytes: {0}")]
    Source(#[source] io::Error),
    /// The compressed stream is invalid.
    #[error("cannot decompress the layer ({kind}): {source}")]
    Decompress {
        /// `gzip` or `zstd`.
        kind: &'static str,
        /// The decoder's error.
        source: io::Error,
    },
    /// A compression that is known and not supported.
    #[error("the layer is compressed with {0}; rpull supports gzip, zstd and uncompressed layers")]
    Compression(&'static str),
    /// The tar is invalid.
    #[error("invalid tar at byte {offset}: {what}")]
    Tar {
        /// Offset in the uncompressed stream, in bytes.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The archive ends inside a header or a file.
    #[error("truncated tar: it ends at byte {offset}, inside {what}")]
    Truncated {
        /// Offset in the uncompressed stream, in bytes.
        offset: u64,
        /// What was being read.
        what: &'static str,
    },
    /// An entry that must not be unpacked.
    #[error("refused entry '{path}': {why}")]
    Refused {
        /// Its name in the archive.
        path: String,
        /// The reason.
        why: String,
    },
    /// The layer exceeds a limit that protects against archive bombs.
    #[error("the layer exceeds a limit: {what} is over {limit}")]
    Limit {
        /// The quantity that is limited.
        what: LimitKind,
        /// The limit.
        limit: u64,
    },
    /// A file operation below the layer's directory failed.
    #[error("cannot {op} '{path}': {source}")]
    Write {
        /// The operation.
        op: &'static str,
        /// The path, relative to the layer.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The directory of a layer cannot be opened.
    #[error("cannot open layer directory '{path}': {source}")]
    Open {
        /// The directory.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// A thread that the layer needs cannot start: the system has no resources for it.
    #[error("cannot start the thread '{name}': {source}")]
    Thread {
        /// The name of the thread.
        name: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// `tar-split.json.gz` cannot be written or read.
    #[error("cannot read or write the tar-split metadata: {0}")]
    TarSplit(#[source] io::Error),
    /// The tar-split metadata and the files do not reproduce the layer's tar.
    #[error("the stored layer is damaged at '{path}': {why}")]
    Damaged {
        /// The first file that differs.
        path: String,
        /// The difference.
        why: String,
    },
    /// The layer needs a zstd window of that many bytes, and other layers of the command have the
    /// memory.
    #[error("other layers use the memory for its decompression window of {0} bytes")]
    WindowInUse(u64),
    /// The changes of a mount cannot become a layer.
    #[error(transparent)]
    Changes(#[from] ChangesError),
    /// Another thread of the pull failed or was interrupted.
    #[error("cancelled")]
    Cancelled,
}

impl LayerError {
    /// Whether the bytes of the layer are the cause: the same bytes fail again.
    pub fn is_of_content(&self) -> bool {
        !matches!(
            self,
            Self::Source(_)
                | Self::Limit { .. }
                | Self::Write { .. }
                | Self::Open { .. }
                | Self::Thread { .. }
                | Self::TarSplit(_)
                | Self::WindowInUse(_)
                | Self::Changes(_)
                | Self::Cancelled
        )
    }

    /// Returns the error of opening the directory `path`.
    pub fn open(path: &Path, source: io::Error) -> Self {
        Self::Open { path: show(path.as_os_str().as_bytes()), source }
    }

    pub(super) fn write(op: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Write { op, path: show(path), source: source.into() }
    }

    pub(super) fn refused(path: &[u8], why: impl Into<String>) -> Self {
        Self::Refused { path: show(path), why: why.into() }
    }

    /// Wraps this error in an `io::Error`, for interfaces that require one.
    pub fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// Unwraps an error of [`LayerError::into_io`]. Converts any other error with `wrap`.
    pub(crate) fn from_io(io: io::Error, wrap: impl FnOnce(io::Error) -> Self) -> Self {
        match io.downcast::<Self>() {
            Ok(layer) => layer,
            Err(io) => wrap(io),
        }
    }
}

/// Returns a path for messages: escaped for a terminal, with bytes that are not UTF-8 replaced.
pub(super) fn show(path: &[u8]) -> String {
    printable::escape(&String::from_utf8_lossy(path)).into_owned()
}

/// The quantity that a limit is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitKind {
    /// [`Limits::bytes`](super::Limits::bytes).
    Bytes,
    /// [`Limits::ratio`](super::Limits::ratio).
    Ratio,
    /// [`Limits::entries`](super::Limits::entries).
    Entries,
    /// [`Limits::depth`](super::Limits::depth).
    Depth,
    /// [`Limits::pax`](super::Limits::pax).
    Pax,
    /// [`Limits::image_bytes`](super::Limits::image_bytes).
    ImageBytes,
    /// [`Limits::image_entries`](super::Limits::image_entries).
    ImageEntries,
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "its unpacked size in bytes",
            Self::Ratio => "its ratio of unpacked to compressed size",
            Self::Entries => "its number of entries",
            Self::Depth => "the depth of a path",
            Self::Pax => "the size of an extended header",
            Self::ImageBytes => "the unpacked size of its image in bytes",
            Self::ImageEntries => "the number of entries of its image",
        })
    }
}
