//! The records of Docker's root: layers, images and names, and rpull's own files. All functions
//! block. A pull writes layers from the base up, then the image, then its names; each is
//! complete or absent. The locks of each command are in `lock`.

mod bolt;
mod boot;
mod build_cache;
mod check;
mod check_layer;
mod commit;
mod condition;
mod containers;
mod content;
mod daemon;
mod damage;
mod distribution;
mod error;
mod gc;
mod images;
mod journal;
mod last_use;
mod layer_index;
mod layer_record;
mod layer_select;
mod layer_tree;
mod layers;
mod layout;
mod links;
mod lock;
mod mount_name;
mod mount_record;
mod mounted;
mod mounts;
mod omitted;
mod orphans;
mod other_store;
mod own_mounts;
mod parallel;
mod prune;
mod pulled;
mod recovery;
mod references;
mod remove;
mod stage;
mod unsynced;
mod usage;
mod view;
mod writable;

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::Digest;
use crate::oci::ImageId;
use crate::overlay::{self, Abilities, OverlayRoot};
use crate::reference::Query;

pub use check::Findings;
pub use commit::CommitOutcome;
pub use condition::Condition;
pub use content::{Content, ContentLock, Ingest, Partial};
pub use damage::{Damage, DamageClass};
pub use distribution::Distribution;
pub use error::{ImageUser, StoreError};
pub use images::Images;
pub use layer_record::LayerRecord;
pub use layer_select::LayerSelector;
pub use layer_tree::{LayerTree, NotShown, TreeImage, TreeLayer};
pub use layers::Layers;
pub use lock::{Lock, Mode, POLL, PendingLock, is_stopped, stop_waiting};
pub use mount_record::MountRecord;
pub use mounts::{Elsewhere, KeptDir, MountDir};
pub use orphans::{Orphan, OrphanKind, Orphans};
pub use own_mounts::MountLine;
pub use parallel::on_all_cores;
pub use prune::{Prune, Pruned, PrunedImage};
pub use references::Names;
pub use remove::Removed;
pub use stage::StagedLayer;
pub use usage::{ImageUsage, Usage};
pub use view::{HistoryLine, ImageLine, LayerLine};
pub use writable::{Source, WritableMount};

use journal::{DeadJournal, Journal};
use layout::Layout;
use other_store::Machine;

