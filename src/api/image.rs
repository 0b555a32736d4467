//! An image in a store.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::marks;
use super::mount::MountPlan;
use super::store::Store;
use crate::digest::Digest;
use crate::error::Error;
use crate::oci::{ChainId, DiffId, ImageId};
use crate::overlay::Stack;
use crate::reference::Reference;
use crate::store::{
    self, HistoryLine, LayerLine, LayerRecord, LayerSelector, LayerTree, Lock, MountRecord,
    Removed, StoreError,
};

/// A stack with its layers, base first, and the lock that keeps them.
pub(super) type LockedStack = ((Stack, Vec<LayerRecord>), Option<Lock>);

/// An image in a [`Store`]. It keeps no lock: another program can remove the image, and then
/// methods fail with [`ErrorKind::NotFound`](crate::ErrorKind::NotFound).
#[derive(Debug, Clone)]
pub struct Image {
    store: Store,
    id: ImageId,
    /// How it was named, for errors.
    name: String,
}

impl Image {
    pub(super) fn new(store: Store, id: ImageId, name: String) -> Self {
        Self { store, id, name }
    }

    /// The SHA-256 of the image's config.
    pub fn id(&self) -> ImageId {
        self.id
    }

    /// The store that has the image.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the layers, base first.
    ///
    /// # Errors
    /// The image was removed or is damaged.
    pub fn layers(&self) -> Result<Vec<ImageLayer>, Error> {
        let lines = self.read(|store| store.layer_lines(&self.id))?;
        Ok(lines.into_iter().map(ImageLayer).collect())
    }

    /// Returns the layers as a tree, with those of all images that share layers with this one.
    ///
    /// # Errors
    /// The image was removed or is damaged.
    pub fn layer_tree(&self) -> Result<LayerTree, Error> {
        self.read(|store| store.layer_tree(Some(&self.id)))
    }

    /// Returns the instructions that built the image, newest first.
    ///
    /// # Errors
    /// The image was removed or is damaged.
    pub fn history(&self) -> Result<Vec<HistoryLine>, Error> {
        self.read(|store| store.history_lines(&self.id))
    }

    /// Returns the details of the image in the form of `docker inspect`.
    ///
    /// # Errors
    /// The image was removed or is damaged.
    pub fn inspect(&self) -> Result<Value, Error> {
        self.read(|store| store.inspect(&self.id))
    }

    /// Returns the image's config byte for byte: JSON with its environment, entry point and
    /// command (OCI image-spec, config.md).
    ///
    /// # Errors
    /// The image was removed or is damaged.
    pub fn config(&self) -> Result<Vec<u8>, Error> {
        let missing = || StoreError::NoSuchImage(self.name.clone());
        self.read(|store| store.images().get(&self.id)?.ok_or_else(missing))
    }

    /// Adds a tag; see [`Store::tag`].
    ///
    /// # Errors
    /// The image was removed, or `new` has a digest.
    pub fn tag(&self, new: &Reference) -> Result<(), Error> {
        self.named(self.store.tag(&self.id.to_string(), new))
    }

    /// Removes the image with all its names and the layers that nothing else needs.
    ///
    /// # Errors
    /// The image was removed already, or a container or mount uses it.
    pub fn remove(self) -> Result<Vec<Removed>, Error> {
        self.named(self.store.remove(&self.id.to_string(), true))
    }

    /// Mounts the image read-only at `target`. See [`mount_plan`](Self::mount_plan) for other
    /// mounts, and [`Store::unmount`].
    ///
    /// # Errors
    /// The image was removed or is damaged, or the kernel refuses the mount. Mounting needs root.
    pub fn mount(&self, target: impl AsRef<Path>) -> Result<(), Error> {
        self.mount_plan()?.mount(target)
    }

    /// Returns what a mount of the image consists of. While it exists, no image can be removed
    /// from the store.
    ///
    /// # Errors
    /// The image was removed or is damaged; or a mount by this process would show files that the image
    /// deletes ([`Error::Marks`]).
    pub fn mount_plan(&self) -> Result<MountPlan, Error> {
        self.plan(None)
    }

    /// Does the same for the layers up to `top`.
    ///
    /// # Errors
    /// As for [`mount_plan`](Self::mount_plan); not exactly one layer of the image is `top`.
    pub fn mount_plan_at(&self, top: &LayerSelector) -> Result<MountPlan, Error> {
        self.plan(Some(top))
    }

    pub(super) fn plan(&self, top: Option<&LayerSelector>) -> Result<MountPlan, Error> {
        let ((mut stack, layers), lock) = self.stack(top)?;
        stack.userxattr = marks::needs_userxattr(&self.store.begin(), &self.name, &layers, None)?;
        let none = || Error::Internal("a mount has no layers".to_owned());
        let base = layers.last().ok_or_else(none)?.chain;
        let record = MountRecord::new(self.name.clone(), self.id, base, stack.userxattr);
        Ok(MountPlan::new(self.store.clone(), stack, record, lock))
    }

    /// Returns the layers, up to `top`, with their directories, and the lock that keeps them.
    pub(super) fn stack(&self, top: Option<&LayerSelector>) -> Result<LockedStack, Error> {
        self.named(self.store.read_and_keep(|store| {
            let stack = store.mount_stack(&self.id, &self.name, top)?;
            store.record_use(&self.id);
            Ok(stack)
        }))
    }

    /// The image as it was named.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&store::Store) -> Result<T, StoreError>,
    ) -> Result<T, Error> {
        self.named(self.store.read(work))
    }

    /// Names the image in an error as the user did.
    fn named<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| match error {
            Error::Store(StoreError::NoSuchImage(_)) => {
                StoreError::NoSuchImage(self.name.clone()).into()
            }
            error => error,
        })
    }
}

/// A layer of an [`Image`]. Serialized, it has the form of `rpull layers --format json`.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct ImageLayer(LayerLine);

impl ImageLayer {
    /// The position, from the base, which is 1.
    pub fn position(&self) -> usize {
        self.0.position
    }

    /// The digest of the compressed blob that the layer was pulled as, if it was pulled.
    pub fn blob(&self) -> Option<Digest> {
        self.0.distribution_id
    }

    /// The SHA-256 of the layer's tar.
    pub fn diff_id(&self) -> DiffId {
        self.0.diff_id
    }

    /// The ID of the stack of layers up to this one.
    pub fn chain_id(&self) -> ChainId {
        self.0.chain_id
    }

    /// The name of the layer's directory below `overlay2`.
    pub fn cache_id(&self) -> &str {
        &self.0.cache_id
    }

    /// The sum of the sizes of the layer's files in bytes, as Docker counts it.
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// The directory with the layer's files, where overlayfs marks stand for deleted ones.
    pub fn diff_dir(&self) -> &Path {
        &self.0.path
    }
}
