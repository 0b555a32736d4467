//! The uncompressed bytes of a layer, handed from the decoder's thread to those that
//! hash and unpack them, without a copy.

use std::ops::{Deref, Range};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use super::LayerError;
use super::compression;

/// Bytes of one chunk at most: large enough that a handover costs nothing beside the work on it,
/// small enough to stay in a cache between the threads.
pub const CHUNK: usize = 512 << 10;

/// How many chunks may wait for one consumer.
const DEPTH: usize = 4;

/// A run of uncompressed bytes, and what the decoder needed beside them.
pub struct Run {
    buffer: Vec<u8>,
    bytes: Range<usize>,
}

impl Deref for Run {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.bytes.clone()]
    }
}

/// A run that its consumers share.
pub type Chunk = Arc<Run>;

/// Buffers that go round.
#[derive(Clone, Default)]
pub struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    /// A buffer with room for [`CHUNK`] bytes from a decoder; what it holds is of no meaning.
    pub fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().ok().and_then(|mut free| free.pop());
        kept.unwrap_or_else(|| vec![0; compression::DECODER_ROOM + CHUNK])
    }

    /// Keeps the buffer if this was its last user.
    pub fn give(&self, chunk: Chunk) {
        if let (Some(run), Ok(mut free)) = (Arc::into_inner(chunk), self.0.lock()) {
            free.push(run.buffer);
        }
    }
}

/// The `bytes` of `buffer` as a chunk.
pub fn chunk(buffer: Vec<u8>, bytes: Range<usize>) -> Chunk {
    Arc::new(Run { buffer, bytes })
}

/// The decoder's end.
pub type ChunkSender = SyncSender<Result<Chunk, LayerError>>;

/// A channel of chunks, and its reading end.
pub fn channel(pool: Pool) -> (ChunkSender, ChunkStream) {
    let (tx, rx) = sync_channel(DEPTH);
    (tx, ChunkStream { rx, pool, current: None, position: 0, offset: 0, ended: false })
}

/// A consumer's end: bytes are looked at and then consumed.
pub struct ChunkStream {
    rx: Receiver<Result<Chunk, LayerError>>,
    pool: Pool,
    current: Option<Chunk>,
    position: usize,
    offset: u64,
    ended: bool,
}

impl ChunkStream {
    /// Bytes consumed so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes at hand; none only at the end of the stream.
    ///
    /// # Errors
    /// What the decoder met.
    pub fn peek(&mut self) -> Result<&[u8], LayerError> {
        if self.current.as_ref().is_none_or(|chunk| self.position == chunk.len()) {
            self.next_chunk()?;
        }
        Ok(self.current.as_ref().map_or(&[], |chunk| &chunk[self.position..]))
    }

    /// Passes over `count` bytes of those that [`peek`](Self::peek) showed.
    pub fn consume(&mut self, count: usize) {
        self.position += count;
        self.offset += count as u64;
    }

    /// Fills `out` as far as the stream goes; the number of bytes.
    ///
    /// # Errors
    /// What the decoder met.
    pub fn read_full(&mut self, out: &mut [u8]) -> Result<usize, LayerError> {
        let mut filled = 0;
        while filled < out.len() {
            let bytes = self.peek()?;
            if bytes.is_empty() {
                break;
            }
            let n = bytes.len().min(out.len() - filled);
            out[filled..filled + n].copy_from_slice(&bytes[..n]);
            self.consume(n);
            filled += n;
        }
        Ok(filled)
    }

    /// The rest, chunk by chunk, to `sink`.
    ///
    /// # Errors
    /// What the decoder met.
    pub fn for_each(mut self, mut sink: impl FnMut(&[u8])) -> Result<(), LayerError> {
        loop {
            let n = {
                let bytes = self.peek()?;
                sink(bytes);
                bytes.len()
            };
            if n == 0 {
                return Ok(());
            }
            self.consume(n);
        }
    }

    fn next_chunk(&mut self) -> Result<(), LayerError> {
        if let Some(done) = self.current.take() {
            self.pool.give(done);
        }
        self.position = 0;
        if self.ended {
            return Ok(());
        }
        match self.rx.recv() {
            Ok(Ok(chunk)) => self.current = Some(chunk),
            Ok(Err(e)) => {
                self.ended = true;
                return Err(e);
            }
            Err(_) => self.ended = true,
        }
        Ok(())
    }
}
