//! What all images of one command share.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{OnceCell, OwnedMutexGuard, Semaphore};

use super::gate::{StoreGate, WorkError};
use super::omissions::Omissions;
use super::options::{Options, Policy};
use super::recover::recover;
use super::states;
use super::task::LayerTask;
use super::threads::reserve_threads;
use super::unpacking::Unpacking;
use super::windows::Windows;
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::{BufferPool, OmissionReport};
use crate::oci::ChainId;
use crate::overlay::Abilities;
use crate::progress::{Event, Image, LayerState, Sender};
use crate::registry::Registry;
use crate::store::{Lock, Store, StoreError};

/// The layers for which threads are reserved, at most.
const MOST_RESERVED: usize = 32;

/// What all images of one command share.
pub struct Session {
    /// The registries.
    pub registry: Registry,
    /// The settings.
    pub options: Options,
    /// The receiver of events.
    pub events: Sender,
    /// The layers that are unpacked at a time.
    pub jobs: Semaphore,
    /// The buffers of all layers.
    pub buffers: BufferPool,
    /// The memory for zstd windows of all layers.
    pub windows: Windows,
    omissions: Omissions,
    gate: StoreGate,
    recovered: OnceCell<()>,
    accepted: OnceCell<()>,
    threads: OnceCell<()>,
    warned: Mutex<HashSet<(Option<Image>, String)>>,
    planned: Mutex<HashSet<Digest>>,
    commits: Mutex<HashMap<ChainId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Session {
    /// Creates the session of a command.
    pub fn new(store: Arc<Store>, registry: Registry, options: Options, events: Sender) -> Self {
        Self {
            registry,
            jobs: Semaphore::new(options.jobs.max(1)),
            windows: Windows::new(options.jobs.max(1)),
            options,
            buffers: BufferPool::default(),
            omissions: Omissions::default(),
            gate: StoreGate::new(store),
            recovered: OnceCell::new(),
            accepted: OnceCell::new(),
            threads: OnceCell::new(),
            warned: Mutex::default(),
            planned: Mutex::default(),
            commits: Mutex::default(),
            events: states::in_order(events),
        }
    }

    /// Runs `work` with the store on a blocking thread.
    ///
    /// # Errors
    /// The error of `work`; [`Error::Internal`] if it panics.
    pub async fn store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Error> {
        self.gate.run(work).await
    }

    /// Runs `work` on a layer with the store on a blocking thread. `blob` names the layer in
    /// errors.
    ///
    /// # Errors
    /// The error of `work`; [`Error::Internal`] if it panics.
    pub async fn store_layer<T: Send + 'static>(
        &self,
        blob: Digest,
        work: impl FnOnce(&Store) -> Result<T, WorkError> + Send + 'static,
    ) -> Result<T, Error> {
        self.gate.run_on_layer(blob, work).await
    }

    /// Verifies what an earlier boot left, once.
    ///
    /// # Errors
    /// [`Error::Store`] if the store cannot be read or repaired.
    pub async fn recover(&self) -> Result<(), Error> {
        let recover = || {
            let events = self.events.clone();
            self.store(move |store| {
                let on_wait = |what: &str| events.send(Event::Waiting { what: what.to_owned() });
                let on_drop =
                    |text: &str| events.send(Event::Warning { image: None, text: text.to_owned() });
                recover(store, &on_wait, &on_drop)
            })
        };
        self.recovered.get_or_try_init(recover).await.map(drop)
    }

    /// Refuses, once, the root of another image store, if the pull can add images and is not forced.
    ///
    /// # Errors
    /// [`StoreError::OtherStore`].
    pub async fn accept_root(&self) -> Result<(), Error> {
        let Options { force, dry_run, repair, .. } = &self.options;
        if *force || *dry_run || repair.is_some() {
            return Ok(());
        }
        let look = || self.store(Store::refuse_other_store);
        self.accepted.get_or_try_init(look).await.map(drop)
    }

