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
    let (mut blob, mut tar) = (Hasher::new(), Hasher::new());
    let (mut waiting, mut length) = (Vec::new(), 0);
    for handed in handed {
        let chunk = match handed {
            Handed::Read(bytes) => {
                length += bytes.len();
                waiting.push(bytes);
                if length <= WAITING {
                    continue;
                }
                None
            }
            Handed::Made(chunk) => Some(chunk),
        };
        let mut made = chunk.as_deref().map_or(&[][..], |chunk| chunk);
        for read in waiting.drain(..) {
            let (beside, later) = made.split_at(read.len().min(made.len()));
            Hasher::update_two((&mut blob, &read), (&mut tar, beside));
            made = later;
        }
        tar.update(made);
        length = 0;
    }
    waiting.iter().for_each(|read| blob.update(read));
    Digests { blob: blob.finish(), tar: tar.finish() }
}
