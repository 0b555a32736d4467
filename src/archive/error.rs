//! Errors of archives.

use std::io;
use std::path::PathBuf;

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

impl From<FsError> for ArchiveError {
    fn from(error: FsError) -> Self {
        Self::Store(error.into())
    }
}
