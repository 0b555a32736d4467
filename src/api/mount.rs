//! A mount of an image, prepared.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::store::Store;
use crate::error::Error;
use crate::overlay::{Stack, Upper};
use crate::store::{Lock, MountDir, MountRecord};

/// What a mount of an image consists of. While it exists, no image can be removed from the store.
#[derive(Debug)]
pub struct MountPlan {
    store: Store,
    stack: Stack,
    record: MountRecord,
    dir: Option<MountDir>,
    _lock: Option<Lock>,
}

impl MountPlan {
    pub(super) fn new(store: Store, stack: Stack, record: MountRecord, lock: Option<Lock>) -> Self {
        Self { store, stack, record, dir: None, _lock: lock }
    }

    /// Prepares to mount a writable mount again, with its changes.
    pub(super) fn again(store: Store, stack: Stack, dir: MountDir, lock: Option<Lock>) -> Self {
        let record = dir.record().clone();
        Self { store, stack, record, dir: None, _lock: lock }.with_dir(dir)
    }

    fn with_dir(mut self, dir: MountDir) -> Self {
        self.stack.upper = Some(Upper { upper: dir.upper(), work: dir.work() });
        self.dir = Some(dir);
        self
    }

    /// Makes the writable mount one that is removed once nothing uses it, if `temporary` is set.
    pub(super) fn temporary(mut self, temporary: bool) -> Self {
        self.record.temporary = temporary;
        self
    }

    /// The mount.
    pub(super) fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Returns the mount, the directory of a writable mount, and the lock that protects the image.
    pub(super) fn into_parts(self) -> (Stack, Option<MountDir>, Option<Lock>) {
        (self.stack, self.dir, self._lock)
    }

    /// Makes the mount writable, with a new directory in the store for changes, which is removed
    /// with the plan if it was never mounted, and gets a generated name. [`Store::unmount`] keeps the
    /// changes.
    ///
    /// # Errors
    /// The directory cannot be created.
    pub fn writable(self) -> Result<Self, Error> {
        self.new_dir(None)
    }

    /// Does the same with the name `name`. [`Store::unmount`] keeps a mount with a chosen name also if
    /// there are no changes.
    ///
    /// # Errors
    /// It is not a name, another writable mount has it, or the directory cannot be created.
    pub fn writable_as(self, name: &str) -> Result<Self, Error> {
        self.new_dir(Some(name.to_owned()))
    }

    fn new_dir(self, name: Option<String>) -> Result<Self, Error> {
        let record = MountRecord { name, ..self.record.clone() };
        let dir = self.store.begin().new_mount_dir(record)?;
        Ok(self.with_dir(dir))
    }

    /// The name of the writable mount, if its changes are in the store.
    pub fn name(&self) -> Option<&str> {
        self.dir.as_ref().map(MountDir::name)
    }

    /// Makes the mount writable, with changes in `upper`. `work` is an empty directory on the
    /// same file system. Both are absolute paths.
    #[must_use]
    pub fn writable_at(mut self, upper: impl Into<PathBuf>, work: impl Into<PathBuf>) -> Self {
        self.stack.upper = Some(Upper { upper: upper.into(), work: work.into() });
        self.dir = None;
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

    /// Returns the options of an overlay mount, for mount(2) or mount(8). mount(2) accepts less
    /// than 4096 bytes; [`mount`](Self::mount) can mount longer ones too.
    pub fn options(&self) -> String {
        self.stack.options()
    }

    /// Returns the mount at `target` as an entry of `mounts` in the config of an OCI runtime
    /// (runtime-spec, config.md). Paths that are not UTF-8 are changed.
    pub fn to_oci(&self, target: impl AsRef<Path>) -> Value {
        let (kind, source, options) = self.stack.entry();
        json!({
            "destination": target.as_ref().to_string_lossy(),
            "type": kind,
            "source": source.to_string_lossy(),
            "options": options,
        })
    }

    /// Returns the command, for a shell, that does the same as [`mount`](Self::mount) with
    /// mount(8).
    ///
    /// # Errors
    /// [`Error::Usage`] if mount(8) cannot do it, because the paths of the upper and the work
    /// directory are too long.
    pub fn command(&self, target: impl AsRef<Path>) -> Result<String, Error> {
        self.stack.command(target.as_ref()).ok_or_else(|| {
            Error::Usage(
                "the mount options are longer than a page, so mount(8) cannot pass them to the \
                 kernel; mount by handles of the directories (fsconfig(2), Linux 6.13)"
                    .to_owned(),
            )
        })
    }

    /// Mounts at `target`, an existing directory.
    ///
    /// # Errors
    /// [`Error::Usage`] if `target` is not an existing directory, [`Error::Mount`] if the kernel
    /// refuses the mount. Mounting needs root.
    pub fn mount(&self, target: impl AsRef<Path>) -> Result<(), Error> {
        let target = target.as_ref();
        let usage =
            |why: &str| Err(Error::Usage(format!("cannot mount at {}: {why}", target.display())));
        match target.metadata() {
            Ok(meta) if !meta.is_dir() => return usage("it is not a directory"),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return usage("it does not exist"),
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => return usage(&e.to_string()),
            _ => {}
        }
        self.stack
            .mount(target)
            .map_err(|source| Error::Mount { target: target.display().to_string(), source })?;
        if let Some(dir) = &self.dir {
            let at = std::path::absolute(target).unwrap_or_else(|_| target.to_owned());
            self.store.begin().record_mount(dir, &at);
        }
        Ok(())
    }
}
