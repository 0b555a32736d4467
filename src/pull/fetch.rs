//! Stages a layer from its blob, which comes from the content store or from the registry.

use std::sync::Arc;

use futures::TryStreamExt;

use super::bridge;
use super::gate::join_error;
use super::kept_blobs::{self, BlobWriter, KeptBlob};
use super::session::Session;
use super::task::{LayerTask, ReadyLayer};
use super::unpack::unpack_blob;
use crate::error::Error;
use crate::progress::{Meter, Phase};

/// Stages a layer from its blob. A blob that the content store has is read from there.
///
/// # Errors
/// [`Error::Registry`] if the blob cannot be fetched, [`Error::Layer`] if it is invalid or cannot
/// be written.
pub async fn fetch(session: &Arc<Session>, task: &LayerTask) -> Result<ReadyLayer, Error> {
    let lock = match kept_blobs::stage(session, task).await? {
        KeptBlob::Staged(layer) => return Ok(layer),
        KeptBlob::Missing(lock) => lock,
    };
    let (writer, reader) = bridge::channel();
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
    let mut meter = Meter::new(events, task.image.clone(), digest, Phase::Download, size);
    let blob = task.registry.download(task.image.repository(), &task.blob);
    let downloaded = writer.send_all(blob.inspect_ok(|bytes| meter.add(bytes.len() as u64))).await;
    let unpacked = unpacking.await.map_err(|e| join_error(&e))?;
    // If the download failed, the unpacker was cancelled by that.
    downloaded?;
    unpacked
}
