//! Both digests of a layer: of the blob as it is served, and of the tar. One thread takes them
//! side by side, which costs less than one after the other.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;

use super::chunks::{Chunk, DEPTH};
use crate::digest::{Digest, Hasher};

/// What the decoder hands over: bytes that it read since the last time, and those it made.
pub struct Handed {
    /// Of the blob.
    pub read: Vec<Bytes>,
    /// Of the tar; none where the decoder makes no more.
    pub made: Option<Chunk>,
}

/// The decoder's end.
pub type HashSender = SyncSender<Handed>;

/// A channel to [`hash_all`], which holds as many chunks as that to the unpacker.
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
    for Handed { read, made } in handed {
        let mut made = made.as_deref().map_or(&[][..], |chunk| chunk);
        for bytes in &read {
            let (beside, later) = made.split_at(bytes.len().min(made.len()));
            Hasher::update_two((&mut blob, bytes), (&mut tar, beside));
            made = later;
        }
        tar.update(made);
    }
    Digests { blob: blob.finish(), tar: tar.finish() }
}