    /// Makes the store ready to be written, and keeps removals away for the rest of the
    /// command: what is planned from now on stays true until it is written. Starts the threads
    /// that unpack layers.
    ///
    /// # Errors
    /// [`Error::Store`] if the root cannot be prepared or locked, [`Error::Threads`] if the system
    /// refuses threads.
    pub async fn begin_writing(&self) -> Result<(), Error> {
        let reserve = || async {
            reserve_threads(&Handle::current(), self.options.jobs.clamp(1, MOST_RESERVED))
        };
        self.threads.get_or_try_init(reserve).await?;
        self.gate.lock_to_write(|what| self.events.send(Event::Waiting { what })).await
    }

    /// Returns what this process may do with the files of layers: what was probed, or, before the
    /// command writes, what its capabilities promise.
    pub fn abilities(&self) -> Arc<Abilities> {
        self.gate.abilities().unwrap_or_else(|| Arc::new(Abilities::expected()))
    }

    /// Returns what unpacking a layer needs.
    pub fn unpacking(&self) -> Unpacking {
        let (limits, buffers) = (self.options.limits, self.buffers.clone());
        Unpacking { abilities: self.abilities(), limits, buffers }
    }

    /// Waits for the lock of a command that reads.
    ///
    /// # Errors
    /// [`Error::Store`] if the lock cannot be taken.
    pub async fn lock_to_read(&self) -> Result<Option<Lock>, Error> {
        self.wait(Store::attempt_to_read).await
    }

    /// Calls `attempt` until it returns a lock, and reports once what is waited for.
    ///
    /// # Errors
    /// The first error of `attempt`.
    pub async fn wait<T: Send + 'static>(
        &self,
        attempt: impl Fn(&Store) -> Result<Result<T, String>, StoreError> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        self.gate.wait(|what| self.events.send(Event::Waiting { what }), attempt).await
    }

    /// Waits for the right to commit `chain`: two images of the command may share it. Its holder
    /// never waits for another such right, so none can wait for each other in a circle.
    pub async fn lock_commit(&self, chain: ChainId) -> OwnedMutexGuard<()> {
        let commit = {
            let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
            commits.entry(chain).or_default().clone()
        };
        commit.lock_owned().await
    }

    /// Reports that a layer is in `state`, unless it is further already.
    pub fn report(&self, task: &LayerTask, state: LayerState) {
        let (image, layer) = (task.image.clone(), task.blob.digest);
        self.events.send(Event::Layer { image, layer, state });
    }

    /// Checks that the registry may be asked for `what`.
    ///
    /// # Errors
    /// [`Error::NotPresent`] if the policy forbids requests.
    pub fn may_request(&self, what: impl FnOnce() -> String) -> Result<(), Error> {
        match self.options.policy {
            Policy::Never => Err(Error::NotPresent(what())),
            Policy::Always | Policy::Missing => Ok(()),
        }
    }

    /// Whether a dry run reports `blob` for the first time: images that share it fetch it once.
    pub fn is_first_plan(&self, blob: Digest) -> bool {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).insert(blob)
    }

    /// Warns about `image`, once with the same text.
    pub fn warn(&self, image: &Image, text: String) {
        self.warn_once(Some(image), Some(image), text);
    }

    /// Warns about what several images can share, such as a layer, while `image` is pulled. The
    /// same text is reported once, whatever the image.
    pub fn warn_of_shared(&self, image: &Image, text: String) {
        self.warn_once(None, Some(image), text);
    }

    /// Warns about what belongs to no image, once with the same text.
    pub fn warn_of_any(&self, text: String) {
        self.warn_once(None, None, text);
    }

    /// Adds what a layer lacks that was unpacked, for the warnings of
    /// [`warn_of_omissions`](Self::warn_of_omissions). Sends its other warnings at once.
    pub fn add_omissions(&self, mut layer: OmissionReport) {
        std::mem::take(&mut layer.warnings).into_iter().for_each(|text| self.warn_of_any(text));
        self.omissions.add(layer);
    }

    /// Warns of what all layers lack that were unpacked, in one line per kind.
    pub fn warn_of_omissions(&self) {
        let warnings = self.omissions.warnings(&self.abilities());
        warnings.into_iter().for_each(|text| self.warn_of_any(text));
    }

    fn warn_once(&self, about: Option<&Image>, image: Option<&Image>, text: String) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.insert((about.cloned(), text.clone())) {
            self.events.send(Event::Warning { image: image.cloned(), text });
        }
    }
}
