//! Where the two worlds meet: bytes arrive asynchronously and are unpacked by blocking
//! threads. One channel a layer joins them, bounded in bytes.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::{Semaphore, mpsc};

use crate::layer::budget;

type Item = io::Result<Bytes>;

/// The arriving end.
pub struct Feed {
    tx: mpsc::UnboundedSender<Item>,
    credit: Arc<Semaphore>,
}

/// The unpacking end, which blocks until bytes come.
pub struct Fed {
    rx: mpsc::UnboundedReceiver<Item>,
    credit: Arc<Semaphore>,
    ended: bool,
}

/// A channel whose bytes in flight are bounded.
pub fn channel() -> (Feed, Fed) {
    let (tx, rx) = mpsc::unbounded_channel();
    let credit = Arc::new(Semaphore::new(budget::COMPRESSED_BYTES));
    (Feed { tx, credit: credit.clone() }, Fed { rx, credit, ended: false })
}

impl Feed {
    /// Passes all of `stream` on, as fast as it is taken. Ends early, and well, when the
    /// reader is gone: its own result says why.
    pub async fn run<E>(self, stream: impl Stream<Item = Result<Bytes, E>>)
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let mut stream = std::pin::pin!(stream);
        while let Some(item) = stream.next().await {
            let mut bytes = match item {
                Ok(bytes) => bytes,
                Err(e) => return drop(self.tx.send(Err(io::Error::other(e)))),
            };
            // HTTP/2 has frames without data.
            while !bytes.is_empty() {
                let run = bytes.split_to(bytes.len().min(budget::COMPRESSED_BUFFER_SIZE));
                let Some(run) = Credited::new(run, &self.credit).await else { return };
                if self.tx.send(Ok(Bytes::from_owner(run))).is_err() {
                    return;
                }
            }
        }
        // An empty run marks the end: a sender that is merely dropped was cancelled.
        let _ = self.tx.send(Ok(Bytes::new()));
    }
}

/// Bytes that give their credit back when nobody holds them any more.
struct Credited {
    bytes: Bytes,
    credit: Arc<Semaphore>,
}

impl Credited {
    /// Waits until there is credit; `None` if the reader is gone.
    async fn new(bytes: Bytes, credit: &Arc<Semaphore>) -> Option<Self> {
        let wanted = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        credit.acquire_many(wanted).await.ok()?.forget();
        Some(Self { bytes, credit: credit.clone() })
    }
}

impl AsRef<[u8]> for Credited {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Credited {
    fn drop(&mut self) {
        self.credit.add_permits(self.bytes.len());
    }
}

impl Iterator for Fed {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        if self.ended {
            return None;
        }
        match self.rx.blocking_recv() {
            Some(Ok(bytes)) if bytes.is_empty() => {
                self.ended = true;
                None
            }
            Some(item) => Some(item),
            None => Some(Err(io::Error::other(crate::layer::LayerError::Cancelled))),
        }
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        // Wakes a feed that waits for credit, so that it sees nobody reads any more.
        self.credit.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn bytes_come_through_and_a_lost_feed_is_no_end() {
        let (feed, fed) = channel();
        let parts = [vec![1; 2], vec![], vec![1; 9 << 20], vec![1; 3]];
        let parts = parts.map(|part| Ok::<_, io::Error>(Bytes::from(part)));
        let lengths = tokio::task::spawn_blocking(move || {
            fed.map(|read| read.map(|bytes| bytes.len())).collect::<io::Result<Vec<_>>>()
        });
        feed.run(futures::stream::iter(parts)).await;
        let lengths = lengths.await.unwrap().unwrap();
        assert_eq!(lengths.iter().sum::<usize>(), 2 + (9 << 20) + 3);
        assert!(
            lengths.iter().all(|length| (1..=budget::COMPRESSED_BUFFER_SIZE).contains(length)),
            "{lengths:?}"
        );

        let (feed, mut fed) = channel();
        drop(feed);
        let read = tokio::task::spawn_blocking(move || fed.next());
        assert!(read.await.unwrap().unwrap().is_err());
    }
}
