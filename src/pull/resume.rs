//! Continues a download that an earlier process began, and keeps what arrives so that a later
//! one can continue this one.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::gate::join_error;
use super::session::Session;
use super::task::LayerTask;
use crate::error::Error;
use crate::layer::LayerError;
use crate::progress::Event;
use crate::registry::{BlobRange, Keeper, Registry};
use crate::store::{ContentLock, Partial};

/// Chunks that wait to be written at most. They are also on their way to the unpacker.
const QUEUE: usize = 8;

/// Bytes that are read from a partial download in one step.
const READ_SIZE: u64 = 256 << 10;

/// A blob of which a part may have arrived in an earlier process.
pub struct Resumable {
    task: LayerTask,
    registry: Registry,
    ranges: Vec<Range<u64>>,
    partial: Arc<Mutex<Option<Partial>>>,
    keeper: Keeper,
    writer: JoinHandle<()>,
}

impl Resumable {
    /// Opens the partial download of a blob, if there is one. `lock` is the blob's lock in the
    /// content store, if the caller has it.
    ///
    /// # Errors
    /// [`Error::Store`] if the content store cannot be used.
    pub async fn open(
        session: &Arc<Session>,
        (task, registry): (&LayerTask, &Registry),
        lock: Option<Arc<ContentLock>>,
    ) -> Result<Self, Error> {
        let (digest, size, has_lock) = (task.blob.digest, task.blob.size, lock.is_some());
        let open = session.store(move |store| store.content().partial(&digest, size, has_lock));
        let partial = open.await?;
        let ranges = partial.as_ref().map_or(Vec::new(), |partial| partial.ranges().to_vec());
        let partial = Arc::new(Mutex::new(partial));
        let (keeper, received) = mpsc::channel(QUEUE);
        let write = write(session.clone(), task.clone(), lock, partial.clone(), received);
        let writer = tokio::spawn(write);
        let registry = registry.clone();
        let resumable = Self { task: task.clone(), registry, ranges, partial, keeper, writer };
        if resumable.is_begun() {
            let (image, layer, kept) = (task.image.clone(), digest.short(), resumable.kept());
            tracing::info!("layer {layer}: {kept} of {size} bytes are in a partial download");
            session.events.send(Event::Resumed { image, layer: digest, bytes: kept });
        }
        Ok(resumable)
    }

    /// The bytes of the blob that are there.
    pub fn kept(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Whether the byte at `offset` of the blob is there.
    pub fn is_kept(&self, offset: u64) -> bool {
        self.ranges.iter().any(|range| range.contains(&offset))
    }

    /// Whether a part of the blob is there.
    pub fn is_begun(&self) -> bool {
        !self.ranges.is_empty()
    }

    /// The bytes of the blob, in order: from the partial download where it has them, else from the
    /// registry.
    pub fn stream<'a>(
        &'a self,
        session: &'a Session,
    ) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'a {
        let pieces = pieces(&self.ranges, self.task.blob.size);
        stream::iter(pieces).flat_map(move |piece| match piece {
            Piece::Kept(range) => self.read(session, range).boxed(),
            Piece::Missing(range) => self.download(range),
        })
    }

    fn download(&self, range: Range<u64>) -> BoxStream<'_, Result<Bytes, Error>> {
        let download = self.registry.download(BlobRange {
            repository: self.task.image.repository(),
            blob: &self.task.blob,
            range,
            keeper: &self.keeper,
            // It was slow or long before.
            keep_all: self.is_begun(),
        });
        download.map_err(Error::from).boxed()
    }

    fn read<'a>(
        &'a self,
        session: &'a Session,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'a {
        let blob = self.task.blob.digest;
        stream::try_unfold(range.start, move |start| async move {
            let end = range.end.min(start + READ_SIZE);
            if start == end {
                return Ok(None);
            }
            let partial = self.partial.clone();
            let read = session.store_layer(blob, move |_| {
                let file = reader(&partial)?;
                let mut bytes = vec![0; usize::try_from(end - start).unwrap_or_default()];
                file.read_exact_at(&mut bytes, start).map_err(LayerError::Source)?;
                Ok(Bytes::from(bytes))
            });
            Ok(Some((read.await?, end)))
        })
    }

    /// Removes what is kept of the blob: it is complete, or it is not the blob.
    ///
    /// # Errors
    /// [`Error::Store`] if it cannot be removed.
    pub async fn discard(self, session: &Session) -> Result<(), Error> {
        let Self { partial, keeper, writer, .. } = self;
        drop(keeper);
        // Without the keeper it ends when it has written what is queued.
        writer.await.map_err(|e| join_error(&e))?;
        let discard = session.store(move |_| {
            let partial = partial.lock().unwrap_or_else(PoisonError::into_inner).take();
            partial.map_or(Ok(()), |partial| Ok(partial.remove()?))
        });
        discard.await
    }
}

