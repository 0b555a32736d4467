//! Where the two worlds meet: bytes arrive asynchronously and are unpacked by blocking
//! threads. One channel a layer joins them, bounded in bytes.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt};
use tokio::sync::{Semaphore, mpsc};

/// Compressed bytes of one layer that may wait to be unpacked.
const WINDOW: usize = 2 << 20;

type Item = io::Result<Bytes>;

/// The arriving end.
pub struct Feed {
    tx: mpsc::UnboundedSender<Item>,
    credit: Arc<Semaphore>,
}

/// The unpacking end: a blocking reader.
pub struct FeedReader {
    rx: mpsc::UnboundedReceiver<Item>,
    credit: Arc<Semaphore>,
    current: Bytes,
    ended: bool,
}

/// A channel whose bytes in flight are bounded.
pub fn channel() -> (Feed, FeedReader) {
    let (tx, rx) = mpsc::unbounded_channel();
    let credit = Arc::new(Semaphore::new(WINDOW));
    let reader = FeedReader { rx, credit: credit.clone(), current: Bytes::new(), ended: false };
    (Feed { tx, credit }, reader)
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
            let failed = item.is_err();
            if let Ok(bytes) = &item {
                let wanted = u32::try_from(bytes.len().min(WINDOW)).unwrap_or(u32::MAX);
                let Ok(permit) = self.credit.acquire_many(wanted).await else { return };
                permit.forget();
            }
            if self.tx.send(item.map_err(io::Error::other)).is_err() || failed {
                return;
            }
        }
        // An empty run marks the end: a sender that is merely dropped was cancelled.
        let _ = self.tx.send(Ok(Bytes::new()));
    }
}

impl BufRead for FeedReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() && !self.ended {
            match self.rx.blocking_recv() {
                Some(Ok(bytes)) if bytes.is_empty() => self.ended = true,
                Some(Ok(bytes)) => self.current = bytes,
                Some(Err(e)) => return Err(e),
                None => return Err(io::Error::other(crate::layer::LayerError::Cancelled)),
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount);
        self.credit.add_permits(amount);
    }
}

impl Read for FeedReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        crate::fsutil::read_buffered(self, out)
    }
}

impl Drop for FeedReader {
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
        let (feed, mut reader) = channel();
        let parts =
            vec![Ok::<_, io::Error>(Bytes::from_static(b"ab")), Ok(Bytes::from(vec![1; 9 << 20]))];
        let read = tokio::task::spawn_blocking(move || {
            let mut out = Vec::new();
            reader.read_to_end(&mut out).map(|_| out)
        });
        feed.run(futures::stream::iter(parts)).await;
        assert_eq!(read.await.unwrap().unwrap().len(), 2 + (9 << 20));

        let (feed, mut reader) = channel();
        drop(feed);
        let read = tokio::task::spawn_blocking(move || reader.read_to_end(&mut Vec::new()));
        assert!(read.await.unwrap().is_err());
    }
}
