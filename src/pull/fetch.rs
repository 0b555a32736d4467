//! Stages a layer from its blob, which comes from the content store, a registry or an archive, or
//! only keeps the blob.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;

use super::archived;
use super::bridge;
use super::gate::{WorkError, join_error};
use super::kept_blobs::{self, BlobWriter, KeptBlob};
use super::resume::Resumable;
use super::session::Session;
use super::source::Source;
use super::task::{LayerTask, ReadyLayer};
use super::unpack::unpack_blob;
use crate::error::Error;
use crate::fsutil;
use crate::progress::{LayerState, Meter, Phase, Sender};
use crate::registry::Registry;
use crate::store::{ContentLock, Store};

/// Stages a layer from its blob. A blob that the content store has is read from there, and what
/// an earlier process downloaded of it is used.
///
/// # Errors
/// [`Error::Registry`] if the blob cannot be fetched, [`Error::Layer`] if it is invalid or cannot
/// be written.
pub async fn fetch(session: &Arc<Session>, task: &LayerTask) -> Result<ReadyLayer, Error> {
    let lock = match kept_blobs::stage(session, task).await? {
        KeptBlob::Staged(layer) => return Ok(layer),
        KeptBlob::Missing(lock) => lock.map(Arc::new),
    };
    session.report(task, LayerState::Downloading);
    let kept = lock.clone();
    let unpack: Work<ReadyLayer> = Arc::new(move |session, store, task, reader| {
        let Some(mut kept) = BlobWriter::new(store, task, kept.clone())? else {
            return unpack_blob(session, store, task, reader);
        };
        let source = reader.map(|read| kept.write(read?));
        let layer = unpack_blob(session, store, task, source)?;
        kept.commit()?;
        Ok(layer)
    });
    obtain(session, task, (session.events.clone(), lock), unpack).await
}

/// Fetches a blob into the content store without unpacking it. Sends the progress if it `is_shown`.
///
/// # Errors
/// [`Error::Registry`] if the blob cannot be fetched, [`Error::Layer`] if it is invalid or cannot
/// be written.
pub async fn keep(
    session: &Arc<Session>,
    task: &LayerTask,
    lock: Arc<ContentLock>,
    is_shown: bool,
) -> Result<(), Error> {
    let kept = lock.clone();
    let write: Work<()> = Arc::new(move |_, store, task, reader| {
        let writer = BlobWriter::new(store, task, Some(kept.clone()))?;
        writer.map_or(Ok(()), |writer| writer.write_all(&task.blob, reader))
    });
    let events = if is_shown { session.events.clone() } else { Sender::none() };
    obtain(session, task, (events, Some(lock)), write).await
}

/// The bytes of a blob, from any source.
type BlobBuffers = Box<dyn Iterator<Item = io::Result<Bytes>> + Send>;

/// What is done with the bytes of a blob, on a blocking thread.
type Work<T> =
    Arc<dyn Fn(&Session, &Store, &LayerTask, BlobBuffers) -> Result<T, WorkError> + Send + Sync>;

/// Does `work` with a blob of a registry or an archive.
async fn obtain<T: Send + 'static>(
    session: &Arc<Session>,
    task: &LayerTask,
    (events, lock): (Sender, Option<Arc<ContentLock>>),
    work: Work<T>,
) -> Result<T, Error> {
    let archive = match &task.source {
        Source::Registry(registry) => {
            return fetch_blob(session, (task, registry), (events, lock), work).await;
        }
        Source::Archive(archive) => archive,
    };
    let blob = archived::blob(session, archive, task.blob.digest).await?;
    let (shared, task) = (session.clone(), task.clone());
    let working = session.store_layer(task.blob.digest, move |store| {
        work(&shared, store, &task, Box::new(fsutil::buffers(blob.reader())))
    });
    working.await
}

/// Fetches a blob for `work`, and again from its beginning if a partial download is damaged.
async fn fetch_blob<T: Send + 'static>(
    session: &Arc<Session>,
    from: (&LayerTask, &Registry),
    (events, lock): (Sender, Option<Arc<ContentLock>>),
    work: Work<T>,
) -> Result<T, Error> {
    let (task, _) = from;
    session.may_request(|| format!("layer {} of {}", task.blob.digest.short(), task.image))?;
    let resumable = Resumable::open(session, from, lock.clone()).await?;
    let resumed = resumable.is_begun();
    match download(session, task, resumable, (&events, work.clone())).await {
        Err(Error::Layer { source, .. }) if resumed && source.is_of_content() => {
            let digest = task.blob.digest.short();
            let text =
                format!("the partial download of layer {digest} is damaged; fetching it again");
            session.warn_of_shared(&task.image, text);
            let resumable = Resumable::open(session, from, lock).await?;
            download(session, task, resumable, (&events, work)).await
        }
        result => result,
    }
}

/// Downloads what is missing of a blob for `work`. What was kept of it is discarded if the
/// blob is complete or invalid, and stays for the next pull otherwise.
async fn download<T: Send + 'static>(
    session: &Arc<Session>,
    task: &LayerTask,
    resumable: Resumable,
    (events, work): (&Sender, Work<T>),
) -> Result<T, Error> {
    let (sender, reader) = bridge::channel();
    let (shared, used) = (session.clone(), task.clone());
    let working = tokio::spawn(async move {
        let (inner, digest) = (shared.clone(), used.blob.digest);
        shared.store_layer(digest, move |store| work(&inner, store, &used, Box::new(reader))).await
    });
    let (digest, size) = (task.blob.digest, task.blob.size);
    let meter = Meter::new(events.clone(), task.image.clone(), digest, Phase::Download, size);
    let (mut meter, mut offset) = (meter.starting_at(resumable.kept()), 0);
    let blob = resumable.stream(session).inspect_ok(|bytes| {
        let length = bytes.len() as u64;
        if !resumable.is_kept(offset) {
            meter.add(length);
        }
        offset += length;
    });
    let downloaded = sender.send_all(blob).await;
    let worked = working.await.map_err(|e| join_error(&e))?;
    // If the download failed, the work was cancelled by that.
    let result = downloaded.and(worked);
    let is_final = match &result {
        Ok(_) => true,
        Err(Error::Layer { source, .. }) => source.is_of_content(),
        Err(_) => false,
    };
    if is_final {
        resumable.discard(session).await?;
    }
    result
}
