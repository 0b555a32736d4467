//! Copies one blob of the store into an archive, and verifies it on the way.

use std::io::Read;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use bytes::Bytes;

use super::error::ArchiveError;
use super::sink::Sink;
use crate::digest::{Digest, Hasher};
use crate::fsutil;
use crate::layer::LayerError;

/// Buffers that wait to be hashed at most.
const QUEUE: usize = 4;

/// Writes the blob `digest` of `size` bytes, read from `source`, as the file `path`.
///
/// # Errors
/// [`ArchiveError::DamagedBlob`] if the source has another size or digest, [`ArchiveError::Layer`] if
/// it cannot be read, or the error of the sink.
pub fn copy(
    sink: &mut impl Sink,
    path: &str,
    (digest, size): (Digest, u64),
    source: impl Read,
) -> Result<(), ArchiveError> {
    sink.begin(path, size)?;
    let damaged = |why: String| ArchiveError::DamagedBlob { blob: digest, why };
    let (to_hash, hash_input) = sync_channel::<Bytes>(QUEUE);
    let actual = thread::scope(|scope| {
        let hashing = thread::Builder::new().name("hash".to_owned());
        let hashing = hashing.spawn_scoped(scope, move || hash(&hash_input));
        let hashing = hashing.map_err(ArchiveError::Thread)?;
        let mut written = 0;
        for bytes in fsutil::buffers(source) {
            let bytes = bytes.map_err(|e| ArchiveError::Layer {
                layer: digest,
                source: LayerError::from_io(e, LayerError::Source),
            })?;
            written += bytes.len() as u64;
            if written > size {
                return Err(damaged(format!("it has more than the recorded {size} bytes")));
            }
            // The thread ends after this one.
            let _ = to_hash.send(bytes.clone());
            sink.data(&bytes)?;
        }
        if written != size {
            return Err(damaged(format!("it has {written} bytes instead of {size}")));
        }
        drop(to_hash);
        Ok(hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    if actual != digest {
        return Err(damaged(format!("its digest is {actual}")));
    }
    sink.end()
}

fn hash(input: &Receiver<Bytes>) -> Digest {
    let mut hasher = Hasher::new();
    input.iter().for_each(|bytes| hasher.update(&bytes));
    hasher.finish()
}
