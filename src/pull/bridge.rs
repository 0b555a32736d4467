//! The bridge between a download and the unpacker: buffers arrive asynchronously and are read by
//! a blocking thread. One channel per layer, bounded in bytes.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::{Semaphore, mpsc};

use crate::layer::{LayerError, budget};

/// The end of the download.
pub struct BufferSender {
    buffers: mpsc::UnboundedSender<Bytes>,
    budget: Arc<Semaphore>,
}

/// The end of the unpacker: an iterator that blocks until the next buffer arrives.
pub struct BufferReader {
    buffers: mpsc::UnboundedReceiver<Bytes>,
    budget: Arc<Semaphore>,
    ended: bool,
}

/// Creates a channel whose live bytes are bounded by [`budget::COMPRESSED_BYTES`].
pub fn channel() -> (BufferSender, BufferReader) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let budget = Arc::new(Semaphore::new(budget::COMPRESSED_BYTES));
    let writer = BufferSender { buffers: sender, budget: budget.clone() };
    (writer, BufferReader { buffers: receiver, budget, ended: false })
}

impl BufferSender {
    /// Sends all of `stream`. It ends early, with success, when the reader is gone: the reader's
    /// own result has the reason.
    ///
    /// # Errors
    /// The first error of `stream`; the reader then ends with [`LayerError::Cancelled`].
    pub async fn send_all<E>(self, stream: impl Stream<Item = Result<Bytes, E>>) -> Result<(), E> {
        let mut stream = std::pin::pin!(stream);
        while let Some(bytes) = stream.next().await {
            let mut bytes = bytes?;
            // HTTP/2 has frames without data.
            while !bytes.is_empty() {
                let buffer = bytes.split_to(bytes.len().min(budget::COMPRESSED_BUFFER_SIZE));
                let Some(buffer) = Budgeted::new(buffer, &self.budget).await else { return Ok(()) };
                if self.buffers.send(Bytes::from_owner(buffer)).is_err() {
                    return Ok(());
                }
            }
        }
        // An empty buffer marks the end: a sender that is merely dropped was cancelled.
        let _ = self.buffers.send(Bytes::new());
        Ok(())
    }
}

/// Bytes that return their share of the budget when the last reference to them is dropped.
struct Budgeted {
    bytes: Bytes,
    budget: Arc<Semaphore>,
}

impl Budgeted {
    /// Waits until the budget has space; `None` if the reader is gone.
    async fn new(bytes: Bytes, budget: &Arc<Semaphore>) -> Option<Self> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        budget.acquire_many(length).await.ok()?.forget();
        Some(Self { bytes, budget: budget.clone() })
    }
}

impl AsRef<[u8]> for Budgeted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Budgeted {
    fn drop(&mut self) {
        self.budget.add_permits(self.bytes.len());
    }
}

impl Iterator for BufferReader {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.buffers.blocking_recv() {
            Some(bytes) if bytes.is_empty() => {
                self.ended = true;
                None
            }
            Some(bytes) => Some(Ok(bytes)),
            None => Some(Err(io::Error::other(LayerError::Cancelled))),
        }
    }
}

impl Drop for BufferReader {
    fn drop(&mut self) {
        // Wakes a sender that waits for the budget, so that it notices that the reader is gone.
        self.budget.close();
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    async fn read(reader: BufferReader) -> io::Result<Vec<usize>> {
        let read = move || reader.map(|read| read.map(|bytes| bytes.len())).collect();
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    fn is_cancelled(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|e| matches!(e.downcast_ref(), Some(LayerError::Cancelled)))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn large_and_empty_buffers_arrive_as_small_ones() {
        let (sender, reader) = channel();
        let parts = [vec![1; 2], vec![], vec![1; 9 << 20], vec![1; 3]];
        let parts = parts.map(|part| Ok::<_, io::Error>(Bytes::from(part)));
        let reading = tokio::spawn(read(reader));
        sender.send_all(stream::iter(parts)).await.unwrap();
        let lengths = reading.await.unwrap().unwrap();
        assert_eq!(lengths.iter().sum::<usize>(), 2 + (9 << 20) + 3);
        assert!(
            lengths.iter().all(|length| (1..=budget::COMPRESSED_BUFFER_SIZE).contains(length)),
            "{lengths:?}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn failed_or_dropped_download_cancels_the_reader() {
        let (sender, reader) = channel();
        let parts = [Ok(Bytes::from_static(b"abc")), Err("reset")];
        assert_eq!(sender.send_all(stream::iter(parts)).await, Err("reset"));
        assert!(is_cancelled(&read(reader).await.unwrap_err()));

        let (sender, reader) = channel();
        drop(sender);
        assert!(is_cancelled(&read(reader).await.unwrap_err()));
    }

    #[tokio::test]
    async fn download_ends_with_success_when_its_reader_is_gone() {
        let (sender, reader) = channel();
        drop(reader);
        let endless = stream::repeat(Ok::<_, &str>(Bytes::from_static(b"abc")));
        sender.send_all(endless).await.unwrap();
    }
}