fn reader(partial: &Mutex<Option<Partial>>) -> Result<File, LayerError> {
    let partial = partial.lock().unwrap_or_else(PoisonError::into_inner);
    let gone = || std::io::Error::from(std::io::ErrorKind::NotFound);
    let reader = partial.as_ref().ok_or_else(gone).and_then(Partial::reader);
    reader.map_err(LayerError::Source)
}

/// Writes what arrives, from the first bytes on. If they cannot be written, the blob is not kept.
async fn write(
    session: Arc<Session>,
    task: LayerTask,
    lock: Option<Arc<ContentLock>>,
    partial: Arc<Mutex<Option<Partial>>>,
    mut kept: mpsc::Receiver<(u64, Bytes)>,
) {
    let Some(first) = kept.recv().await else { return };
    let work = session.store(move |store| {
        let (digest, size) = (task.blob.digest, task.blob.size);
        let has_lock = lock.is_some();
        let mut next = Some(first);
        while let Some((offset, bytes)) = next {
            let mut guard = partial.lock().unwrap_or_else(PoisonError::into_inner);
            if guard.is_none() {
                *guard = store.content().open_partial(&digest, size, has_lock)?;
            }
            let Some(partial) = guard.as_mut() else { return Ok(()) };
            if partial.write(offset, &bytes).is_err() {
                // A full disk needs the space for the layer itself.
                return guard.take().map_or(Ok(()), |partial| Ok(partial.remove()?));
            }
            drop(guard);
            next = kept.blocking_recv();
        }
        Ok(())
    });
    // The pull succeeds without it.
    let _ = work.await;
}

/// A piece of a blob.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    /// The partial download has it.
    Kept(Range<u64>),
    /// The registry has it.
    Missing(Range<u64>),
}

/// Divides a blob of `size` bytes by the `ranges` that are there, which are sorted and separate.
fn pieces(ranges: &[Range<u64>], size: u64) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut offset = 0;
    for range in ranges {
        if offset < range.start {
            pieces.push(Piece::Missing(offset..range.start));
        }
        pieces.push(Piece::Kept(range.clone()));
        offset = range.end;
    }
    // The registry is asked for an empty blob too: that it exists there is a part of the answer.
    if offset < size || size == 0 {
        pieces.push(Piece::Missing(offset..size));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blob_is_divided_into_what_is_there_and_what_is_missing() {
        use Piece::{Kept, Missing};
        assert_eq!(pieces(&[], 10), [Missing(0..10)]);
        assert_eq!(pieces(&[], 0), [Missing(0..0)]);
        assert_eq!(pieces(std::slice::from_ref(&(0..10)), 10), [Kept(0..10)]);
        let expected = [Missing(0..2), Kept(2..4), Missing(4..6), Kept(6..7), Missing(7..10)];
        assert_eq!(pieces(&[2..4, 6..7], 10), expected);
    }
}
