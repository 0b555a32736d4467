//! Docker's root as records: layers, images, names, and what lies beside them. Everything
//! here blocks. The order of a pull's writes is layers from the base up, then the image,
//! then its names; each is whole or absent. Which locks a command holds meanwhile: see `lock`.

mod commit;
mod condition;
mod content;
mod distribution;
mod error;
mod images;
mod journal;
mod layers;
mod layout;
mod links;
mod live;
mod lock;
mod references;
mod remove;
mod stage;
mod view;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::Digest;
use crate::oci::ImageId;
use crate::overlay::OverlayRoot;
use crate::reference::Query;

pub use commit::Established;
pub use condition::Condition;
pub use content::{Content, ContentLock, Ingest, Partial};
pub use distribution::Distribution;
pub use error::StoreError;
pub use images::Images;
pub use layers::{LayerRecord, Layers};
pub use lock::{Entrance, Lock, Mode, POLL, stop_waiting};
pub use references::Names;
pub use remove::Removed;
pub use stage::Staged;
pub use view::{HistoryLine, ImageLine, LayerLine};

use journal::{Dead, Journal};
use layout::Layout;

/// A root.
#[derive(Debug)]
pub struct Store {
    layout: Layout,
    layers: Layers,
    images: Images,
    names: Names,
    distribution: Distribution,
    content: Content,
    prepared: Mutex<bool>,
    journal: Mutex<Option<Arc<Journal>>>,
}

impl Store {
    /// The store at `root`, which need not exist yet. Its content lies at `content` if that
    /// is given.
    pub fn at(root: &Path, content: Option<&Path>) -> Self {
        let layout = Layout::new(root, content);
        Self {
            layers: Layers::new(layout.clone()),
            images: Images::new(layout.clone()),
            names: Names::new(layout.clone()),
            distribution: Distribution::new(layout.clone()),
            content: Content::new(layout.clone()),
            prepared: Mutex::new(false),
            journal: Mutex::new(None),
            layout,
        }
    }

    /// Fails if there is no store at the root.
    ///
    /// # Errors
    /// [`StoreError::NoStore`].
    pub fn must_exist(&self) -> Result<(), StoreError> {
        // A root that cannot be looked into is not absent.
        crate::fsutil::names_in(&self.layout.layers())?;
        if self.layout.exists() { Ok(()) } else { Err(StoreError::NoStore(self.root().to_owned())) }
    }

