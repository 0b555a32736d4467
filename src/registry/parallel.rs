//! Parallel download: a blob over several connections, where one connection alone is slow.
//!
//! Many registries and networks limit the throughput per connection. A blob begins on one
//! connection. If that is slow and much is left, the rest is fetched in segments by range requests
//! over several connections, in any order, and passed on in order.
//!
//! The bytes of a slow or long download are also sent to a [`Keeper`] as they arrive, so that
//! another process can continue it.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::Registry;
use super::blob::BlobStream;
use super::error::RegistryError;
use crate::oci::Descriptor;
use crate::reference::Repository;

/// Segments in memory at most, being fetched or waiting for their turn, of all blobs together.
pub const MAX_SEGMENTS: usize = 8;

/// Bytes of a segment.
const SEGMENT_SIZE: u64 = 1 << 20;

/// Bytes of the first segment, which shows whether the registry serves ranges.
const FIRST_SEGMENT_SIZE: u64 = 64 << 10;

/// How long rpull waits for the first connection before its throughput is judged.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// Bytes per second from which one connection is enough: unpacking takes about as long.
const FAST: f64 = (48 << 20) as f64;

/// Remaining bytes from which a parallel download starts.
const MIN_REMAINING: u64 = 4 * SEGMENT_SIZE;

/// After this time a download is kept, even if it is fast.
const LONG_DOWNLOAD: Duration = Duration::from_secs(10);

type BytesResult = Result<Bytes, RegistryError>;

/// Receives bytes of a blob with their offset, in any order. A receiver that is slow slows the
/// download down; one that is gone is ignored.
pub type Keeper = mpsc::Sender<(u64, Bytes)>;

/// A range of a blob to download.
#[derive(Clone)]
pub struct BlobRange<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The blob.
    pub blob: &'a Descriptor,
    /// The offsets of its bytes.
    pub range: Range<u64>,
    /// The receiver of what is kept.
    pub keeper: &'a Keeper,
    /// Whether all bytes are kept, not only those of a slow download.
    pub keep_all: bool,
}

impl Registry {
    /// Downloads a range of a blob: all its bytes in order, or an error.
    pub fn download<'a>(
        &'a self,
        range: BlobRange<'a>,
    ) -> impl Stream<Item = BytesResult> + Send + 'a {
        let begin = async move {
            let BlobRange { repository, blob, range: Range { start, end }, .. } = range.clone();
            let first = self.blob(repository, blob, start..end).await?;
            Ok(Download { registry: self, of: range }.probe(first.boxed()))
        };
        stream::once(begin).try_flatten()
    }
}

#[derive(Clone)]
struct Download<'a> {
    registry: &'a Registry,
    of: BlobRange<'a>,
}

/// The stream of a download, with its throughput so far.
struct Probe<'a> {
    source: BoxStream<'a, BytesResult>,
    offset: u64,
    began: Instant,
    waited: Duration,
    judged: bool,
    /// Whether the bytes of `source` are kept here.
    keep: bool,
}

