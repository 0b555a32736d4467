//! Stages one layer: fetches it, or copies it from what the store has, and unpacks it into a
//! directory that nothing refers to yet.
//!
//! A layer's files do not depend on the layers below it, so all layers are staged at once, as
//! many at a time as there are jobs. Each blob is fetched once, however many images of the
//! command and however many processes need it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, SemaphorePermit};
use tracing::Instrument;

use super::copy;
use super::fetch;
use super::session::Session;
use super::task::{LayerTask, ReadyLayer};
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::LayerError;
use crate::oci::DiffId;
use crate::progress::LayerState;
use crate::store::{LayerRecord, Store, StoreError};

/// The layers that a command stages, one per blob. Cheap to clone.
#[derive(Clone)]
pub struct Stager {
    session: Arc<Session>,
    layers: Arc<Mutex<HashMap<Digest, Arc<StagedOnce>>>>,
}

/// A layer that is staged by the first task that needs it.
type StagedOnce = OnceCell<Arc<ReadyLayer>>;

/// Where a layer can come from without the registry.
enum Stored {
    /// Nowhere.
    Nowhere,
    /// It is staged or committed, and can be used as it is.
    Ready(DiffId),
    /// It is committed in other chains.
    Elsewhere(DiffId, Vec<LayerRecord>),
}

impl Stager {
    /// Creates the stager of a command.
    pub fn new(session: Arc<Session>) -> Self {
        Self { session, layers: Arc::default() }
    }

    /// Stages a layer, or waits for the image of this command that does.
    ///
    /// # Errors
    /// [`Error`] if the layer cannot be fetched, is invalid or cannot be written.
    pub async fn stage(&self, task: LayerTask) -> Result<Arc<ReadyLayer>, Error> {
        let cell = {
            let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
            layers.entry(task.blob.digest).or_default().clone()
        };
        // If the image that stages it is cancelled, the next one that waits begins anew.
        cell.get_or_try_init(|| self.stage_anew(&task)).await.cloned()
    }

    /// Stages a layer, whatever was staged before.
    ///
    /// # Errors
    /// As [`Self::stage`].
    pub async fn stage_anew(&self, task: &LayerTask) -> Result<Arc<ReadyLayer>, Error> {
        let (session, digest) = (&self.session, task.blob.digest);
        let lock = move |store: &Store| store.try_lock_layer(&digest);
        let (_job, _lock) = loop {
            let job = self.job(task).await?;
            match session.store(lock).await? {
                Ok(lock) => break (job, lock),
                // Waiting for another process must not take a job from a layer of this one.
                Err(_) => drop(job),
            }
            drop(session.wait(lock).await?);
        };
        match self.stored(task).await? {
            Stored::Nowhere => {}
            Stored::Ready(diff_id) => {
                tracing::info!("layer {}: another process has staged it", digest.short());
                return Ok(Arc::new(ReadyLayer::staged_elsewhere(diff_id)));
            }
            Stored::Elsewhere(diff_id, records) => {
                tracing::info!("layer {}: copied from another chain", digest.short());
                if let Some(layer) = copy::copy_any(session, task, diff_id, records).await? {
                    return Ok(Arc::new(layer));
                }
            }
        }
        let span = tracing::debug_span!("fetch", image = %task.image, layer = %digest.short());
        let layer = self.fetch(task).instrument(span).await?;
        session.report(task, LayerState::DownloadComplete);
        Ok(Arc::new(layer))
    }

    /// Fetches and unpacks a layer, again when there is memory for its zstd window.
    async fn fetch(&self, task: &LayerTask) -> Result<ReadyLayer, Error> {
        let mut task = task.clone();
        loop {
            let needed = match fetch::fetch(&self.session, &task).await {
                Err(Error::Layer { source: LayerError::WindowInUse(bytes), .. }) => bytes,
                result => return result,
            };
            // The download ended, so this layer keeps nothing that another one can need.
            let window = self.session.windows.acquire(needed, task.window.take()).await?;
            task.window = Some(window);
        }
    }

    /// Removes what was staged and not committed, and waits for that: all images are done.
    pub async fn close(&self) {
        let layers =
            std::mem::take(&mut *self.layers.lock().unwrap_or_else(PoisonError::into_inner));
        let close = self.session.store(move |_| {
            let layers = layers.into_values().filter_map(Arc::into_inner);
            let layers = layers.filter_map(OnceCell::into_inner).filter_map(Arc::into_inner);
            layers.for_each(ReadyLayer::discard);
            Ok(())
        });
        // Only a panic of a removal ends here; the journal has the rest.
        let _ = close.await;
    }

    async fn job(&self, task: &LayerTask) -> Result<SemaphorePermit<'_>, Error> {
        match self.session.jobs.try_acquire() {
            Ok(job) => Ok(job),
            Err(_) => {
                self.session.report(task, LayerState::Waiting);
                self.session.jobs.acquire().await.map_err(|_| Error::Interrupted)
            }
        }
    }

    /// Looks for the layer in the store. The caller holds the lock of its blob, so no process is
    /// fetching it now.
    async fn stored(&self, task: &LayerTask) -> Result<Stored, Error> {
        let task = task.clone();
        self.session.store(move |store| stored(store, &task)).await
    }
}

fn stored(store: &Store, task: &LayerTask) -> Result<Stored, StoreError> {
    let usable = |record: &LayerRecord| task.broken.as_ref() != Some(&record.cache_id);
    let layers = store.layers();
    let Some((diff_id, chain)) = task.place else {
        // It was not known before: if it is now, another process fetched it meanwhile.
        let known = match layers.staged_blob(&task.blob.digest)? {
            Some(diff_id) => Some(diff_id),
            None => store.distribution().diff_id(&task.blob.digest)?,
        };
        return Ok(known.map_or(Stored::Nowhere, Stored::Ready));
    };
    if layers.is_staged(&diff_id)? || layers.get(&chain)?.is_some_and(|it| usable(&it)) {
        return Ok(Stored::Ready(diff_id));
    }
    layers.refresh();
    let mut records = layers.by_diff_id(&diff_id)?;
    records.retain(usable);
    // Its content is right.
    records.extend(task.unprivileged.clone());
    Ok(match records.is_empty() {
        true => Stored::Nowhere,
        false => Stored::Elsewhere(diff_id, records),
    })
}
