//! Where the tar of a layer comes from.

use std::io::{self, Read};

use crate::digest::Digest;
use crate::fsutil::Buffers;
use crate::layer::LayerError;
use crate::oci::DiffId;
use crate::store;

/// The tar of a layer: a stream that may be compressed with gzip or zstd.
pub struct Source<'a> {
    /// What errors call it.
    pub(super) name: String,
    pub(super) tar: Box<dyn Read + Send + 'a>,
    pub(super) blob: Option<(Digest, u64)>,
    pub(super) plain: bool,
    pub(super) expected: Option<DiffId>,
}

impl<'a> Source<'a> {
    /// Creates a source that is read to its end. Errors call it `name`.
    pub fn new(name: impl Into<String>, tar: impl Read + Send + 'a) -> Self {
        Self { name: name.into(), tar: Box::new(tar), blob: None, plain: false, expected: None }
    }

    /// Requires that the stream has this digest and size in bytes, before it is decompressed.
    #[must_use]
    pub fn blob(self, digest: Digest, size: u64) -> Self {
        Self { blob: Some((digest, size)), ..self }
    }

    /// Requires that the tar has this SHA-256.
    #[must_use]
    pub fn diff_id(self, diff_id: DiffId) -> Self {
        Self { expected: Some(diff_id), ..self }
    }

    /// Reads the stream as an uncompressed tar, whatever its first bytes are.
    #[must_use]
    pub fn plain(self) -> Self {
        Self { plain: true, ..self }
    }
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Returns the same bytes, and an error after the user interrupted the process.
pub(super) fn interruptible(tar: impl Buffers + Send) -> impl Buffers + Send {
    tar.map(|buffer| match store::is_stopped() {
        true => Err(io::Error::other(LayerError::Cancelled)),
        false => buffer,
    })
}
