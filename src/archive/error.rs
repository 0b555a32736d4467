//! Errors of archives.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::fsutil::FsError;
use crate::layer::LayerError;
use crate::oci::ManifestError;
use crate::store::StoreError;

/// The error of saving images to an archive, or of reading one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer of the store cannot be read, or is damaged.
    #[error("layer {}: {source}", layer.short())]
    Layer {
        /// The blob, or the tar of the layer.
        layer: Digest,
        /// Why.
        source: LayerError,
    },
    /// What was read of the store has another size or digest than recorded.
    #[error("blob {} of the store is damaged: {why}", blob.short())]
    DamagedBlob {
        /// The blob, or the tar of the layer.
        blob: Digest,
        /// What is wrong with it.
        why: String,
    },
    /// A document of the archive is invalid.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The archive cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive cannot be read.
    #[error("cannot read the archive: {0}")]
    Read(#[source] io::Error),
    /// The archive is copied to a file of the store, which cannot be written.
    #[error("cannot copy the archive to the store: {0}")]
    Spool(#[source] io::Error),
    /// It is not a tar, or exceeds a limit.
    #[error("invalid archive: {0}")]
    Tar(#[source] LayerError),
    /// A document of the archive is invalid, or it is not an archive of images.
    #[error("invalid archive: {0}")]
    Invalid(String),
    /// A blob is not in the archive.
    #[error("invalid archive: it has no blob {0}")]
    Missing(Digest),
    /// A document has another digest than its name.
    #[error("invalid archive: the digest of a document is {actual}, expected {expected}")]
    Digest {
        /// What refers to it.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// The archive has no image of that name.
    #[error("the archive has no image '{0}'")]
    NoSuchImage(String),
    /// The archive has not exactly one image, and none was chosen.
    #[error("the archive has {} images: {}", .0.len(), .0.join(", "))]
    Several(Vec<String>),
    /// The output cannot be written.
    #[error("cannot write the archive: {0}")]
    Write(#[source] io::Error),
    /// The file for the archive cannot be created.
    #[error("cannot write to {}: {source}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory for a layout has other files.
    #[error("cannot save to {}: {why}", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// What is in it.
        why: String,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

impl ArchiveError {
    pub(super) fn open(path: &Path, source: io::Error) -> Self {
        Self::Open { path: path.to_owned(), source }
    }
}

impl From<FsError> for ArchiveError {
    fn from(error: FsError) -> Self {
        Self::Store(error.into())
    }
}
