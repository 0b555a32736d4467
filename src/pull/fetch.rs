//! Stages a layer from its blob, which comes from the content store or from the registry.

use std::sync::Arc;

use futures::TryStreamExt;

use super::bridge;
use super::gate::join_error;
use super::kept_blobs::{self, BlobWriter, KeptBlob};
use super::resume::Resumable;
use super::session::Session;
use super::task::{LayerTask, ReadyLayer};
use super::unpack::unpack_blob;
use crate::error::Error;
use crate::progress::{LayerState, Meter, Phase};
use crate::store::ContentLock;

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
    let resumable = Resumable::open(session, task, lock.clone()).await?;
    let resumed = resumable.is_begun();
    match download(session, task, resumable, lock.clone()).await {
        Err(Error::Layer { source, .. }) if resumed && source.is_of_content() => {
            let digest = task.blob.digest.short();
            let text =
                format!("the partial download of layer {digest} is damaged; fetching it again");
            session.warn_of_shared(&task.image, text);
            let resumable = Resumable::open(session, task, lock.clone()).await?;
            download(session, task, resumable, lock).await
        }
        result => result,
    }
}

/// Downloads what is missing of a blob and unpacks it. What was kept of it is discarded if the
/// blob is complete or invalid, and stays for the next pull otherwise.
async fn download(
    session: &Arc<Session>,
    task: &LayerTask,
    resumable: Resumable,
    lock: Option<Arc<ContentLock>>,
) -> Result<ReadyLayer, Error> {
    let (sender, reader) = bridge::channel();
    let (shared, unpacked) = (session.clone(), task.clone());
    let unpacking = tokio::spawn(async move {
        let (inner, digest) = (shared.clone(), unpacked.blob.digest);
        let work = shared.store_layer(digest, move |store| {
            let Some(mut kept) = BlobWriter::new(store, &unpacked, lock)? else {
                return unpack_blob(&inner, store, &unpacked, reader);
            };
            let source = reader.map(|read| kept.write(read?));
            let layer = unpack_blob(&inner, store, &unpacked, source)?;
            kept.commit()?;
            Ok(layer)
        });
        work.await
    });
    let (events, digest, size) = (session.events.clone(), task.blob.digest, task.blob.size);
    let meter = Meter::new(events, task.image.clone(), digest, Phase::Download, size);
    let (mut meter, mut offset) = (meter.starting_at(resumable.kept()), 0);
    let blob = resumable.stream(session).inspect_ok(|bytes| {
        let length = bytes.len() as u64;
        if !resumable.is_kept(offset) {
            meter.add(length);
        }
        offset += length;
    });
    let downloaded = sender.send_all(blob).await;
    let unpacked = unpacking.await.map_err(|e| join_error(&e))?;
    // If the download failed, the unpacker was cancelled by that.
    let layer = downloaded.and(unpacked);
    let is_final = match &layer {
        Ok(_) => true,
        Err(Error::Layer { source, .. }) => source.is_of_content(),
        Err(_) => false,
    };
    if is_final {
        resumable.discard(session).await?;
    }
    layer
}
