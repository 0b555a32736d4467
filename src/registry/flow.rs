//! The bytes of a blob on their way to a registry: where they come from, how far they are, and
//! their digest.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;

use crate::digest::{Digest, Hasher};

/// The limit on the wait for the response after the last byte, unless the stall limit is longer:
/// some registries write a blob to its place before they respond.
pub const FINISH_LIMIT: Duration = Duration::from_secs(300);

/// The bytes of a blob. After an error, the source knows what it was.
pub type BlobBytes = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// What can be uploaded. It has the same bytes each time that it is opened.
pub trait BlobSource: Send + Sync {
    /// Returns the bytes from `offset` on.
    fn open(&self, offset: u64) -> BlobBytes;
}

/// The progress of one upload over all its attempts. Each byte is hashed once, also if it is sent
/// several times.
#[derive(Clone)]
pub struct Flow(Arc<Shared>);

struct Shared {
    hashed: Mutex<Hashed>,
    /// Buffers that connections accepted.
    accepted: AtomicU64,
    awaits_source: AtomicBool,
    has_failed: AtomicBool,
    has_ended: AtomicBool,
    on_bytes: Box<dyn Fn(u64) + Send + Sync>,
}

#[derive(Default)]
struct Hashed {
    hasher: Hasher,
    bytes: u64,
}

impl Flow {
    /// Returns the progress before the first byte. Calls `on_bytes` with the number of bytes that
    /// were sent, which becomes smaller when a part is sent again.
    pub fn new(on_bytes: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            hashed: Mutex::default(),
            accepted: AtomicU64::new(0),
            awaits_source: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            on_bytes: Box::new(on_bytes),
        }))
    }

    /// Returns the bytes of `source` from `offset` on, which must not be after
    /// [`sent`](Self::sent).
    pub fn stream(&self, source: &dyn BlobSource, offset: u64) -> FlowStream {
        self.0.has_ended.store(false, Ordering::Relaxed);
        (self.0.on_bytes)(offset);
        FlowStream { flow: self.clone(), bytes: source.open(offset), offset }
    }

    /// Returns the number of bytes from the beginning of the blob that were sent at least once.
    pub fn sent(&self) -> u64 {
        self.hashed().bytes
    }

    /// Returns the digest of these bytes.
    pub fn digest(&self) -> Digest {
        self.hashed().hasher.clone().finish()
    }

    /// Returns the number of buffers that connections accepted.
    pub fn accepted(&self) -> u64 {
        self.0.accepted.load(Ordering::Relaxed)
    }

    /// Returns whether the connection waits for the source.
    pub fn awaits_source(&self) -> bool {
        self.0.awaits_source.load(Ordering::Relaxed)
    }

    /// Returns whether the source failed.
    pub fn has_failed(&self) -> bool {
        self.0.has_failed.load(Ordering::Relaxed)
    }

    /// Returns whether the last stream came to its end.
    pub fn has_ended(&self) -> bool {
        self.0.has_ended.load(Ordering::Relaxed)
    }

    /// Returns the limit on a wait for the server.
    pub fn limit(&self, stall: Duration) -> Duration {
        if self.has_ended() { stall.max(FINISH_LIMIT) } else { stall }
    }

    fn hashed(&self) -> MutexGuard<'_, Hashed> {
        self.0.hashed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of one attempt.
pub struct FlowStream {
    flow: Flow,
    bytes: BlobBytes,
    offset: u64,
}

impl Stream for FlowStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.bytes.as_mut().poll_next(cx);
        let flow = self.flow.clone();
        flow.0.awaits_source.store(next.is_pending(), Ordering::Relaxed);
        match &next {
            Poll::Pending => {}
            Poll::Ready(None) => flow.0.has_ended.store(true, Ordering::Relaxed),
            Poll::Ready(Some(Err(_))) => flow.0.has_failed.store(true, Ordering::Relaxed),
            Poll::Ready(Some(Ok(bytes))) => {
                flow.0.accepted.fetch_add(1, Ordering::Relaxed);
                let mut hashed = flow.hashed();
                // What an earlier attempt sent is hashed already.
                let known = usize::try_from(hashed.bytes - self.offset).unwrap_or(usize::MAX);
                let new = &bytes[known.min(bytes.len())..];
                hashed.hasher.update(new);
                hashed.bytes += new.len() as u64;
                drop(hashed);
                self.offset += bytes.len() as u64;
                (flow.0.on_bytes)(self.offset);
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};

    use super::*;

    struct Text(&'static [u8]);

    impl BlobSource for Text {
        fn open(&self, offset: u64) -> BlobBytes {
            let rest = &self.0[usize::try_from(offset).unwrap()..];
            Box::pin(stream::iter(rest.chunks(3).map(|part| Ok(Bytes::from_static(part)))))
        }
    }

    #[tokio::test]
    async fn bytes_that_are_sent_twice_are_hashed_once() {
        let (source, flow) = (Text(b"0123456789"), Flow::new(|_| {}));
        let mut first = flow.stream(&source, 0);
        first.next().await.unwrap().unwrap();
        first.next().await.unwrap().unwrap();
        drop(first);
        assert_eq!((flow.sent(), flow.has_ended()), (6, false));
        for offset in [4, 0, 10] {
            flow.stream(&source, offset).map(drop).collect::<()>().await;
            assert_eq!(flow.digest(), Digest::of(b"0123456789"));
        }
        assert!(flow.has_ended() && !flow.has_failed());
    }
}
