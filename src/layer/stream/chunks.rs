//! Chunks of uncompressed bytes, passed from the decoder to the threads that hash and unpack
//! them without a copy.
//!
//! A chunk is a filled buffer. When its last reader drops it, the buffer returns to the pool, and
//! the layer may take another one: this bounds its memory ([`budget`]).

use std::ops::{Deref, Range};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel as unbounded, sync_channel};
use std::sync::{Arc, Mutex};

use crate::layer::LayerError;
use crate::layer::budget;

/// A buffer of the pool. Dropping it returns it to the pool and to the layer's budget.
pub struct Buffer {
    memory: Vec<u8>,
    filled: Range<usize>,
    pool: BufferPool,
    released: SyncSender<()>,
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.filled.clone()]
    }
}

impl Buffer {
    /// The whole buffer, for a decoder to write to. Its content is unspecified.
    pub fn memory(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// Makes the bytes at `filled` a chunk.
    pub fn into_chunk(mut self, filled: Range<usize>) -> Chunk {
        self.filled = filled;
        Arc::new(self)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Ok(mut free) = self.pool.0.lock() {
            free.push(std::mem::take(&mut self.memory));
        }
        // The channel has a slot for every buffer, and the other end may be gone.
        let _ = self.released.try_send(());
    }
}

/// A filled buffer that its readers share.
pub type Chunk = Arc<Buffer>;

/// A range of a chunk. It keeps the whole chunk in memory.
pub struct ChunkSlice {
    chunk: Chunk,
    range: Range<usize>,
}

impl ChunkSlice {
    /// Whether both are ranges of the same chunk.
    pub fn same_chunk(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunk, &other.chunk)
    }
}

impl Deref for ChunkSlice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.chunk[self.range.clone()]
    }
}

/// The unused buffers of all layers of a command. Cloning it is cheap.
#[derive(Clone, Default)]
pub struct BufferPool(Arc<Mutex<Vec<Vec<u8>>>>);

impl std::fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BufferPool")
    }
}

/// Gives one layer its buffers, at most [`budget::CHUNKS_PER_LAYER`] at a time.
pub struct LayerBuffers {
    pool: BufferPool,
    available: Receiver<()>,
    released: SyncSender<()>,
}

impl LayerBuffers {
    /// Takes buffers from `pool` and allocates those that it lacks.
    pub fn new(pool: BufferPool) -> Self {
        let (released, available) = sync_channel(budget::CHUNKS_PER_LAYER);
        (0..budget::CHUNKS_PER_LAYER).for_each(|_| {
            let _ = released.try_send(());
        });
        Self { pool, available, released }
    }

    /// Returns an empty buffer. Waits while the layer has as many as it may have.
    pub fn acquire(&self) -> Buffer {
        // This cannot fail: `self` holds a sender.
        let _ = self.available.recv();
        let unused = self.pool.0.lock().ok().and_then(|mut free| free.pop());
        let memory = unused.unwrap_or_else(|| vec![0; budget::BUFFER_SIZE]);
        Buffer { memory, filled: 0..0, pool: self.pool.clone(), released: self.released.clone() }
    }
}

/// The decoder's end of the channel.
pub type ChunkSender = Sender<Result<Chunk, LayerError>>;

/// Creates a channel of chunks. The number of buffers bounds it.
pub fn channel() -> (ChunkSender, ChunkStream) {
    let (tx, rx) = unbounded();
    (tx, ChunkStream { rx, current: None, position: 0, offset: 0, ended: false })
}

/// The reader's end of the channel: shows bytes first and consumes them in a second step.
pub struct ChunkStream {
    rx: Receiver<Result<Chunk, LayerError>>,
    current: Option<Chunk>,
    position: usize,
    offset: u64,
    ended: bool,
}

impl ChunkStream {
    /// The number of bytes consumed so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the unread bytes of the current chunk. They are empty only at the end of the
    /// stream.
    ///
    /// # Errors
    /// The decoder's error.
    pub fn peek(&mut self) -> Result<&[u8], LayerError> {
        if self.current.as_ref().is_none_or(|chunk| self.position == chunk.len()) {
            self.next_chunk()?;
        }
        Ok(self.current.as_ref().map_or(&[], |chunk| &chunk[self.position..]))
    }

    /// Returns the next `count` bytes as a slice of their chunk, or `None` if they span several
    /// chunks. Does not consume them.
    ///
    /// # Errors
    /// The decoder's error.
    pub fn slice(&mut self, count: usize) -> Result<Option<ChunkSlice>, LayerError> {
        if self.peek()?.len() < count {
            return Ok(None);
        }
        let range = self.position..self.position + count;
        Ok(self.current.clone().map(|chunk| ChunkSlice { chunk, range }))
    }

    /// Consumes `count` of the bytes that [`peek`](Self::peek) returned.
    pub fn consume(&mut self, count: usize) {
        self.position += count;
        self.offset += count as u64;
    }

    /// Fills `out`, or less of it at the end of the stream. Returns the number of bytes.
    ///
    /// # Errors
    /// The decoder's error.
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
        // Releases the old chunk before it waits: the budget depends on this.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(buffers: &LayerBuffers, bytes: &[u8]) -> Chunk {
        let mut buffer = buffers.acquire();
        buffer.memory()[..bytes.len()].copy_from_slice(bytes);
        buffer.into_chunk(0..bytes.len())
    }

    #[test]
    fn layer_with_all_its_buffers_in_use_gets_another_when_one_is_released() {
        let buffers = LayerBuffers::new(BufferPool::default());
        let mut chunks: Vec<_> =
            (0..budget::CHUNKS_PER_LAYER).map(|_| chunk(&buffers, b"a")).collect();
        assert!(buffers.available.try_recv().is_err(), "the budget is used up");
        drop(chunks.pop());
        chunks.push(chunk(&buffers, b"b"));
        assert_eq!(&chunks[budget::CHUNKS_PER_LAYER - 1][..], b"b");
    }

    #[test]
    fn slice_keeps_its_buffer_until_it_is_dropped() {
        let buffers = LayerBuffers::new(BufferPool::default());
        let (tx, mut stream) = channel();
        tx.send(Ok(chunk(&buffers, b"abc"))).unwrap();
        tx.send(Ok(chunk(&buffers, b"def"))).unwrap();
        drop(tx);
        let first = stream.slice(2).unwrap().unwrap();
        stream.consume(2);
        assert!(stream.slice(2).unwrap().is_none(), "the next two bytes span two chunks");
        let mut rest = [0; 8];
        assert_eq!(stream.read_full(&mut rest).unwrap(), 4);
        assert_eq!((&first[..], &rest[..4]), (&b"ab"[..], &b"cdef"[..]));
        assert_eq!(stream.offset(), 6);
        assert_eq!(buffers.pool.0.lock().unwrap().len(), 1, "the second buffer is back");
        drop(first);
        assert_eq!(buffers.pool.0.lock().unwrap().len(), 2);
    }
}
