//! One layer: fetched, or copied from what is there, and unpacked into a directory that
//! nothing refers to yet.
//!
//! A layer's files do not depend on what is below it, so all layers are obtained at once,
//! as many at a time as there are jobs. Each blob is fetched once, however many images of the
//! command and however many processes need it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, Semaphore};

use super::blocking::{Failure, blocking, run};
use super::fetch;
use super::lanes::LANES;
use super::options::Options;
use super::resolve::Found;
use super::states::States;
use crate::digest::Digest;
use crate::error::Error;
use crate::fsutil::{self, Runs};
use crate::layer::{self, BlobSpec, BufferPool, Job, LayerError, Owners, TarAssembler, Unpacked};
use crate::oci::{ChainId, Descriptor, DiffId};
use crate::overlay::{CacheId, DiffDir, XattrSpace};
use crate::progress::{Event, Image, LayerState, Meter, Phase, Sender};
use crate::registry::Registry;
use crate::store::{self, LayerRecord, Lock, Mode, Staged, Store, StoreError};

/// A layer that is staged or committed.
pub struct Obtained {
    /// What it unpacks to.
    pub diff_id: DiffId,
    /// Its directory, if this process staged it. Dropped before it is committed, it is removed.
    pub staged: Option<Staged>,
}

/// A layer that an image needs.
#[derive(Clone)]
pub struct Want {
    /// The image.
    pub image: Image,
    /// Its registry.
    pub registry: Registry,
    /// The blob.
    pub blob: Descriptor,
    /// What it must unpack to and the stack up to it, once the config is known.
    pub place: Option<(DiffId, ChainId)>,
    /// A directory of the layer that is known to be damaged.
    pub broken: Option<CacheId>,
}

impl Want {
    /// A layer of the manifest that was found for `image`.
    pub fn new(
        image: &Image,
        found: &Found,
        blob: &Descriptor,
        place: Option<(DiffId, ChainId)>,
    ) -> Self {
        let (image, registry, blob) = (image.clone(), found.registry.clone(), blob.clone());
        Self { image, registry, blob, place, broken: None }
    }
}

/// Where a layer can be had without the registry.
enum Stored {
    /// Nowhere.
    Nowhere,
    /// It is staged or committed, and can be used as it is.
    Ready(DiffId),
    /// It is committed under other chains.
    Elsewhere(DiffId, Vec<LayerRecord>),
}

/// The layers of one command; cheap to clone.
#[derive(Clone)]
pub struct Layers(Arc<Shared>);

