//! Layers whose files the store has, copied to another chain.

use std::sync::Arc;

use super::files::open_diff;
use super::gate::WorkError;
use super::session::Session;
use super::task::{LayerTask, ReadyLayer};
use super::unpack::ready;
use super::unpacking::{Content, UnpackedLayer, Unpacking};
use crate::error::Error;
use crate::fsutil;
use crate::layer::{LayerError, TarAssembler};
use crate::oci::DiffId;
use crate::progress::LayerState;
use crate::store::{LayerRecord, Store};

/// Stages a copy of one of `records`, which have `diff_id` in other chains; `None` if all of them
/// are damaged.
///
/// # Errors
/// [`Error`] if the copy cannot be written.
pub async fn copy_any(
    session: &Arc<Session>,
    task: &LayerTask,
    diff_id: DiffId,
    records: Vec<LayerRecord>,
) -> Result<Option<ReadyLayer>, Error> {
    for record in records {
        session.report(task, LayerState::Copying);
        match copy(session, record).await {
            Ok(layer) if layer.diff_id == diff_id => return Ok(Some(layer)),
            Ok(_)
            | Err(Error::Layer {
                source:
                    LayerError::Damaged { .. } | LayerError::Open { .. } | LayerError::TarSplit(_),
                ..
            }) => session.warn_of_shared(
                &task.image,
                format!(
                    "the stored copy of layer {} is damaged; fetching it again",
                    diff_id.short()
                ),
            ),
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// Stages a copy of `record`: its tar is reassembled and unpacked, which verifies it as well.
async fn copy(session: &Arc<Session>, record: LayerRecord) -> Result<ReadyLayer, Error> {
    let shared = session.clone();
    let work = session.store_layer(record.diff_id.digest(), move |store| {
        Ok(ready(&shared, stage_copy(&shared.unpacking(), store, &record)?))
    });
    work.await
}

/// Stages a copy of `record`. The caller holds the store lock.
///
/// # Errors
/// [`WorkError`] if its files are damaged, or if the copy cannot be written.
pub fn stage_copy(
    unpacking: &Unpacking,
    store: &Store,
    record: &LayerRecord,
) -> Result<UnpackedLayer, WorkError> {
    let from = open_diff(&store.layers().diff_path(record))?;
    let tar_split = store.layers().tar_split(&record.chain)?;
    let tar = fsutil::buffers(TarAssembler::new(tar_split, &from));
    unpacking.stage(store, tar, Content::tar())
}
