//! One layer: fetched, or copied from what is there, and unpacked into a directory that
//! nothing refers to yet.
//!
//! A layer's files do not depend on what is below it, so all layers are obtained at once,
//! as many at a time as there are jobs. One blob is obtained once, however many images of
//! the command want it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};

use super::fetch;
use super::lanes::LANES;
use super::options::Options;
use crate::digest::Digest;
use crate::error::Error;
use crate::fsutil::{self, Runs};
use crate::layer::{self, BlobSpec, Job, LayerError, Owners, Pool, Reassembler, Unpacked};
use crate::oci::{ChainId, Descriptor, DiffId};
use crate::overlay::{DiffDir, XattrSpace};
use crate::progress::{Event, Image, LayerState, Meter, Phase, Sender};
use crate::registry::Registry;
use crate::store::{LayerRecord, Lock, Mode, Staged, Store, StoreError};

/// How often a layer that another process fetches is looked for.
const POLL: Duration = Duration::from_millis(100);

/// A layer that lies unpacked.
pub struct Obtained {
    /// What it unpacked to.
    pub diff_id: DiffId,
    /// Docker's size of it, bytes.
    pub size: u64,
    /// Its directory, until the first who commits it takes it. Held until that is done:
    /// who finds it taken copies what was committed.
    pub staged: tokio::sync::Mutex<Option<Staged>>,
}

/// A layer that an image wants.
#[derive(Clone)]
pub struct Want {
    /// The image.
    pub image: Image,
    /// Its registry.
    pub registry: Registry,
    /// The blob.
    pub blob: Descriptor,
    /// What it should unpack to, if that is known already.
    pub diff_id: Option<DiffId>,
}

/// The layers of one command; cheap to clone.
#[derive(Clone)]
pub struct Layers(Arc<Shared>);