/// The store of one root.
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
    /// Creates the store at `root`, which need not exist yet, with its content at `content` if
    /// given.
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

    /// Checks that the root contains a store.
    ///
    /// # Errors
    /// [`StoreError::NoStore`] if not, [`StoreError::Fs`] if the root cannot be read.
    pub fn must_exist(&self) -> Result<(), StoreError> {
        self.refuse_files()?;
        // A root that cannot be read is not absent.
        crate::fsutil::must_be_readable(&self.layout.layers())?;
        if self.layout.exists() { Ok(()) } else { Err(StoreError::NoStore(self.root().to_owned())) }
    }

    /// Refuses a root or content directory that is a file.
    fn refuse_files(&self) -> Result<(), StoreError> {
        let file = self.layout.file_as_directory();
        file.map_or(Ok(()), |path| Err(StoreError::NotADirectory(path.to_owned())))
    }

    /// Refuses a root that belongs to another image store: images pulled there would not be shown, or
    /// would hide what the other store has.
    ///
    /// # Errors
    /// [`StoreError::OtherStore`] if it does.
    pub fn refuse_other_store(&self) -> Result<(), StoreError> {
        other_store::refuse(self.root(), &Machine::default())
    }

    /// Creates the root's directories on the first call.
    ///
    /// # Errors
    /// [`StoreError::Dockerd`] if a live daemon uses the root, [`StoreError::Fs`] if a directory
    /// cannot be created.
    fn prepare(&self) -> Result<(), StoreError> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if !*prepared {
            daemon::refuse_if_live(self.root())?;
            self.layout.create()?;
            *prepared = true;
        }
        Ok(())
    }

    /// Removes what dead processes left: staged layers, unfinished removals, temporary links,
    /// directories of writable mounts. The caller holds the store lock.
    ///
    /// # Errors
    /// [`StoreError`] if something cannot be read or removed.
    pub fn sweep(&self) -> Result<(), StoreError> {
        let dead = {
            let _commit = lock::commit_lock(&self.layout)?;
            self.layout.temporary().sweep()?;
            self.layers.finish_removals()?;
            mounts::sweep(&self.layout)?;
            overlay::remove_probe(&self.layout.probe())?;
            let dead = DeadJournal::all(&self.layout)?;
            if !dead.is_empty() {
                self.overlay().remove_temporary_links()?;
            }
            // Under the lock: a command that sweeps later must not plan with these layers.
            for removal in dead.iter().flat_map(|journal| &journal.removals) {
                self.finish_removal(removal)?;
            }
            for entry in dead.iter().flat_map(|journal| &journal.entries) {
                self.layers.finish_replacement(entry)?;
            }
            dead
        };
        for journal in dead {
            for entry in &journal.entries {
                stage::discard(&self.layout, entry)?;
            }
            journal.remove()?;
        }
        self.content.sweep();
        Ok(())
    }

    /// Checks that the file system of the root can hold layers, and returns what this process may do
    /// with them. Takes microseconds. The caller holds the store lock.
    ///
    /// # Errors
    /// [`StoreError::FileSystem`] if not, [`StoreError::Fs`] if it cannot be checked.
    pub fn probe(&self) -> Result<Abilities, StoreError> {
        // All processes use the same directory, so that a killed one leaves at most one.
        let _commit = lock::commit_lock(&self.layout)?;
        overlay::probe(&self.layout.probe())?.map_err(|why| StoreError::FileSystem {
            root: self.root().to_owned(),
            file_system: overlay::file_system(self.root()),
            why,
        })
    }

    /// Stages a new layer. The caller holds the store lock.
    ///
    /// # Errors
    /// [`StoreError`] if its files cannot be created.
    pub fn stage(&self) -> Result<StagedLayer, StoreError> {
        StagedLayer::new(&self.layout, self.journal()?)
    }

    /// Returns the journal of this process, which it starts on the first call.
    fn journal(&self) -> Result<Arc<Journal>, StoreError> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match &*journal {
            Some(journal) => journal.clone(),
            None => journal.insert(Arc::new(Journal::start(&self.layout)?)).clone(),
        })
    }

    /// Waits for the store lock, shared for a command that adds, exclusive for a removal, and
    /// removes what dead processes left. Calls `on_wait` with a description of the holder if
    /// there is one.
    ///
    /// # Errors
    /// [`StoreError`] if the root cannot be prepared or the lock files cannot be opened.
    pub fn lock(&self, mode: Mode, on_wait: &dyn Fn(&str)) -> Result<Lock, StoreError> {
        let mut pending = self.pending_lock(mode)?;
        let lock = lock::wait(on_wait, || pending.attempt())?;
        self.sweep()?;
        Ok(lock)
    }

    /// Prepares taking the store lock, for a caller that waits and sweeps itself.
    ///
    /// # Errors
    /// [`StoreError`] if the root cannot be prepared.
    pub fn pending_lock(&self, mode: Mode) -> Result<PendingLock, StoreError> {
        self.prepare()?;
        Ok(PendingLock::new(&self.layout, mode))
    }

    /// Waits for the store lock for a command that only reads. Does not prepare the root.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if locking fails.
    pub fn lock_to_read(&self, on_wait: &dyn Fn(&str)) -> Result<Option<Lock>, StoreError> {
        lock::wait(on_wait, || self.attempt_to_read())
    }

    /// Tries once to take the lock of [`lock_to_read`](Self::lock_to_read). Returns a description
    /// of the holder if a removal is running.
    ///
    /// # Errors
    /// [`StoreError::NotADirectory`] if the root is a file, [`StoreError::Fs`] if locking fails.
    pub fn attempt_to_read(&self) -> Result<Result<Option<Lock>, String>, StoreError> {
        self.refuse_files()?;
        lock::attempt_to_read(&self.layout)
    }

    /// Tries once to lock the layer `digest` for fetching it. Returns a description of the holder
    /// if another process has the lock.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the lock file cannot be opened.
    pub fn try_lock_layer(&self, digest: &Digest) -> Result<Result<Lock, String>, StoreError> {
        let lock = lock::try_temporary(&self.layout.lock(&format!("layer-{}", digest.hex())))?;
        Ok(lock.map_err(|holder| format!("layer {}, which {holder} is fetching", digest.short())))
    }

    /// Returns the root's path.
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// Returns the layer database.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Returns the image database.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// Returns the image names.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Returns the mappings between blobs and layers.
    pub fn distribution(&self) -> &Distribution {
        &self.distribution
    }

    /// Returns the content store.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Returns the directories of layers.
    pub fn overlay(&self) -> OverlayRoot {
        self.layout.overlay()
    }

    /// Creates the directory of a writable mount. A record without a name gets one.
    ///
    /// # Errors
    /// [`StoreError::MountName`] if it is not a name, [`StoreError::MountNameTaken`] if another mount has it,
    /// [`StoreError`] if the root cannot be prepared or the directory cannot be created.
    pub fn new_mount_dir(&self, record: MountRecord) -> Result<MountDir, StoreError> {
        self.prepare()?;
        MountDir::create(&self.layout, record)
    }

    /// Creates a file without a name for what is needed only by this process.
    ///
    /// # Errors
    /// [`StoreError`] if the root cannot be prepared or the file cannot be created.
    pub fn scratch_file(&self) -> Result<File, StoreError> {
        self.prepare()?;
        Ok(self.layout.temporary().unnamed()?)
    }

    /// Finds an image by its name, its ID or the beginning of its ID.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`] or [`StoreError::Ambiguous`] if not exactly one image matches,
    /// [`StoreError::Reference`] if `query` is invalid.
    pub fn find(&self, query: &str) -> Result<ImageId, StoreError> {
        self.must_exist()?;
        let none = || StoreError::NoSuchImage(query.to_owned());
        let prefix = match Query::parse(query)? {
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
