//! Layers whose files the store has: copied to another chain, or verified.

use std::sync::Arc;

use super::files::{open_diff, verify};
use super::session::Session;
use super::task::{LayerTask, ReadyLayer};
use super::unpack::unpack_tar;
use crate::error::Error;
use crate::fsutil;
use crate::layer::{LayerError, TarAssembler};
use crate::oci::DiffId;
use crate::progress::LayerState;
use crate::store::LayerRecord;

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
        let from = open_diff(&store.layers().diff_path(&record))?;
        let tar_split = store.layers().tar_split(&record.chain)?;
        unpack_tar(&shared, store, fsutil::buffers(TarAssembler::new(tar_split, &from)))
    });
    work.await
}

/// Whether the files of a committed layer have its diff id: its tar is reassembled and hashed.
///
/// # Errors
/// [`Error::Store`] if its record cannot be read.
pub async fn is_intact(session: &Session, record: &LayerRecord) -> Result<bool, Error> {
    let record = record.clone();
    let blob = record.diff_id.digest();
    let verified = session.store_layer(blob, move |store| verify(store, &record));
    match verified.await {
        Ok(()) => Ok(true),
        Err(Error::Layer { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}