impl<'a> Download<'a> {
    /// Passes on the first connection's bytes, and checks its throughput once. Only time spent
    /// waiting for the network counts, so a slow reader does not start a parallel download.
    fn probe(
        self,
        first: BoxStream<'a, BytesResult>,
    ) -> impl Stream<Item = BytesResult> + Send + 'a {
        let Range { start, end } = self.of.range;
        let probe = Probe {
            source: first,
            offset: start,
            began: Instant::now(),
            waited: Duration::ZERO,
            judged: false,
            keep: self.of.keep_all,
        };
        stream::try_unfold((self, probe), move |(download, mut probe)| async move {
            let remaining = end - probe.offset;
            if !probe.judged && probe.waited >= PROBE_TIME {
                probe.judged = true;
                let throughput = (probe.offset - start) as f64 / probe.waited.as_secs_f64();
                let (layer, speed) = (download.of.blob.digest.short(), throughput as u64);
                if throughput < FAST && remaining >= MIN_REMAINING {
                    probe.keep = true;
                    if let Some(segments) = download.clone().segments(probe.offset).await? {
                        // This drops the first connection; the segments begin where it stood, and
                        // keep their bytes themselves.
                        (probe.source, probe.keep) = (segments, false);
                        tracing::info!(
                            "layer {layer}: {speed} bytes/s on one connection is slow, {remaining} \
                             bytes remain: fetched in segments over several connections"
                        );
                    } else {
                        tracing::info!(
                            "layer {layer}: {speed} bytes/s on one connection is slow, and the \
                             registry serves no ranges: not fetched in segments"
                        );
                    }
                } else {
                    tracing::debug!(
                        "layer {layer}: {speed} bytes/s on one connection, {remaining} bytes \
                         remain: not fetched in segments"
                    );
                }
            } else if !probe.judged && probe.began.elapsed() >= LONG_DOWNLOAD {
                probe.keep = true;
            }
            let since = Instant::now();
            let Some(bytes) = probe.source.try_next().await? else { return Ok(None) };
            probe.waited += since.elapsed();
            if probe.keep {
                download.keep(probe.offset, &bytes).await;
            }
            probe.offset += bytes.len() as u64;
            Ok(Some((bytes, (download, probe))))
        })
    }

    /// Fetches the range from `offset` in segments; `None` if the registry serves no ranges.
    async fn segments(
        self,
        offset: u64,
    ) -> Result<Option<BoxStream<'a, BytesResult>>, RegistryError> {
        let (end, start) = (self.of.range.end, offset + FIRST_SEGMENT_SIZE);
        let Some(first) = self.range(offset..start).await? else { return Ok(None) };
        let starts = (0..).map(move |n| start + n * SEGMENT_SIZE);
        let ranges = starts
            .take_while(move |start| *start < end)
            .map(move |start| start..(start + SEGMENT_SIZE).min(end));
        let permits = &self.registry.shared.segments;
        let rest = in_order(permits, ranges, move |range| self.clone().segment(range));
        Ok(Some(first.chain(rest).boxed()))
    }

    /// Fetches a range into memory.
    async fn segment(self, range: Range<u64>) -> Result<Vec<Bytes>, RegistryError> {
        let Some(segment) = self.range(range).await? else {
            let host = self.of.repository.domain().to_owned();
            let what =
                "it served one range of a blob and ignored the next range request".to_owned();
            return Err(RegistryError::Protocol { host, what });
        };
        segment.try_collect().await
    }

    /// Opens a range, whose bytes are kept as they arrive; `None` if the registry serves no ranges.
    async fn range(
        &self,
        range: Range<u64>,
    ) -> Result<Option<BoxStream<'a, BytesResult>>, RegistryError> {
        let offset = range.start;
        let opened = self.registry.blob_range(self.of.repository, self.of.blob, range).await?;
        let download = self.clone();
        Ok(opened.map(|segment| {
            let step = |(mut segment, offset, download): (BlobStream, u64, Self)| async move {
                let Some(bytes) = segment.try_next().await? else { return Ok(None) };
                download.keep(offset, &bytes).await;
                let next = offset + bytes.len() as u64;
                Ok(Some((bytes, (segment, next, download))))
            };
            stream::try_unfold((segment, offset, download), step).boxed()
        }))
    }

    async fn keep(&self, offset: u64, bytes: &Bytes) {
        // A receiver that is gone could not write the bytes; the download goes on.
        let _ = self.of.keeper.send((offset, bytes.clone())).await;
    }
}

