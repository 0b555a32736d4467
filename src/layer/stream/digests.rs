//! Both digests of a layer: of the blob as it is served, and of the tar. One thread takes them
//! side by side, which costs less than one after the other.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;

use super::chunks::Chunk;
use crate::digest::{Digest, Hasher};

/// Bytes of a blob that may wait for bytes of the tar to be hashed beside: as many as a
/// chunk that does not compress is made of, with what the last read brought too much.
const WAITING: usize = 1 << 20;

/// How much may wait to be hashed. What a decoder passes over without making anything of it is
/// bounded by this alone.
const DEPTH: usize = 16;

/// What the decoder hands over.
pub enum Handed {
    /// Bytes of the blob, as they were read.
    Read(Bytes),
    /// Bytes of the tar.
    Made(Chunk),
}

/// The decoder's end.
pub type HashSender = SyncSender<Handed>;

/// A channel to [`hash_all`].
pub fn channel() -> (HashSender, Receiver<Handed>) {
    sync_channel(DEPTH)
}

/// Digests of all that was handed over.
pub struct Digests {
    /// Of what was read.
    pub blob: Digest,
    /// Of what was made.
    pub tar: Digest,
}

/// Hashes until the decoder is done.
pub fn hash_all(handed: &Receiver<Handed>) -> Digests {
    let mut both = Both::default();
    for handed in handed {
        match handed {
            Handed::Read(bytes) => both.read(bytes),
            Handed::Made(chunk) => both.made(&chunk),
        }
    }
    both.made(&[]);
    Digests { blob: both.blob.finish(), tar: both.tar.finish() }
}

#[derive(Default)]
struct Both {
    blob: Hasher,
    tar: Hasher,
    waiting: Vec<Bytes>,
    /// Bytes of all that waits.
    length: usize,
}

impl Both {
    /// Has `bytes` of the blob wait for bytes of the tar, unless too many wait already.
    fn read(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        self.waiting.push(bytes);
        if self.length > WAITING {
            self.made(&[]);
        }
    }

    /// Hashes bytes of the tar, beside all that waits.
    fn made(&mut self, mut tar: &[u8]) {
        for read in self.waiting.drain(..) {
            let (beside, later) = tar.split_at(read.len().min(tar.len()));
            Hasher::update_two((&mut self.blob, &read), (&mut self.tar, beside));
            tar = later;
        }
        self.tar.update(tar);
        self.length = 0;
    }
}
