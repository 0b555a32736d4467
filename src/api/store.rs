//! The store, as programs use it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{SecondsFormat, Utc};

use super::image::Image;
use crate::error::Error;
use crate::fsutil::At;
use crate::oci::ImageId;
use crate::pull;
use crate::reference::Reference;
use crate::store::{self, ImageLine, LayerTree, Lock, Mode, MountLine, Removed, StoreError};

/// A store of images: a directory in Docker's own layout, such as `/var/lib/docker`.
///
/// It is cheap to clone. Several programs can use one store at the same time: methods wait for
/// their locks. All methods block; from async code, call them on a blocking thread.
#[derive(Clone)]
pub struct Store {
    root: PathBuf,
    content: Option<PathBuf>,
    pub(super) waiting: Arc<dyn Fn(&str) + Send + Sync>,
    pub(super) dropping: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Store {
    /// Opens the store in the directory `root`. The first pull creates it; until then, there are
    /// no images.
    ///
    /// # Errors
    /// `root` is empty, or it is relative and there is no working directory.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, Error> {
        let root = root.as_ref();
        let root = std::path::absolute(root).at("open", root)?;
        Ok(Self { root, content: None, waiting: Arc::new(|_| {}), dropping: Arc::new(|_| {}) })
    }

    /// Keeps manifests, configs and the blobs of
    /// [`Pull::keep_blobs`](super::Pull::keep_blobs) in `dir`, which several stores can share.
    #[must_use]
    pub fn with_content(self, dir: impl Into<PathBuf>) -> Self {
        Self { content: Some(dir.into()), ..self }
    }

    /// Calls `waiting` with a description of the lock's holder when a method of this store has
    /// to wait for it. A pull sends [`Event::Waiting`](crate::Event::Waiting) instead.
    #[must_use]
    pub fn on_wait(self, waiting: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { waiting: Arc::new(waiting), ..self }
    }

    /// Calls `dropping` with a sentence for each image that a power failure damaged, and that the
    /// first method after the boot therefore removed. A pull sends
    /// [`Event::Warning`](crate::Event::Warning) instead.
    #[must_use]
    pub fn on_drop(self, dropping: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { dropping: Arc::new(dropping), ..self }
    }

    /// The store's directory, an absolute path.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Lists the images with one element per name, newest first.
    ///
    /// # Errors
    /// There is no store, or it cannot be read.
    pub fn images(&self) -> Result<Vec<ImageLine>, Error> {
        self.read(store::Store::image_lines)
    }

    /// Returns the names of all images, in no order. In contrast to [`images`](Self::images), it never waits
    /// for another process and does not verify layers after a power failure, so it suits completions of
    /// command lines. A removal or a pull that is running can have changed them already.
    ///
    /// # Errors
    /// The names cannot be read.
    pub fn names(&self) -> Result<Vec<Reference>, Error> {
        let names = self.begin().names().load()?;
        Ok(names.iter().map(|(name, _)| name).collect())
    }

    /// Returns the layers of all images as one tree, which shows what images share.
    ///
    /// # Errors
    /// There is no store, or it cannot be read.
    pub fn layer_tree(&self) -> Result<LayerTree, Error> {
        self.read(|store| store.layer_tree(None))
    }

    /// Finds an image by a reference, an ID, or the beginning of an ID.
    ///
    /// # Errors
    /// There is no such store or image, or several IDs begin in this way.
    pub fn image(&self, image: &str) -> Result<Image, Error> {
        let id = self.read(|store| store.find(image))?;
        Ok(Image::new(self.clone(), id, image.to_owned()))
    }

    /// Adds the tag `new` to `image`, which is given as for [`image`](Self::image). Without a
    /// tag, `latest` is added.
    ///
    /// # Errors
    /// There is no such image, or `new` has a digest.
    pub fn tag(&self, image: &str, new: &Reference) -> Result<(), Error> {
        if new.digest().is_some() {
            return Err(Error::Usage(format!(
                "'{new}' has a digest: give the new reference a tag only"
            )));
        }
        let store = self.begin();
        store.must_exist()?;
        // Kept from the look-up on: the image cannot be removed before it has its new name.
        self.recover(&store)?;
        let _lock = store.lock(Mode::Shared, &*self.waiting)?;
        let id = store.find(image)?;
        let (new, _) = new.clone().with_default_tag();
        store.names().update(|names| names.set(&new, id))?;
        let now = Utc::now().to_rfc3339_opts(SecondsFormat::AutoSi, true);
        Ok(store.images().set_last_updated(&id, &now)?)
    }

    /// Removes `image`, which is given as for [`image`](Self::image): a reference loses this
    /// name, and with its last name the image and the layers that nothing else needs. An ID loses
    /// all names; more than one only with `force`.
    ///
    /// # Errors
    /// There is no such image, a container or mount uses it, or it has several names.
    pub fn remove(&self, image: &str, force: bool) -> Result<Vec<Removed>, Error> {
        self.removal()?.remove(image, force)
    }

    /// Waits until no other program uses the store, to remove several images without a pull in
    /// between.
    ///
    /// # Errors
    /// There is no store, a running dockerd uses it, or it cannot be locked.
    pub fn removal(&self) -> Result<Removal, Error> {
        let store = self.begin();
        store.must_exist()?;
        self.recover(&store)?;
        let lock = store.lock(Mode::Exclusive, &*self.waiting)?;
        Ok(Removal { store, _lock: lock })
    }

    /// Lists the mounts of this store's images, and the writable mounts that are not mounted.
    ///
    /// # Errors
    /// There is no store, or it cannot be read.
    pub fn mounts(&self) -> Result<Vec<MountLine>, Error> {
        self.read(|store| {
            store.must_exist()?;
            store.mount_lines()
        })
    }

    /// Verifies layers that an earlier boot left unsynced. Nothing damaged is used after this.
    fn recover(&self, store: &store::Store) -> Result<(), StoreError> {
        pull::recover(store, &*self.waiting, &*self.dropping)
    }

    /// The records for one operation. What they remember, such as that no dockerd uses the root,
    /// is true only for as long as the operation.
    pub(super) fn begin(&self) -> store::Store {
        store::Store::at(&self.root, self.content.as_deref())
    }

    /// The image of a pull that just ended.
    pub(super) fn pulled(&self, id: ImageId, reference: &Reference) -> Image {
        Image::new(self.clone(), id, reference.to_string())
    }

    /// Runs `work` under the lock of a command that reads: no image can be removed meanwhile.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&store::Store) -> Result<T, StoreError>,
    ) -> Result<T, Error> {
        Ok(self.read_and_keep(work)?.0)
    }

    /// Does the same, and returns the lock too.
    pub(super) fn read_and_keep<T>(
        &self,
        work: impl FnOnce(&store::Store) -> Result<T, StoreError>,
    ) -> Result<(T, Option<Lock>), Error> {
        let store = self.begin();
        self.recover(&store)?;
        let lock = store.lock_to_read(&*self.waiting)?;
        Ok((work(&store)?, lock))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("root", &self.root()).finish_non_exhaustive()
    }
}

/// The exclusive right to remove images from a store. Other programs wait while it exists.
#[derive(Debug)]
pub struct Removal {
    pub(super) store: store::Store,
    _lock: Lock,
}

impl Removal {
    /// Removes an image; see [`Store::remove`].
    ///
    /// # Errors
    /// As for [`Store::remove`].
    pub fn remove(&self, image: &str, force: bool) -> Result<Vec<Removed>, Error> {
        Ok(self.store.remove(image, force)?)
    }
}
