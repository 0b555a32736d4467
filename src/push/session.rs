//! What all images of one push share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::Options;
use crate::digest::Digest;
use crate::error::Error;
use crate::fsutil;
use crate::oci::{Descriptor, DiffId, ImageId};
use crate::progress::{Event, Image, PushState, Sender, upload_meter};
use crate::pull::{self, StoreGate};
use crate::registry::Registry;
use crate::store::{Lock, Store, StoreError};

/// What all images of one push share.
pub struct Session {
    /// The registries.
    pub registry: Registry,
    /// The settings.
    pub options: Options,
    /// The receiver of events.
    pub events: Sender,
    /// The store.
    pub gate: StoreGate,
    /// Whether this process may write records into the store.
    records: bool,
    /// Keeps removals away. With `records`, the gate has a lock that does.
    _lock: Option<Lock>,
    pushed: Mutex<HashMap<(DiffId, String), Descriptor>>,
}

impl Session {
    /// Begins a push from `store`. Its images cannot be removed before the push has ended.
    ///
    /// A push writes records that save the next one uploads. In a root that this process must not
    /// change, it only reads: dockerd uses it, or another user owns it.
    ///
    /// # Errors
    /// [`Error::Store`] if there is no store or it cannot be locked.
    pub async fn begin(
        store: Arc<Store>,
        registry: Registry,
        options: Options,
        events: Sender,
    ) -> Result<Arc<Self>, Error> {
        let gate = StoreGate::new(store);
        let on_wait = |what: String| events.send(Event::Waiting { what });
        let reports = events.clone();
        let recover = move |store: &Store| {
            store.must_exist()?;
            let on_wait = |what: &str| reports.send(Event::Waiting { what: what.to_owned() });
            let on_drop =
                |text: &str| reports.send(Event::Warning { image: None, text: text.to_owned() });
            pull::recover(store, &on_wait, &on_drop)
        };
        gate.run(recover).await?;
        let (records, lock) = match gate.lock_to_write(on_wait).await {
            Ok(()) => (true, None),
            Err(e) if only_reads(&e) => {
                tracing::info!("nothing is recorded in the store: {e}");
                (false, gate.wait(on_wait, Store::attempt_to_read).await?)
            }
            Err(e) => return Err(e),
        };
        let pushed = Mutex::default();
        Ok(Arc::new(Self { registry, options, events, gate, records, _lock: lock, pushed }))
    }

    /// Reports that a layer is in `state`.
    pub fn report(&self, image: &Image, layer: DiffId, state: PushState) {
        self.events.send(Event::Push { image: image.clone(), layer: layer.digest(), state });
    }

    /// Returns what receives the number of bytes of a layer that were sent, of about `total`.
    pub fn meter(
        &self,
        image: &Image,
        layer: DiffId,
        total: u64,
    ) -> Box<dyn Fn(u64) + Send + Sync> {
        upload_meter(self.events.clone(), image.clone(), layer.digest(), total)
    }

    /// Returns the blob of a layer that this command pushed to the repository before.
    pub fn known(&self, image: &Image, layer: DiffId) -> Option<Descriptor> {
        let key = (layer, image.repository().canonical());
        self.pushed.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    /// Records that the repository of `image` has the layer as `blob`.
    pub async fn record_layer(&self, image: &Image, layer: DiffId, blob: &Descriptor) {
        let key = (layer, image.repository().canonical());
        let known = blob.clone();
        self.pushed.lock().unwrap_or_else(PoisonError::into_inner).insert(key, known);
        let (repository, digest) = (image.repository().clone(), blob.digest);
        self.record(image, move |store| store.distribution().record(&digest, &layer, &repository))
            .await;
    }

    /// Records the digest that the image has at the registry, as dockerd does.
    pub async fn record_image(
        &self,
        image: &Image,
        id: ImageId,
        (media_type, bytes): (String, Bytes),
    ) {
        let reference = image.clone();
        self.record(image, move |store| {
            let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
            store.content().put(&digest, &bytes)?;
            let top = Descriptor {
                media_type,
                digest,
                size,
                platform: None,
                urls: Vec::new(),
                annotations: Default::default(),
            };
            store.content().add_names(&top, std::slice::from_ref(&reference))?;
            store.names().update(|names| names.set(&reference.with_digest(digest), id))?;
            Ok(())
        })
        .await;
    }

    /// Writes records. The push does not fail if they cannot be written.
    async fn record(
        &self,
        image: &Image,
        write: impl FnOnce(&Store) -> Result<(), StoreError> + Send + 'static,
    ) {
        if self.records
            && let Err(e) = self.gate.run(write).await
        {
            let text = format!("what was pushed is not recorded: {e}");
            self.warn(image, text);
        }
    }

    /// Warns about `image`.
    pub fn warn(&self, image: &Image, text: String) {
        self.events.send(Event::Warning { image: Some(image.clone()), text });
    }
}

/// Whether the root can only be read.
fn only_reads(error: &Error) -> bool {
    match error {
        Error::Store(StoreError::Dockerd { .. }) => true,
        Error::Store(StoreError::Fs(e)) => fsutil::is_read_only(&e.source),
        _ => false,
    }
}
