//! Docker's root as records: layers, images, names, and what lies beside them. Everything
//! here blocks. The order of a pull's writes is layers from the base up, then the image,
//! then its names; each is whole or absent.

mod content;
mod distribution;
mod error;
mod images;
mod journal;
mod layers;
mod layout;
mod live;
mod lock;
mod references;
mod remove;
mod stage;
mod view;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::digest::Digest;
use crate::oci::{ImageConfig, ImageId};
use crate::overlay::OverlayRoot;
use crate::reference::Query;

pub use content::Content;
pub use distribution::{Distribution, Source};
pub use error::StoreError;
pub use images::Images;
pub use layers::{LayerRecord, Layers};
pub use lock::Lock;
pub use references::{Names, References};
pub use remove::Removed;
pub use stage::Staged;
pub use view::{HistoryLine, ImageLine, LayerLine};

use journal::Journal;
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
    writing: Mutex<Option<Arc<Journal>>>,
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
            writing: Mutex::new(None),
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

    /// Makes ready to write: makes the directories, refuses a live dockerd, sweeps what
    /// dead processes left. Done once; cheap after that. How many layers were swept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn prepare(&self) -> Result<usize, StoreError> {
        let mut writing = self.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if writing.is_some() {
            return Ok(0);
        }
        live::refuse(self.root())?;
        if !self.layout.complete() {
            self.layout.create()?;
        }
        let swept = journal::sweep(&self.layout, &self.layers)?;
        *writing = Some(Arc::new(Journal::start(&self.layout)?));
        Ok(swept)
    }

    /// A place for a new layer.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn stage(&self) -> Result<Staged, StoreError> {
        self.prepare()?;
        let writing = self.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let journal = writing.clone().ok_or_else(|| StoreError::NoStore(self.root().to_owned()))?;
        Staged::new(&self.layout, journal)
    }

    /// Keeps removals away while it is held. `waiting` hears who is waited for.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn lock_shared(&self, waiting: &dyn Fn(&str)) -> Result<Lock, StoreError> {
        self.prepare()?;
        lock::shared(&self.layout, "store", waiting)
    }

    /// Keeps everybody away while it is held.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn lock_exclusive(&self, waiting: &dyn Fn(&str)) -> Result<Lock, StoreError> {
        self.prepare()?;
        lock::exclusive(&self.layout, "store", waiting)
    }

    /// The right to fetch a blob, or who has it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn try_lock_layer(&self, digest: &Digest) -> Result<Result<Lock, String>, StoreError> {
        lock::try_passing(&self.layout, &format!("layer-{}", digest.hex()))
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

    /// The parsed config of an image that is whole: all its layers are there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn whole_image(&self, id: &ImageId) -> Result<Option<ImageConfig>, StoreError> {
        let Some(bytes) = self.images.get(id)? else { return Ok(None) };
        let Ok(config) = ImageConfig::parse(&bytes) else { return Ok(None) };
        Ok(self.layers.stack(config.diff_ids())?.map(|_| config))
    }
}
