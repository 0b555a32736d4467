//! A mount of an image, prepared.

use std::path::{Path, PathBuf};

use super::store::Store;
use crate::error::Error;
use crate::overlay::{Stack, Upper};
use crate::store::Lock;

/// What a mount of an image consists of. While it exists, no image can be removed from the store.
#[derive(Debug)]
pub struct MountPlan {
    store: Store,
    stack: Stack,
    _lock: Option<Lock>,
}

impl MountPlan {
    pub(super) fn new(store: Store, stack: Stack, lock: Option<Lock>) -> Self {
        Self { store, stack, _lock: lock }
    }

    /// Makes the mount writable, with a new directory in the store for changes.
    /// [`Store::unmount`] removes it.
    ///
    /// # Errors
    /// The directory cannot be created.
    pub fn writable(mut self) -> Result<Self, Error> {
        let dir = self.store.begin().new_mount_dir()?;
        self.stack.upper = Some(Upper { upper: dir.join("upper"), work: dir.join("work") });
        Ok(self)
    }

    /// Makes the mount writable, with changes in `upper`. `work` is an empty directory on the
    /// same file system. Both are absolute paths.
    #[must_use]
    pub fn writable_at(mut self, upper: impl Into<PathBuf>, work: impl Into<PathBuf>) -> Self {
        self.stack.upper = Some(Upper { upper: upper.into(), work: work.into() });
        self
    }

    /// The layers' directories, topmost first.
    pub fn lower(&self) -> &[PathBuf] {
        &self.stack.lower
    }

    /// The directory for changes, if the mount is writable.
    pub fn upper(&self) -> Option<&Path> {
        self.stack.upper.as_ref().map(|upper| upper.upper.as_path())
    }

    /// The work directory of overlayfs, if the mount is writable.
    pub fn work(&self) -> Option<&Path> {
        self.stack.upper.as_ref().map(|upper| upper.work.as_path())
    }

    /// Returns the options of an overlay mount, for mount(2) or mount(8).
    pub fn options(&self) -> String {
        self.stack.options()
    }

    /// Returns the mount(8) command that does the same as [`mount`](Self::mount).
    pub fn command(&self, target: impl AsRef<Path>) -> String {
        self.stack.command(target.as_ref())
    }

    /// Mounts at `target`, an existing directory.
    ///
    /// # Errors
    /// [`Error::Mount`] if the kernel refuses the mount. Mounting needs root.
    pub fn mount(&self, target: impl AsRef<Path>) -> Result<(), Error> {
        let target = target.as_ref();
        self.stack
            .mount(target)
            .map_err(|source| Error::Mount { target: target.display().to_string(), source })
    }
}