struct Shared {
    store: Arc<Store>,
    options: Options,
    events: Sender,
    states: States,
    jobs: Semaphore,
    lanes: Semaphore,
    cells: Mutex<HashMap<Digest, Arc<OnceCell<Arc<Obtained>>>>>,
    writing: OnceCell<Lock>,
    pool: BufferPool,
    turns: Mutex<HashMap<ChainId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Layers {
    /// Nothing obtained yet.
    pub fn new(store: Arc<Store>, options: &Options, events: Sender) -> Self {
        Self(Arc::new(Shared {
            store,
            states: States::new(events.clone()),
            jobs: Semaphore::new(options.jobs.max(1)),
            lanes: Semaphore::new(LANES),
            options: options.clone(),
            events,
            cells: Mutex::default(),
            writing: OnceCell::new(),
            pool: BufferPool::default(),
            turns: Mutex::default(),
        }))
    }

    /// Makes the store ready to be written, and keeps removals away for the rest of the
    /// command: what is planned from now on stays true until it is written.
    pub async fn begin_writing(&self) -> Result<(), Error> {
        let lock = || async {
            if Owners::of_this_process() == Owners::Single {
                let text =
                    "not running as root: this user owns all files, and devices are left out"
                        .to_owned();
                self.0.events.send(Event::Warning { image: None, text });
            }
            let store = self.0.store.clone();
            let entrance = blocking(move || store.entrance(Mode::Shared)).await?;
            let entrance = Arc::new(Mutex::new(entrance));
            let lock = self
                .wait(move || entrance.lock().unwrap_or_else(PoisonError::into_inner).attempt())
                .await?;
            let store = self.0.store.clone();
            blocking(move || store.sweep()).await?;
            Ok(lock)
        };
        self.0.writing.get_or_try_init(lock).await.map(drop)
    }

    /// Waits for the lock of a command that reads.
    pub async fn lock_to_read(&self) -> Result<Option<Lock>, Error> {
        let store = self.0.store.clone();
        self.wait(move || store.attempt_to_read()).await
    }

    /// Calls `attempt` until it gives what it is for, and tells once what is waited for. It
    /// waits asynchronously, so that the command can be interrupted.
    pub async fn wait<T: Send + 'static>(
        &self,
        attempt: impl Fn() -> Result<Result<T, String>, StoreError> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        let mut told = false;
        loop {
            match blocking(attempt.clone()).await? {
                Ok(lock) => return Ok(lock),
                Err(what) if !told => {
                    self.0.events.send(Event::Waiting { what });
                    told = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(store::POLL).await;
        }
    }

    /// Obtains a layer, or waits for the image of this command that does.
    pub async fn obtain(&self, want: Want) -> Result<Arc<Obtained>, Error> {
        let cell = {
            let mut cells = self.0.cells.lock().unwrap_or_else(PoisonError::into_inner);
            cells.entry(want.blob.digest).or_default().clone()
        };
        // If the one that obtains it is cancelled, the next that waits begins anew.
        cell.get_or_try_init(|| self.obtain_anew(&want)).await.cloned()
    }

    /// Obtains a layer, whatever was obtained before.
    pub async fn obtain_anew(&self, want: &Want) -> Result<Arc<Obtained>, Error> {
        // A job is one layer at work. Waiting for another process must not take one.
        let (_job, _lock) = loop {
            let job = self.job(want).await?;
            let (store, digest) = (self.0.store.clone(), want.blob.digest);
            match blocking(move || store.try_lock_layer(&digest)).await? {
                Ok(lock) => break (job, lock),
                Err(_) => drop(job),
            }
            let (store, digest) = (self.0.store.clone(), want.blob.digest);
            drop(self.wait(move || store.try_lock_layer(&digest)).await?);
        };
        match self.stored(want).await? {
            Stored::Nowhere => {}
            Stored::Ready(diff_id) => return Ok(Arc::new(Obtained { diff_id, staged: None })),
            Stored::Elsewhere(diff_id, records) => {
                if let Some(obtained) = self.copy(want, diff_id, records).await? {
                    return Ok(obtained);
                }
            }
        }
        self.say(want, LayerState::Downloading);
        let obtained = fetch::fetch(self, want).await?;
        self.say(want, LayerState::DownloadComplete);
        Ok(obtained)
    }

    async fn job(&self, want: &Want) -> Result<tokio::sync::SemaphorePermit<'_>, Error> {
        match self.0.jobs.try_acquire() {
            Ok(job) => Ok(job),
            Err(_) => {
                self.say(want, LayerState::Waiting);
                self.0.jobs.acquire().await.map_err(|_| Error::Interrupted)
            }
        }
    }

    /// Looks for the layer in the store. The caller holds its lock, so no process is just
    /// fetching it.
    async fn stored(&self, want: &Want) -> Result<Stored, Error> {
        let (store, blob, place) = (self.0.store.clone(), want.blob.digest, want.place);
        let broken = want.broken.clone();
        blocking(move || {
            let usable = |record: &LayerRecord| broken.as_ref() != Some(&record.cache_id);
            let layers = store.layers();
            let Some((diff_id, chain)) = place else {
                // It was not known before: if it is now, another process fetched it meanwhile.
                let known = match layers.staged_blob(&blob)? {
                    Some(diff_id) => Some(diff_id),
                    None => store.distribution().diff_id(&blob)?,
                };
                return Ok(known.map_or(Stored::Nowhere, Stored::Ready));
            };
            if layers.is_staged(&diff_id)? || layers.get(&chain)?.is_some_and(|it| usable(&it)) {
                return Ok(Stored::Ready(diff_id));
            }
            layers.refresh();
            let mut records = layers.by_diff_id(&diff_id)?;
            records.retain(usable);
            Ok(match records.is_empty() {
                true => Stored::Nowhere,
                false => Stored::Elsewhere(diff_id, records),
            })
        })
        .await
    }

    /// The layer from one of `records`, which the store has under other chains, if one of them
    /// is whole.
    async fn copy(
        &self,
        want: &Want,
        diff_id: DiffId,
        records: Vec<LayerRecord>,
    ) -> Result<Option<Arc<Obtained>>, Error> {
        for record in records {
            self.say(want, LayerState::Copying);
            match self.copy_of(record).await {
                Ok(obtained) if obtained.diff_id == diff_id => return Ok(Some(Arc::new(obtained))),
                Ok(_)
                | Err(Error::Layer {
                    source:
                        LayerError::Damaged { .. } | LayerError::Open { .. } | LayerError::TarSplit(_),
                    ..
                }) => {
                    let text = format!(
                        "the stored copy of layer {} is damaged; fetching it again",
                        diff_id.short()
                    );
                    self.0.events.send(Event::Warning { image: Some(want.image.clone()), text });
                }
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// A new directory with the content of `record`: its tar is put together again and
    /// unpacked, which verifies it as well.
    async fn copy_of(&self, record: LayerRecord) -> Result<Obtained, Error> {
        let shared = self.0.clone();
        let named = record.diff_id.digest();
        run(named, move || {
            let from = open(&shared.store.layers().diff_path(&record))?;
            let tar_split = shared.store.layers().tar_split(&record.chain)?;
            shared.unpack(fsutil::runs(TarAssembler::new(tar_split, &from)), None, None)
        })
        .await
    }

    /// Whether the files of a committed layer are what its record says: its tar is put together
    /// again and hashed.
    pub async fn is_intact(&self, record: &LayerRecord) -> Result<bool, Error> {
        let (shared, record) = (self.0.clone(), record.clone());
        let verified = run(record.diff_id.digest(), move || {
            let from = open(&shared.store.layers().diff_path(&record))?;
            let tar_split = shared.store.layers().tar_split(&record.chain)?;
            Ok(layer::verify(tar_split, &from, record.diff_id)?)
        });
        match verified.await {
            Ok(()) => Ok(true),
            Err(Error::Layer { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Unpacks `source`, which blocks; `want` tells what it must be.
    pub fn unpack(&self, want: &Want, source: impl Runs + Send) -> Result<Obtained, Failure> {
        let (digest, size) = (want.blob.digest, want.blob.size);
        let meter =
            Meter::new(self.0.events.clone(), want.image.clone(), digest, Phase::Unpack, size);
        self.0.unpack(source, Some(BlobSpec { digest, size }), Some(meter))
    }

    /// The right to commit `chain`: two images of the command may share it. Its holder never
    /// waits for another turn, so turns cannot wait for each other in a circle.
    pub async fn turn(&self, chain: ChainId) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.entry(chain).or_default().clone()
        };
        turn.lock_owned().await
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        &self.0.store
    }

    /// What the pull was told.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// The connections for parts of blobs.
    pub fn lanes(&self) -> &Semaphore {
        &self.0.lanes
    }

    /// Where events go.
    pub fn events(&self) -> &Sender {
        &self.0.events
    }

    /// Tells that the layer is in `state`, unless it is further already.
    pub fn say(&self, want: &Want, state: LayerState) {
        self.0.states.advance(&want.image, &want.blob.digest, state);
    }
}

impl Shared {
    fn unpack(
        &self,
        source: impl Runs + Send,
        blob: Option<BlobSpec>,
        meter: Option<Meter>,
    ) -> Result<Obtained, Failure> {
        let staged = self.store.stage()?;
        let mut diff = open(&staged.diff_path())?;
        let job = Job {
            blob,
            diff: &mut diff,
            tar_split: staged.create_tar_split()?,
            limits: self.options.limits,
            owners: Owners::of_this_process(),
            meter,
            pool: self.pool.clone(),
        };
        let Unpacked { diff_id, size, warnings, .. } = layer::unpack(source, job)?;
        for text in warnings {
            self.events.send(Event::Warning { image: None, text });
        }
        staged.complete(blob.map(|blob| blob.digest).as_ref(), &diff_id, size)?;
        Ok(Obtained { diff_id, staged: Some(staged) })
    }
}

/// Opens the files of a layer.
fn open(path: &Path) -> Result<DiffDir, Failure> {
    DiffDir::open(path, XattrSpace::of_this_process())
        .map_err(|e| Failure::Layer(LayerError::open(path, e)))
}
