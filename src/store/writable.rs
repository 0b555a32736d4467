//! Writable mounts by their names, and the layers that they are based on.

use std::path::{Path, PathBuf};

use super::mounts::{self, KeptDir, MountDir, SharedDir};
use super::{LayerRecord, MountRecord, Store, StoreError, links};
use crate::oci::{ChainId, ImageId};
use crate::overlay::Stack;

/// A writable mount, mounted or not. While it exists, no other process removes it or mounts it again.
#[derive(Debug)]
pub struct WritableMount {
    dir: SharedDir,
    name: String,
    layers: Vec<LayerRecord>,
    lower: Vec<PathBuf>,
}

impl WritableMount {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The image as the user named it.
    pub fn image(&self) -> &str {
        &self.dir.record.image
    }

    /// The image ID.
    pub fn image_id(&self) -> ImageId {
        self.dir.record.id
    }

    /// When it was created, RFC 3339; `None` if an earlier version did not record it.
    pub fn created(&self) -> Option<&str> {
        self.dir.record.created.as_deref()
    }

    /// The directory of changes.
    pub fn upper(&self) -> PathBuf {
        self.dir.kept.upper()
    }

    /// The files of the layers that it is based on, topmost first. The directories are those that a mount
    /// has below [`upper`](Self::upper).
    pub fn lower(&self) -> &[PathBuf] {
        &self.lower
    }

    /// The records of the same layers, base first.
    pub(crate) fn layers(&self) -> &[LayerRecord] {
        &self.layers
    }

    /// The chain IDs of the same layers, base first.
    pub fn chains(&self) -> Vec<ChainId> {
        self.layers.iter().map(|layer| layer.chain).collect()
    }

    /// Whether overlayfs's marks in the changes are in `user.overlay.*`, and not in `trusted.overlay.*`.
    pub fn userxattr(&self) -> bool {
        self.dir.record.userxattr
    }
}

/// What a name on a command line means.
#[derive(Debug)]
pub enum Source {
    /// A writable mount.
    Writable(WritableMount),
    /// An image.
    Image(ImageId),
}

/// A writable mount that needs layers.
pub(super) struct MountUser {
    pub name: String,
    pub image: ImageId,
    /// The topmost layer that it needs; `None` if the image of a record of an earlier version is gone.
    pub base: Option<ChainId>,
}

impl Store {
    /// Returns the writable mount with a name. The caller holds the store lock.
    ///
    /// # Errors
    /// [`StoreError::NoSuchMount`] if there is none, [`StoreError::MountBase`] if a layer of it is missing,
    /// [`StoreError::Damaged`] if its record or a layer is damaged.
    pub fn writable_mount(&self, name: &str) -> Result<WritableMount, StoreError> {
        self.must_exist()?;
        let kept = KeptDir::named(&self.layout, name)?;
        let kept = kept.ok_or_else(|| StoreError::NoSuchMount(name.to_owned()))?;
        let dir = kept.share()?;
        let layers = self.base_layers(name, &dir.record)?;
        let (lower, _) = links::mounted_by_dockerd(&self.overlay(), &layers)?;
        Ok(WritableMount { dir, name: name.to_owned(), layers, lower })
    }

    /// Returns what `text` means: a writable mount with that name, or else an image with that name or ID.
    /// docker looks for containers first, too.
    ///
    /// # Errors
    /// [`StoreError::NoSuchSource`] if there is neither; the errors of
    /// [`writable_mount`](Self::writable_mount) and of [`find`](Self::find).
    pub fn find_source(&self, text: &str) -> Result<Source, StoreError> {
        match self.writable_mount(text) {
            Err(StoreError::NoSuchMount(_)) => {}
            other => return other.map(Source::Writable),
        }
        match self.find(text) {
            Err(StoreError::NoSuchImage(text)) => Err(StoreError::NoSuchSource(text)),
            other => other.map(Source::Image),
        }
    }

    /// Prepares to mount the writable mount `name` again. Returns its directory, its stack without the
    /// directory of changes, and its layers, base first.
    ///
    /// # Errors
    /// As for [`writable_mount`](Self::writable_mount); [`StoreError::MountInUse`] if it is mounted or another
    /// process uses it.
    pub fn mount_again(
        &self,
        name: &str,
    ) -> Result<(MountDir, Stack, Vec<LayerRecord>), StoreError> {
        let kept = KeptDir::named(&self.layout, name)?;
        let kept = kept.ok_or_else(|| StoreError::NoSuchMount(name.to_owned()))?;
        let dir = kept.mount_again()?;
        let layers = self.base_layers(name, dir.record())?;
        Ok((dir, self.stack_of(&layers)?, layers))
    }

    /// Returns the read-only mount of layers, given base first.
    pub(super) fn stack_of(&self, layers: &[LayerRecord]) -> Result<Stack, StoreError> {
        let overlay = self.overlay();
        let (lower, links) = links::mounted_by_dockerd(&overlay, layers)?;
        let links_dir = overlay.path().to_owned();
        Ok(Stack { lower, links, links_dir, upper: None, userxattr: false })
    }

    fn base_layers(
        &self,
        name: &str,
        record: &MountRecord,
    ) -> Result<Vec<LayerRecord>, StoreError> {
        let missing = |layer: String| StoreError::MountBase {
            name: name.to_owned(),
            image: record.image.clone(),
            layer,
        };
        let base = self.base(record).ok_or_else(|| missing(record.id.short()))?;
        let (mut layers, mut next) = (Vec::new(), Some(base));
        while let Some(chain) = next {
            let layer = self.layers().get(&chain)?.ok_or_else(|| missing(chain.short()))?;
            next = layer.parent;
            layers.push(layer);
        }
        layers.reverse();
        Ok(layers)
    }

    /// Returns the topmost layer that a mount is based on.
    pub(super) fn base(&self, record: &MountRecord) -> Option<ChainId> {
        let whole = || ChainId::stack(self.images().config(&record.id)?.diff_ids()).pop();
        record.base.or_else(whole)
    }

    /// Returns the writable mounts, mounted or not, whose records can be read: nothing can be mounted
    /// again without its record.
    pub(super) fn mount_users(&self) -> Result<Vec<MountUser>, StoreError> {
        let mut users = Vec::new();
        for kept in KeptDir::all(&self.layout)? {
            let Some(record) = kept.record() else { continue };
            let base = self.base(&record);
            users.push(MountUser { name: kept.name(), image: record.id, base });
        }
        Ok(users)
    }

    /// Returns the changes of the writable mount `name`, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the mounts cannot be listed.
    pub fn changes_of(&self, name: &str) -> Result<Option<KeptDir>, StoreError> {
        KeptDir::named(&self.layout, name)
    }

    /// Returns the names of all writable mounts.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the mounts cannot be listed.
    pub fn mount_names(&self) -> Result<Vec<String>, StoreError> {
        Ok(KeptDir::all(&self.layout)?.iter().map(KeptDir::name).collect())
    }

    /// Records that a container runs in a writable mount.
    pub fn record_run(&self, dir: &MountDir) {
        dir.record_run(&self.layout);
    }

    /// Locks the writable mounts whose container was left by killed processes.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if they cannot be listed.
    pub fn stale_runs(&self) -> Result<Vec<MountDir>, StoreError> {
        mounts::stale(&self.layout)
    }

    /// Records that a writable mount was mounted at `target`.
    pub fn record_mount(&self, dir: &MountDir, target: &Path) {
        dir.record_mount(&self.layout, target);
    }
}
