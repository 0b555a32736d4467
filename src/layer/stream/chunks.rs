//! The uncompressed bytes of a layer, handed from the decoder's thread to those that
//! hash and unpack them, without a copy.

use std::ops::{Deref, Range};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};

use super::decompress;
use crate::layer::LayerError;

/// Bytes of one chunk at most: large enough that a handover costs nothing beside the work on it,
/// small enough to stay in a cache between the threads.
pub const CHUNK: usize = 512 << 10;

/// Chunks of one layer at most, wherever they are: being filled, waiting, being read, or kept for
/// a small file. Those that are kept are fewer (`layer/extract/deferred`), so there is always one that
/// comes back.
const CHUNKS: usize = 12;

/// A run of uncompressed bytes, in a buffer that goes back to where it was lent.
pub struct Run {
    buffer: Vec<u8>,
    bytes: Range<usize>,
    pool: Pool,
    back: SyncSender<()>,
}

impl Deref for Run {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.bytes.clone()]
    }
}

impl Run {
    /// Room for [`CHUNK`] bytes from a decoder; what it holds is of no meaning.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// The `bytes` of the room as a chunk.
    pub fn filled(mut self, bytes: Range<usize>) -> Chunk {
        self.bytes = bytes;
        Arc::new(self)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Ok(mut free) = self.pool.0.lock() {
            free.push(std::mem::take(&mut self.buffer));
        }
        // There is room for all; and the lender may be gone.
        let _ = self.back.try_send(());
    }
}

/// A run that its consumers share.
pub type Chunk = Arc<Run>;

/// A part of a chunk.
pub struct Piece {
    chunk: Chunk,
    range: Range<usize>,
}

impl Piece {
    /// Whether `other` keeps the same chunk.
    pub fn is_beside(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunk, &other.chunk)
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.chunk[self.range.clone()]
    }
}

/// Buffers that nobody uses now, of all layers of a command; cheap to clone.
#[derive(Clone, Default)]
pub struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

/// Lends the buffers of one layer.
pub struct Lender {
    pool: Pool,
    left: Receiver<()>,
    back: SyncSender<()>,
}

impl Lender {
    /// Lends what `pool` has, and makes more, up to the number that a layer may have.
    pub fn new(pool: Pool) -> Self {
        let (back, left) = sync_channel(CHUNKS);
        (0..CHUNKS).for_each(|_| {
            let _ = back.try_send(());
        });
        Self { pool, left, back }
    }

    /// An empty run, once one is left.
    pub fn take(&self) -> Run {
        // It holds a sender itself, so this ends with a buffer that comes back.
        let _ = self.left.recv();
        let kept = self.pool.0.lock().ok().and_then(|mut free| free.pop());
        let buffer = kept.unwrap_or_else(|| vec![0; decompress::DECODER_ROOM + CHUNK]);
        Run { buffer, bytes: 0..0, pool: self.pool.clone(), back: self.back.clone() }
    }
}

/// The decoder's end.
pub type ChunkSender = Sender<Result<Chunk, LayerError>>;

/// A channel of chunks, and its reading end. What bounds it is how many chunks there are.
pub fn stream() -> (ChunkSender, ChunkStream) {
    let (tx, rx) = channel();
    (tx, ChunkStream { rx, current: None, position: 0, offset: 0, ended: false })
}

/// A consumer's end: bytes are looked at and then consumed.
pub struct ChunkStream {
    rx: Receiver<Result<Chunk, LayerError>>,
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

    /// The next `count` bytes to keep, if one chunk has them all.
    ///
    /// # Errors
    /// What the decoder met.
    pub fn share(&mut self, count: usize) -> Result<Option<Piece>, LayerError> {
        if self.peek()?.len() < count {
            return Ok(None);
        }
        let range = self.position..self.position + count;
        Ok(self.current.clone().map(|chunk| Piece { chunk, range }))
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

    fn next_chunk(&mut self) -> Result<(), LayerError> {
        self.current = None;
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