struct Shared {
    store: Arc<Store>,
    options: Options,
    events: Sender,
    jobs: Semaphore,
    lanes: Semaphore,
    cells: Mutex<HashMap<Digest, Arc<OnceCell<Arc<Obtained>>>>>,
    writing: OnceCell<Lock>,
    pool: Pool,
    turns: Mutex<HashMap<ChainId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Layers {
    /// Nothing obtained yet.
    pub fn new(store: Arc<Store>, options: &Options, events: Sender) -> Self {
        Self(Arc::new(Shared {
            store,
            jobs: Semaphore::new(options.jobs.max(1)),
            lanes: Semaphore::new(LANES),
            options: options.clone(),
            events,
            cells: Mutex::default(),
            writing: OnceCell::new(),
            pool: Pool::default(),
            turns: Mutex::default(),
        }))
    }

    /// Makes the store ready to be written, and keeps removals away for the rest of the
    /// command.
    pub async fn begin_writing(&self) -> Result<(), Error> {
        let lock = || async {
            let (store, events) = (self.0.store.clone(), self.0.events.clone());
            if Owners::of_this_process() == Owners::Single {
                let text =
                    "not root: all files become this user's, and devices are left out".to_owned();
                events.send(Event::Warning { image: None, text });
            }
            blocking(move || {
                store.prepare()?;
                store.lock(Mode::Shared, &|what| {
                    events.send(Event::Waiting { what: what.to_owned() })
                })
            })
            .await
        };
        self.0.writing.get_or_try_init(lock).await.map(drop)
    }

    /// Obtains a layer, or waits for whoever does.
    pub async fn obtain(&self, want: Want) -> Result<Arc<Obtained>, Error> {
        let cell = {
            let mut cells = self.0.cells.lock().unwrap_or_else(PoisonError::into_inner);
            cells.entry(want.blob.digest).or_default().clone()
        };
        // If the one who obtains it is cancelled, the next who waits begins anew.
        cell.get_or_try_init(|| self.make(&want)).await.cloned()
    }

    async fn make(&self, want: &Want) -> Result<Arc<Obtained>, Error> {
        self.begin_writing().await?;
        let _job = match self.0.jobs.try_acquire() {
            Ok(job) => job,
            Err(_) => {
                self.say(want, LayerState::Waiting);
                self.0.jobs.acquire().await.map_err(|_| Error::Interrupted)?
            }
        };
        let _lock = self.lock(want).await?;
        if let Some(obtained) = self.copy(want).await? {
            return Ok(obtained);
        }
        self.say(want, LayerState::Downloading);
        let obtained = fetch::fetch(self, want).await?;
        self.say(want, LayerState::DownloadComplete);
        Ok(obtained)
    }

    /// Waits while another process fetches the same blob: what it commits can be used.
    async fn lock(&self, want: &Want) -> Result<Lock, Error> {
        let mut said = false;
        loop {
            let (store, digest) = (self.0.store.clone(), want.blob.digest);
            match blocking(move || store.try_lock_layer(&digest)).await? {
                Ok(lock) => return Ok(lock),
                Err(who) if !said => {
                    let what =
                        format!("layer {}, which {who} is fetching", want.blob.digest.short());
                    self.0.events.send(Event::Waiting { what });
                    said = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(POLL).await;
            self.0.store.layers().refresh();
        }
    }

    /// The layer from one that the store has under another chain, if it has.
    async fn copy(&self, want: &Want) -> Result<Option<Arc<Obtained>>, Error> {
        let known = match want.diff_id {
            Some(diff_id) => Some(diff_id),
            None => self.0.store.distribution().diff_id(&want.blob.digest)?,
        };
        let Some(diff_id) = known else { return Ok(None) };
        for record in self.0.store.layers().by_diff_id(&diff_id)? {
            self.say(want, LayerState::Copying);
            match self.copy_of(record).await {
                Ok(obtained) if obtained.diff_id == diff_id => return Ok(Some(Arc::new(obtained))),
                Ok(_)
                | Err(Error::Layer {
                    source: LayerError::Damaged { .. } | LayerError::TarSplit(_),
                    ..
                }) => {
                    let text = format!(
                        "the stored copy of layer {} is damaged; it is fetched again",
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
    pub async fn copy_of(&self, record: LayerRecord) -> Result<Obtained, Error> {
        let shared = self.0.clone();
        let named = record.diff_id.digest();
        run(named, move || {
            let from = DiffDir::open(
                &shared.store.layers().diff_path(&record),
                XattrSpace::of_this_process(),
            )
            .map_err(|e| Failure::Layer(LayerError::TarSplit(e)))?;
            let record = shared.store.layers().tar_split(&record.chain)?;
            shared.unpack(fsutil::runs(Reassembler::new(record, &from)), None, None)
        })
        .await
    }

    /// Unpacks `source`, which blocks; `want` says what it must be.
    pub fn unpack(&self, want: &Want, source: impl Runs + Send) -> Result<Obtained, Failure> {
        let (digest, size) = (want.blob.digest, want.blob.size);
        let meter =
            Meter::new(self.0.events.clone(), want.image.clone(), digest, Phase::Unpack, size);
        let obtained = self.0.unpack(source, Some(BlobSpec { digest, size }), Some(meter))?;
        Ok(obtained)
    }

    /// The right to commit `chain`: two images of the command may share it. Whoever has it
    /// waits for nobody but the network, so turns cannot wait for each other.
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

    fn say(&self, want: &Want, state: LayerState) {
        self.0.events.send(Event::Layer {
            image: want.image.clone(),
            layer: want.blob.digest,
            state,
        });
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
        let mut diff = DiffDir::open(&staged.diff_path(), XattrSpace::of_this_process())
            .map_err(|e| Failure::Layer(LayerError::TarSplit(e)))?;
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
        Ok(Obtained { diff_id, size, staged: tokio::sync::Mutex::new(Some(staged)) })
    }
}

/// What can fail while a layer is unpacked.
pub enum Failure {
    /// The layer.
    Layer(LayerError),
    /// The store.
    Store(StoreError),
}

impl From<LayerError> for Failure {
    fn from(error: LayerError) -> Self {
        Self::Layer(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Failure {
    /// The error for the user. A failure of the network that reached the layer as the end
    /// of its bytes becomes what it was.
    pub fn of(self, layer: Digest) -> Error {
        match self {
            Self::Store(error) => error.into(),
            Self::Layer(LayerError::Source(io)) => match io.downcast() {
                Ok(registry) => Error::Registry(registry),
                Err(io) => Error::Layer { layer, source: LayerError::Source(io) },
            },
            Self::Layer(source) => Error::Layer { layer, source },
        }
    }
}

/// Runs blocking work on a layer on a thread of its own.
pub async fn run<T: Send + 'static>(
    layer: Digest,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|failure| failure.of(layer)),
        Err(_) => Err(Error::Interrupted),
    }
}

/// Runs blocking work on the store on a thread of its own.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Error::Interrupted),
    }
}
