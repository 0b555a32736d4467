//! Both digests of a layer: of the blob as the registry serves it, and of the tar. One thread
//! computes them in parallel, which costs less than one after the other.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;

use super::chunks::Chunk;
use crate::digest::{Digest, Hasher};
use crate::layer::budget;

/// Bytes to hash.
pub enum HashInput {
    /// Bytes of the blob.
    Compressed(Bytes),
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
pub struct Digests {
    /// Of the blob.
    pub blob: Digest,
    /// Of the tar.
    pub tar: Digest,
}

/// Hashes all input until the channel closes.
pub fn hash_all(input: &Receiver<HashInput>) -> Digests {
    let mut hasher = LayerHasher::default();
    for input in input {
        match input {
            HashInput::Compressed(bytes) => hasher.compressed(bytes),
            HashInput::Uncompressed(chunk) => hasher.uncompressed(&chunk),
        }
    }
    hasher.uncompressed(&[]);
    Digests { blob: hasher.blob.finish(), tar: hasher.tar.finish() }
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