    /// Makes the root's directories, and refuses a running dockerd's root. Done once; cheap
    /// after that.
    ///
    /// # Errors
    /// [`StoreError`].
    fn prepare(&self) -> Result<(), StoreError> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if !*prepared {
            live::refuse(self.root())?;
            self.layout.create()?;
            *prepared = true;
        }
        Ok(())
    }

    /// Removes what dead processes left: staged layers, begun removals, temporary links. The
    /// caller holds the store lock.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sweep(&self) -> Result<(), StoreError> {
        let dead = {
            let _commit = lock::commit(&self.layout)?;
            self.layers.finish_removals()?;
            let dead = Dead::all(&self.layout)?;
            if !dead.is_empty() {
                self.overlay().remove_temporary_links()?;
            }
            dead
        };
        for journal in dead {
            for entry in &journal.entries {
                stage::give_up(&self.layout, entry)?;
            }
            journal.remove()?;
        }
        Ok(())
    }

    /// Stages a new layer. The caller holds the store lock.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn stage(&self) -> Result<Staged, StoreError> {
        let journal = {
            let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
            match &*journal {
                Some(journal) => journal.clone(),
                None => journal.insert(Arc::new(Journal::start(&self.layout)?)).clone(),
            }
        };
        Staged::new(&self.layout, journal)
    }

    /// Waits for the store lock, shared for a command that adds, exclusive for a removal, and
    /// sweeps what dead processes left. `waiting` is called with a description of the holder if
    /// there is one.
    ///
    /// # Errors
    /// [`StoreError`] if the root cannot be prepared or the lock files cannot be opened.
    pub fn lock(&self, mode: Mode, waiting: &dyn Fn(&str)) -> Result<Lock, StoreError> {
        let mut entrance = self.entrance(mode)?;
        let lock = lock::wait(waiting, || entrance.attempt())?;
        self.sweep()?;
        Ok(lock)
    }

    /// The way to the store lock, for a caller that waits in its own manner and sweeps itself.
    ///
    /// # Errors
    /// [`StoreError`] if the root cannot be prepared.
    pub fn entrance(&self, mode: Mode) -> Result<Entrance, StoreError> {
        self.prepare()?;
        Ok(Entrance::new(&self.layout, mode))
    }

    /// Waits for the store lock as a command that only reads. It needs no prepared root.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if locking fails.
    pub fn lock_to_read(&self, waiting: &dyn Fn(&str)) -> Result<Option<Lock>, StoreError> {
        lock::wait(waiting, || self.attempt_to_read())
    }

    /// Tries once what [`lock_to_read`](Self::lock_to_read) waits for; the holder's
    /// description if a removal is running.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if locking fails.
    pub fn attempt_to_read(&self) -> Result<Result<Option<Lock>, String>, StoreError> {
        lock::attempt_to_read(&self.layout)
    }

    /// Tries once to take the right to fetch the layer `digest`; the holder's description if
    /// another process has it.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the lock file cannot be opened.
    pub fn try_lock_layer(&self, digest: &Digest) -> Result<Result<Lock, String>, StoreError> {
        let lock = lock::try_passing(&self.layout.lock(&format!("layer-{}", digest.hex())))?;
        Ok(lock.map_err(|holder| format!("layer {}, which {holder} is fetching", digest.short())))
    }

    /// The root's path.
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// The layer db.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// The image db.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// The names.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The maps between blobs and layers.
    pub fn distribution(&self) -> &Distribution {
        &self.distribution
    }

    /// Manifests, indexes and configs.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The layers' directories.
    pub fn overlay(&self) -> OverlayRoot {
        self.layout.overlay()
    }

    /// A new directory for the parts of a writable mount.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn new_mount_dir(&self) -> Result<PathBuf, StoreError> {
        self.prepare()?;
        let random = crate::fsutil::random_hex::<8>().map_err(StoreError::Random)?;
        let dir = self.layout.mounts().join(random);
        for dir in [dir.clone(), dir.join("upper"), dir.join("work")] {
            crate::fsutil::ensure_dir(&dir, if dir.ends_with("upper") { 0o755 } else { 0o700 })?;
        }
        Ok(dir)
    }

    /// The directories of writable mounts.
    pub fn mounts(&self) -> PathBuf {
        self.layout.mounts()
    }

    /// The image that a word means: a name, an id or the beginning of one.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`], [`StoreError::Ambiguous`], [`StoreError::Reference`].
    pub fn find(&self, word: &str) -> Result<ImageId, StoreError> {
        self.must_exist()?;
        let none = || StoreError::NoSuchImage(word.to_owned());
        let prefix = match Query::parse(word)? {
            Query::Id(id) => id,
            Query::Prefix(prefix) => prefix,
            Query::Name { name, prefix } => match (self.names.load()?.lookup(&name), prefix) {
                (Some(id), _) => return Ok(id),
                (None, Some(prefix)) => prefix,
                (None, None) => return Err(none()),
            },
        };
        let ids = self.images.list()?;
        let matches: Vec<ImageId> =
            ids.into_iter().filter(|id| id.hex().starts_with(&prefix)).collect();
        match matches.as_slice() {
            [] => Err(none()),
            [one] => Ok(*one),
            many => Err(StoreError::Ambiguous {
                prefix,
                matches: many.iter().map(ImageId::short).collect(),
            }),
        }
    }
}
