//! Both digests of a layer: of the blob as the registry serves it, and of the tar. One thread
//! computes them in parallel, which costs less than one after the other.
//!
//! Verification cannot be forgotten: the diff id can be had from [`HashedLayer`] only, which
//! returns it only if the blob arrived completely and has its digest.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;

use super::chunks::Chunk;
use crate::digest::{Digest, Hasher};
use crate::layer::{LayerError, budget};
use crate::oci::DiffId;

/// The expected size and digest of a blob.
#[derive(Debug, Clone, Copy)]
pub struct BlobSpec {
    /// The sha256 of the bytes as the registry serves them.
    pub digest: Digest,
    /// The number of bytes.
    pub size: u64,
}

/// Bytes to hash.
pub enum HashInput {
    /// Bytes of the blob.
    Compressed(Bytes),
    /// The blob ended, with its expected size.
    EndOfBlob,
    /// Bytes of the tar.
    Uncompressed(Chunk),
}

/// The decoder's end of the channel.
pub type HashSender = SyncSender<HashInput>;

/// Creates a channel to [`hash_all`].
pub fn channel() -> (HashSender, Receiver<HashInput>) {
    sync_channel(budget::HASH_QUEUE)
}

/// The digests of a layer.
pub struct HashedLayer {
    spec: Option<BlobSpec>,
    /// Whether the blob ended with its expected size.
    complete: bool,
    blob: Digest,
    tar: Digest,
}

impl HashedLayer {
    /// Compares the digest of the blob with the expected one, if the blob is complete.
    ///
    /// # Errors
    /// [`LayerError::Digest`].
    pub fn check_blob(&self) -> Result<(), LayerError> {
        match self.spec {
            Some(spec) if self.complete && self.blob != spec.digest => {
                Err(LayerError::Digest { expected: spec.digest, actual: self.blob })
            }
            _ => Ok(()),
        }
    }

    /// Returns the diff id of the verified layer.
    ///
    /// # Errors
    /// [`LayerError::Digest`], or [`LayerError::Cancelled`] if the blob is not complete.
    pub fn diff_id(&self) -> Result<DiffId, LayerError> {
        self.check_blob()?;
        match self.spec {
            Some(_) if !self.complete => Err(LayerError::Cancelled),
            _ => Ok(DiffId(self.tar)),
        }
    }
}

/// Hashes all input until the channel closes. The blob must be the one that `spec` describes;
/// without a `spec`, only the tar is hashed.
pub fn hash_all(input: &Receiver<HashInput>, spec: Option<BlobSpec>) -> HashedLayer {
    let mut hasher = LayerHasher::default();
    let mut complete = false;
    for input in input {
        match input {
            HashInput::Compressed(bytes) => hasher.compressed(bytes),
            HashInput::EndOfBlob => complete = true,
            HashInput::Uncompressed(chunk) => hasher.uncompressed(&chunk),
        }
    }
    hasher.uncompressed(&[]);
    HashedLayer { spec, complete, blob: hasher.blob.finish(), tar: hasher.tar.finish() }
}

#[derive(Default)]
struct LayerHasher {
    blob: Hasher,
    tar: Hasher,
    /// Bytes of the blob that are not hashed yet.
    backlog: Vec<Bytes>,
    /// The number of bytes in the backlog.
    backlog_size: usize,
}

impl LayerHasher {
    /// Keeps `bytes` of the blob until bytes of the tar arrive to be hashed in parallel, or until
    /// the backlog is too large.
    fn compressed(&mut self, bytes: Bytes) {
        self.backlog_size += bytes.len();
        self.backlog.push(bytes);
        if self.backlog_size > budget::HASH_BACKLOG {
            self.uncompressed(&[]);
        }
    }

    /// Hashes bytes of the tar in parallel with the backlog, which is empty afterwards.
    fn uncompressed(&mut self, mut tar: &[u8]) {
        for blob in self.backlog.drain(..) {
            let (parallel, rest) = tar.split_at(blob.len().min(tar.len()));
            Hasher::update_two((&mut self.blob, &blob), (&mut self.tar, parallel));
            tar = rest;
        }
        self.tar.update(tar);
        self.backlog_size = 0;
    }
}