/// Fetches `ranges` in parallel and yields their bytes in order. A range's permit is released
/// when its last bytes are passed on, so the permits bound the bytes in memory. No two downloads
/// can wait for each other: permits are granted in order, so each download that has some has
/// one for its next range.
fn in_order<'a, R, F>(
    permits: &'a Semaphore,
    ranges: impl Iterator<Item = R> + Send + 'a,
    fetch: impl Fn(R) -> F + Clone + Send + 'a,
) -> impl Stream<Item = BytesResult> + Send + 'a
where
    R: Send + 'a,
    F: Future<Output = Result<Vec<Bytes>, RegistryError>> + Send + 'a,
{
    let segments = stream::iter(ranges).map(move |range| {
        let fetch = fetch.clone();
        async move {
            // The semaphore is never closed.
            let permit = permits.acquire().await;
            fetch(range).await.map(|chunks| (permit, chunks))
        }
    });
    let chunks = segments.buffered(MAX_SEGMENTS).map_ok(|(permit, chunks)| {
        stream::iter(chunks.into_iter().map(Ok)).inspect(move |_| {
            // Moved in here, the permit lives as long as the chunks of the segment.
            let _ = &permit;
        })
    });
    chunks.try_flatten()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::sleep;

    use super::*;
    use crate::digest::Digest;
    use crate::reference::Reference;
    use crate::registry::RegistryOptions;

    const CHUNK: usize = 64 << 10;

    /// A registry that cannot be reached: a range request fails.
    fn unreachable() -> (Registry, Reference, Descriptor) {
        let options =
            RegistryOptions { certs_dirs: Vec::new(), retries: 0, ..RegistryOptions::default() };
        let blob = serde_json::from_value(serde_json::json!({
            "digest": Digest::of(b"blob"), "size": 1000 * CHUNK,
        }));
        (Registry::new(options), "127.0.0.1:1/x/y:z".parse().unwrap(), blob.unwrap())
    }

    /// Reads 100 chunks; the connection and the reader take some time for each. Returns the
    /// result, and the offsets of what was kept.
    async fn read(
        (registry, name, blob): &(Registry, Reference, Descriptor),
        connection: Duration,
        reader: Duration,
    ) -> (Result<(), RegistryError>, Vec<u64>) {
        let (keeper, mut kept) = mpsc::channel(1000);
        let (repository, range) = (name.repository(), 0..blob.size);
        let of = BlobRange { repository, blob, range, keeper: &keeper, keep_all: false };
        let chunks = stream::repeat(()).take(100).then(move |()| async move {
            sleep(connection).await;
            Ok(Bytes::from_static(&[0; CHUNK]))
        });
        let mut stream = Box::pin(Download { registry, of }.probe(chunks.boxed()));
        let result = loop {
            match stream.try_next().await {
                Ok(Some(_)) => sleep(reader).await,
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        drop(stream);
        kept.close();
        let offsets = std::iter::from_fn(|| kept.try_recv().ok()).map(|(offset, _)| offset);
        (result, offsets.collect())
    }

    #[tokio::test(start_paused = true)]
    async fn slow_connection_is_replaced_by_segments() {
        let blob = unreachable();
        let (result, _) = read(&blob, Duration::from_millis(100), Duration::ZERO).await;
        assert!(matches!(result, Err(RegistryError::Network { .. })), "{result:?}");
        assert_eq!(blob.0.requests(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_reader_does_not_make_a_connection_slow() {
        let blob = unreachable();
        let (result, kept) = read(&blob, Duration::ZERO, Duration::from_millis(99)).await;
        result.unwrap();
        assert_eq!(blob.0.requests(), 0);
        assert_eq!(kept, [0; 0], "a fast and short download is not kept");
    }

    #[tokio::test(start_paused = true)]
    async fn long_download_is_kept_after_ten_seconds() {
        let blob = unreachable();
        let (result, kept) = read(&blob, Duration::ZERO, Duration::from_millis(200)).await;
        result.unwrap();
        let expected: Vec<u64> = (50..100).map(|n| n * CHUNK as u64).collect();
        assert_eq!(kept, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn segments_in_memory_of_two_slow_readers_are_bounded_together() {
        let permits = Semaphore::new(MAX_SEGMENTS);
        let (live, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let fetch = |n: usize| {
            let (live, most) = (&live, &most);
            async move {
                let now = live.fetch_add(1, Ordering::Relaxed) + 1;
                most.fetch_max(now, Ordering::Relaxed);
                sleep(Duration::from_millis(1)).await;
                Ok(vec![Bytes::from(n.to_string())])
            }
        };
        let download = || async {
            let mut all = std::pin::pin!(in_order(&permits, 0..40, fetch));
            let mut next = 0;
            while let Some(bytes) = all.try_next().await.unwrap() {
                assert_eq!(bytes, next.to_string());
                next += 1;
                sleep(Duration::from_secs(1)).await;
                live.fetch_sub(1, Ordering::Relaxed);
            }
            next
        };
        assert_eq!(tokio::join!(download(), download()), (40, 40));
        assert_eq!(most.load(Ordering::Relaxed), MAX_SEGMENTS);
    }
}
