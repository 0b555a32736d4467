//! Deferred writes: the data, owner, mode and times of small files are written by another thread.
//!
//! Files are created in archive order by the unpacking thread; only their content is deferred.
//! Before a file's content or metadata matters, [`DeferredWriter::flush`] waits for all writes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::metadata::FileMetadata;
use crate::layer::LayerError;
use crate::layer::budget;
use crate::layer::stream::chunks::ChunkSlice;
use crate::layer::tar::entry::TarEntry;

/// Whether the write of `entry`, a regular file, can be deferred. Extended attributes may cause
/// warnings, which must come in archive order.
pub fn can_defer(entry: &TarEntry) -> bool {
    entry.data_size <= budget::DEFERRED_FILE_SIZE
        && entry.sparse.is_none()
        && entry.xattrs.is_empty()
}

/// A deferred write to a new, open file.
pub struct DeferredWrite {
    /// The file, empty.
    pub file: File,
    /// Its whole data.
    pub data: ChunkSlice,
    /// The metadata that is set after the data.
    pub metadata: FileMetadata,
    /// Its path, for messages.
    pub path: Vec<u8>,
}

impl DeferredWrite {
    fn run(self) -> Result<(), LayerError> {
        let written = self.file.write_all_at(&self.data, 0);
        written.map_err(|e| LayerError::write("write", &self.path, e))?;
        self.metadata.set(&self.file, &self.path, || Ok(()))
    }
}

enum Message {
    Batch(Vec<DeferredWrite>),
    /// Reply when all earlier writes are done.
    Flush(SyncSender<()>),
}

/// The unpacking thread's end: collects writes in batches.
pub struct DeferredWriter {
    tx: SyncSender<Message>,
    batch: Vec<DeferredWrite>,
    /// Bytes of data in the batch.
    bytes: usize,
    /// Chunks that the batch keeps alive.
    chunks: usize,
    flushed: bool,
}

/// The writing thread's end.
pub struct DeferredWorker(Receiver<Message>);

/// Creates both ends.
pub fn channel() -> (DeferredWriter, DeferredWorker) {
    let (tx, rx) = sync_channel(budget::DEFERRED_QUEUE);
    let batch = Vec::with_capacity(budget::DEFERRED_BATCH_FILES);
    (DeferredWriter { tx, batch, bytes: 0, chunks: 0, flushed: true }, DeferredWorker(rx))
}

impl DeferredWriter {
    /// Adds a write.
    ///
    /// # Errors
    /// [`LayerError::Cancelled`] if the worker failed; its own error has the reason.
    pub fn add(&mut self, write: DeferredWrite) -> Result<(), LayerError> {
        if !self.batch.last().is_some_and(|last| last.data.same_chunk(&write.data)) {
            if self.chunks == budget::DEFERRED_BATCH_CHUNKS {
                self.send_batch()?;
            }
            self.chunks += 1;
        }
        self.bytes += write.data.len();
        self.batch.push(write);
        self.flushed = false;
        let full = self.batch.len() == budget::DEFERRED_BATCH_FILES
            || self.bytes >= budget::DEFERRED_BATCH_SIZE;
        if full { self.send_batch() } else { Ok(()) }
    }

    /// Waits until all writes are done.
    ///
    /// # Errors
    /// [`LayerError::Cancelled`] if the worker failed; its own error has the reason.
    pub fn flush(&mut self) -> Result<(), LayerError> {
        if self.flushed {
            return Ok(());
        }
        self.send_batch()?;
        let (tx, rx) = sync_channel(1);
        self.send(Message::Flush(tx))?;
        rx.recv().map_err(|_| LayerError::Cancelled)?;
        self.flushed = true;
        Ok(())
    }

    fn send_batch(&mut self) -> Result<(), LayerError> {
        let empty = Vec::with_capacity(budget::DEFERRED_BATCH_FILES);
        let batch = std::mem::replace(&mut self.batch, empty);
        (self.bytes, self.chunks) = (0, 0);
        self.send(Message::Batch(batch))
    }

    fn send(&self, message: Message) -> Result<(), LayerError> {
        self.tx.send(message).map_err(|_| LayerError::Cancelled)
    }
}

impl DeferredWorker {
    /// Runs writes until the other end is dropped or a write fails.
    ///
    /// # Errors
    /// [`LayerError::Write`].
    pub fn run(self) -> Result<(), LayerError> {
        for message in self.0 {
            match message {
                Message::Batch(writes) => writes.into_iter().try_for_each(DeferredWrite::run)?,
                // The unpacking thread may have failed and not wait any more.
                Message::Flush(done) => drop(done.send(())),
            }
        }
        Ok(())
    }
}
