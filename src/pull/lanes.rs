//! A blob over several connections, where one alone is slow.
//!
//! Many registries and lines limit each connection. A blob begins on one; when a second
//! has shown that it is slow and much is left, the rest comes in parts over several lanes,
//! in any order, and goes on from the contiguous front. What waits for its turn is bounded
//! by the lanes: a part each.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::obtain::Want;
use crate::registry::RegistryError;

/// Connections of one command for parts, all its layers together.
pub const LANES: usize = 8;

/// Bytes of a part.
const PART: u64 = 1 << 20;

/// Bytes of the part that shows whether the registry serves parts.
const TRIAL: u64 = 64 << 10;

/// How long a connection is waited for before it is judged.
const PROBE: Duration = Duration::from_secs(1);

/// Bytes a second from which one connection is enough: unpacking costs about as much.
const FAST: f64 = (48 << 20) as f64;

/// Bytes that must be left for lanes to be worth it.
const WORTH: u64 = 4 * PART;

type Item = Result<Bytes, RegistryError>;

/// The bytes of `want`'s blob, in order.
pub fn stream<'a>(want: &'a Want, lanes: &'a Semaphore) -> impl Stream<Item = Item> + 'a {
    let begin = async move {
        let one = want.registry.blob(want.image.repository(), &want.blob, 0).await?;
        Ok(probing(want, lanes, one.boxed()))
    };
    stream::once(begin).try_flatten()
}

/// Passes the first connection's bytes on, and looks once whether it is slow. Only time that
/// was spent waiting for it counts: a slow reader does not make a slow line.
fn probing<'a>(
    want: &'a Want,
    lanes: &'a Semaphore,
    one: BoxStream<'a, Item>,
) -> impl Stream<Item = Item> + 'a {
    struct State<'a> {
        source: BoxStream<'a, Item>,
        offset: u64,
        waited: Duration,
        judged: bool,
    }
    let state = State { source: one, offset: 0, waited: Duration::ZERO, judged: false };
    stream::try_unfold(state, move |mut state| async move {
        if !state.judged && state.waited >= PROBE {
            state.judged = true;
            let rate = state.offset as f64 / state.waited.as_secs_f64();
            let left = want.blob.size - state.offset;
            if rate < FAST
                && left >= WORTH
                && let Some(parts) = parts(want, lanes, state.offset).await?
            {
                // The first connection's rest is dropped; the parts begin where it stood.
                state.source = parts;
            }
        }
        let since = Instant::now();
        let Some(bytes) = state.source.try_next().await? else { return Ok(None) };
        state.waited += since.elapsed();
        state.offset += bytes.len() as u64;
        Ok(Some((bytes, state)))
    })
}

/// The blob from `offset` on, in parts over all lanes; `None` if the registry serves none.
async fn parts<'a>(
    want: &'a Want,
    lanes: &'a Semaphore,
    offset: u64,
) -> Result<Option<BoxStream<'a, Item>>, RegistryError> {
    let (size, begin) = (want.blob.size, offset + TRIAL);
    let trial = want.registry.blob_range(want.image.repository(), &want.blob, offset, begin);
    let Some(first) = trial.await? else { return Ok(None) };
    let ends = move |start: u64| (start + PART).min(size);
    let starts = (0..).map(move |n| begin + n * PART).take_while(move |start| *start < size);
    let rest = stream::iter(starts).map(move |start| async move {
        // Closed never; without a lane there would be no bound.
        let _lane = lanes.acquire().await;
        let repository = want.image.repository();
        let Some(part) =
            want.registry.blob_range(repository, &want.blob, start, ends(start)).await?
        else {
            let what =
                "it served one range of a blob and ignored the next range request".to_owned();
            return Err(RegistryError::Protocol { host: repository.domain().to_owned(), what });
        };
        part.try_collect::<Vec<Bytes>>().await
    });
    let rest =
        rest.buffered(LANES).map_ok(|part| stream::iter(part.into_iter().map(Ok))).try_flatten();
    Ok(Some(first.chain(rest).boxed()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::sleep;

    use super::*;
    use crate::digest::Digest;
    use crate::oci::Descriptor;
    use crate::registry::{Registry, RegistryOptions};

    const CHUNK: usize = 64 << 10;

    /// A blob of a registry that cannot be reached: asking it for segments is an error.
    fn want() -> Want {
        let options =
            RegistryOptions { certs_dirs: Vec::new(), retries: 0, ..RegistryOptions::default() };
        let blob: Descriptor = serde_json::from_value(serde_json::json!({
            "digest": Digest::of(b"blob"), "size": 1000 * CHUNK,
        }))
        .unwrap();
        let image = Arc::new("127.0.0.1:1/x/y:z".parse().unwrap());
        Want { image, registry: Registry::new(options), blob, place: None, broken: None }
    }

    /// Reads 100 chunks that each take the connection and the reader some time.
    async fn read(
        want: &Want,
        connection: Duration,
        reader: Duration,
    ) -> Result<(), RegistryError> {
        let lanes = Semaphore::new(LANES);
        let chunks = stream::repeat(()).take(100).then(move |()| async move {
            sleep(connection).await;
            Ok(Bytes::from_static(&[0; CHUNK]))
        });
        let mut stream = std::pin::pin!(probing(want, &lanes, chunks.boxed()));
        while stream.try_next().await?.is_some() {
            sleep(reader).await;
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn slow_connection_is_replaced_by_segments() {
        let want = want();
        let asked = read(&want, Duration::from_millis(100), Duration::ZERO).await;
        assert!(matches!(asked, Err(RegistryError::Network { .. })), "{asked:?}");
        assert_eq!(want.registry.requests(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_reader_does_not_make_a_connection_slow() {
        let want = want();
        read(&want, Duration::ZERO, Duration::from_secs(1)).await.unwrap();
        assert_eq!(want.registry.requests(), 0);
    }
}
