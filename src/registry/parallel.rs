//! Parallel download: a blob over several connections, where one connection alone is slow.
//!
//! Many registries and networks limit the throughput per connection. A blob begins on one
//! connection. If that is slow and much is left, the rest is fetched in segments by range requests
//! over several connections, in any order, and passed on in order.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Registry;
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

/// Bytes that must be left for segments to be worth their requests.
const MIN_REMAINING: u64 = 4 * SEGMENT_SIZE;

type Chunk = Result<Bytes, RegistryError>;

impl Registry {
    /// Downloads a blob: its bytes in order, exactly as many as `blob` says, or an error.
    pub fn download<'a>(
        &'a self,
        repository: &'a Repository,
        blob: &'a Descriptor,
    ) -> impl Stream<Item = Chunk> + 'a {
        let download = Download { registry: self, repository, blob };
        let begin = async move {
            let first = self.blob(repository, blob, 0).await?;
            Ok(download.probe(first.boxed()))
        };
        stream::once(begin).try_flatten()
    }
}

#[derive(Clone, Copy)]
struct Download<'a> {
    registry: &'a Registry,
    repository: &'a Repository,
    blob: &'a Descriptor,
}

/// The stream of a download, with what is measured of it.
struct Probe<'a> {
    source: BoxStream<'a, Chunk>,
    offset: u64,
    waited: Duration,
    judged: bool,
}

impl<'a> Download<'a> {
    /// Passes the first connection's bytes on, and judges its throughput once. Only the time
    /// spent waiting for the network counts: a slow reader does not make a slow connection.
    fn probe(self, first: BoxStream<'a, Chunk>) -> impl Stream<Item = Chunk> + 'a {
        let probe = Probe { source: first, offset: 0, waited: Duration::ZERO, judged: false };
        stream::try_unfold(probe, move |mut probe| async move {
            if !probe.judged && probe.waited >= PROBE_TIME {
                probe.judged = true;
                let throughput = probe.offset as f64 / probe.waited.as_secs_f64();
                let remaining = self.blob.size - probe.offset;
                if throughput < FAST
                    && remaining >= MIN_REMAINING
                    && let Some(segments) = self.segments(probe.offset).await?
                {
                    // This drops the first connection; the segments begin where it stood.
                    probe.source = segments;
                }
            }
            let since = Instant::now();
            let Some(bytes) = probe.source.try_next().await? else { return Ok(None) };
            probe.waited += since.elapsed();
            probe.offset += bytes.len() as u64;
            Ok(Some((bytes, probe)))
        })
    }

    /// The blob from `offset` on, in segments; `None` if the registry serves no ranges.
    async fn segments(self, offset: u64) -> Result<Option<BoxStream<'a, Chunk>>, RegistryError> {
        let (size, start) = (self.blob.size, offset + FIRST_SEGMENT_SIZE);
        let first = self.registry.blob_range(self.repository, self.blob, offset, start);
        let Some(first) = first.await? else { return Ok(None) };
        let starts = (0..).map(move |n| start + n * SEGMENT_SIZE);
        let ranges = starts
            .take_while(move |start| *start < size)
            .map(move |start| (start, (start + SEGMENT_SIZE).min(size)));
        let rest = in_order(&self.registry.shared.segments, ranges, move |(start, end)| {
            self.segment(start, end)
        });
        Ok(Some(first.chain(rest).boxed()))
    }

    /// Fetches the bytes from `start` up to but not including `end`.
    async fn segment(self, start: u64, end: u64) -> Result<Vec<Bytes>, RegistryError> {
        let segment = self.registry.blob_range(self.repository, self.blob, start, end);
        let Some(segment) = segment.await? else {
            let what =
                "it served one range of a blob and ignored the next range request".to_owned();
            return Err(RegistryError::Protocol {
                host: self.repository.domain().to_owned(),
                what,
            });
        };
        segment.try_collect().await
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
) -> impl Stream<Item = Chunk> + Send + 'a
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

    /// Reads 100 chunks; the connection and the reader take some time for each.
    async fn read(
        download: Download<'_>,
        connection: Duration,
        reader: Duration,
    ) -> Result<(), RegistryError> {
        let chunks = stream::repeat(()).take(100).then(move |()| async move {
            sleep(connection).await;
            Ok(Bytes::from_static(&[0; CHUNK]))
        });
        let mut stream = std::pin::pin!(download.probe(chunks.boxed()));
        while stream.try_next().await?.is_some() {
            sleep(reader).await;
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn slow_connection_is_replaced_by_segments() {
        let (registry, name, blob) = unreachable();
        let download = Download { registry: &registry, repository: name.repository(), blob: &blob };
        let result = read(download, Duration::from_millis(100), Duration::ZERO).await;
        assert!(matches!(result, Err(RegistryError::Network { .. })), "{result:?}");
        assert_eq!(registry.requests(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_reader_does_not_make_a_connection_slow() {
        let (registry, name, blob) = unreachable();
        let download = Download { registry: &registry, repository: name.repository(), blob: &blob };
        read(download, Duration::ZERO, Duration::from_secs(1)).await.unwrap();
        assert_eq!(registry.requests(), 0);
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
