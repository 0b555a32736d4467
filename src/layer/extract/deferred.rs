//! The second half of small files - data, owner, mode, times - on a thread of its own.
//!
//! The reader's thread creates every file, so names come about in the archive's order. What is
//! left to do to a file concerns nobody, until somebody looks at it: then [`Behind::settle`].

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::metadata::FileMeta;
use crate::layer::LayerError;
use crate::layer::budget;
use crate::layer::stream::chunks::ChunkSlice;
use crate::layer::tar::reader::Entry;

/// Whether `entry`, a regular file, is one to write behind. Attributes may yield warnings,
/// which stand in the archive's order.
pub fn takes(entry: &Entry) -> bool {
    entry.data <= budget::DEFERRED_FILE_SIZE && entry.sparse.is_none() && entry.xattrs.is_empty()
}

/// A file that is created and open.
pub struct Task {
    /// The file, empty.
    pub file: File,
    /// Its whole data.
    pub data: ChunkSlice,
    /// What is set after that.
    pub meta: FileMeta,
    /// Its path, for messages.
    pub path: Vec<u8>,
}

impl Task {
    fn run(self) -> Result<(), LayerError> {
        let written = self.file.write_all_at(&self.data, 0);
        written.map_err(|e| LayerError::write("write", &self.path, e))?;
        self.meta.set(&self.file, &self.path, || Ok(()))
    }
}

/// What the thread is told.
enum Message {
    Files(Vec<Task>),
    /// Answer when all before is done.
    Settle(SyncSender<()>),
}

/// The end that gives work.
pub struct Behind {
    tx: SyncSender<Message>,
    batch: Vec<Task>,
    bytes: usize,
    chunks: usize,
    settled: bool,
}

/// The end that does it.
pub struct Worker(Receiver<Message>);

/// Both ends.
pub fn channel() -> (Behind, Worker) {
    let (tx, rx) = sync_channel(budget::DEFERRED_QUEUE);
    let batch = Vec::with_capacity(budget::DEFERRED_BATCH_FILES);
    (Behind { tx, batch, bytes: 0, chunks: 0, settled: true }, Worker(rx))
}

impl Behind {
    /// Has `task` done some time.
    ///
    /// # Errors
    /// [`LayerError::Cancelled`] if the worker failed, whose own error says why.
    pub fn add(&mut self, task: Task) -> Result<(), LayerError> {
        if !self.batch.last().is_some_and(|last| last.data.same_chunk(&task.data)) {
            if self.chunks == budget::DEFERRED_BATCH_CHUNKS {
                self.hand_over()?;
            }
            self.chunks += 1;
        }
        self.bytes += task.data.len();
        self.batch.push(task);
        self.settled = false;
        let full = self.batch.len() == budget::DEFERRED_BATCH_FILES
            || self.bytes >= budget::DEFERRED_BATCH_SIZE;
        if full { self.hand_over() } else { Ok(()) }
    }

    /// Waits until all is done.
    ///
    /// # Errors
    /// [`LayerError::Cancelled`] if the worker failed.
    pub fn settle(&mut self) -> Result<(), LayerError> {
        if self.settled {
            return Ok(());
        }
        self.hand_over()?;
        let (tx, rx) = sync_channel(1);
        self.send(Message::Settle(tx))?;
        rx.recv().map_err(|_| LayerError::Cancelled)?;
        self.settled = true;
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), LayerError> {
        let batch =
            std::mem::replace(&mut self.batch, Vec::with_capacity(budget::DEFERRED_BATCH_FILES));
        (self.bytes, self.chunks) = (0, 0);
        self.send(Message::Files(batch))
    }

    fn send(&self, message: Message) -> Result<(), LayerError> {
        self.tx.send(message).map_err(|_| LayerError::Cancelled)
    }
}

impl Worker {
    /// Does what it is told until the other end is gone, or something fails.
    ///
    /// # Errors
    /// [`LayerError::Write`].
    pub fn run(self) -> Result<(), LayerError> {
        for message in self.0 {
            match message {
                Message::Files(files) => files.into_iter().try_for_each(Task::run)?,
                // Who asked may be gone; that is its own matter.
                Message::Settle(done) => drop(done.send(())),
            }
        }
        Ok(())
    }
}
