//! What can be wrong with a layer.

use std::io;

use crate::digest::Digest;
use crate::printable;

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The bytes are not those that the descriptor names.
    #[error("digest mismatch: the blob is {actual}, expected {expected}")]
    Digest {
        /// What the manifest promised.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// There are fewer or more bytes than the descriptor says.
    #[error("size mismatch: the blob has {actual} bytes{}, expected {expected}", if *.more { " or more" } else { "" })]
    Size {
        /// Bytes the manifest promised.
        expected: u64,
        /// Bytes that came.
        actual: u64,
        /// Whether reading stopped before the end.
        more: bool,
    },
    /// The source of the compressed bytes failed.
    #[error("cannot read the layer's compressed bytes: {0}")]
    Source(#[source] io::Error),
    /// The compressed stream is broken.
    #[error("cannot decompress the layer ({kind}): {source}")]
    Decompress {
        /// `gzip` or `zstd`.
        kind: &'static str,
        /// The decoder's word.
        source: io::Error,
    },
    /// A compression that is recognised and not taken.
    #[error("the layer is compressed with {0}; rpull supports gzip, zstd and uncompressed layers")]
    Compression(&'static str),
    /// The tar's structure is broken.
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
        /// Its name as the archive has it.
        path: String,
        /// Why.
        why: String,
    },
    /// A limit that guards against bombs was passed.
    #[error("the layer exceeds a limit: {what} is over {limit}")]
    Limit {
        /// Which.
        what: &'static str,
        /// Its value.
        limit: u64,
        /// The flag that moves it.
        flag: &'static str,
    },
    /// A file operation below the layer's directory failed.
    #[error("cannot {op} '{path}': {source}")]
    Write {
        /// What was done.
        op: &'static str,
        /// Where, relative to the layer.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// `tar-split.json.gz` could not be written or read.
    #[error("cannot read or write the tar-split metadata: {0}")]
    TarSplit(#[source] io::Error),
    /// The tar-split record and the directory do not give the layer's tar again.
    #[error("the stored layer is damaged at '{path}': {why}")]
    Damaged {
        /// The file concerned.
        path: String,
        /// What differs.
        why: String,
    },
    /// The pull was given up while this layer was under way.
    #[error("cancelled")]
    Cancelled,
}

impl LayerError {
    pub(super) fn write(op: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Write { op, path: show(path), source: source.into() }
    }

    pub(super) fn refused(path: &[u8], why: impl Into<String>) -> Self {
        Self::Refused { path: show(path), why: why.into() }
    }

    /// Carries this error through an interface that speaks `io::Error`.
    pub(super) fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// Takes an error out of [`LayerError::into_io`] again, or makes one of `io` by `wrap`.
    pub(super) fn from_io(io: io::Error, wrap: impl FnOnce(io::Error) -> Self) -> Self {
        match io.downcast::<Self>() {
            Ok(layer) => layer,
            Err(io) => wrap(io),
        }
    }
}

/// A path for people: bytes that are not UTF-8 replaced, and escaped for a terminal.
pub(super) fn show(path: &[u8]) -> String {
    printable::escape(&String::from_utf8_lossy(path)).into_owned()
}
