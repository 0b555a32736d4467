//! Writable mounts in which a container runs.

use std::path::Path;

use super::{KeptDir, MountDir, lock_dir};
use crate::fsutil::{At, Durability};
use crate::store::StoreError;
use crate::store::layout::Layout;
use crate::store::mount_record::{MountRecord, now};

/// The directory of a container's files.
const RUN: &str = "run";

impl MountDir {
    /// Records that a container runs in it.
    pub fn record_run(&self, layout: &Layout) {
        let record = MountRecord { mounted: Some(now()), ..self.record.clone() };
        let _ = self.write(layout, &record, Durability::Unsynced);
    }

    /// Lets other processes read the changes from now on, and lets those that this process starts keep
    /// the lock: it ends with the last of them.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the lock cannot be changed.
    pub fn lend(&self) -> Result<(), StoreError> {
        self.lock.lock_shared().at("lock", &self.path)?;
        let kept = rustix::io::fcntl_setfd(&self.lock, rustix::io::FdFlags::empty());
        Ok(kept.at("lock", &self.path)?)
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the name of the directory: 16 hex digits.
    pub fn id(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Returns the directory of a container's files.
    pub fn run(&self) -> std::path::PathBuf {
        self.path.join(RUN)
    }
}

/// Locks the writable mounts whose container was left by killed processes.
///
/// # Errors
/// [`StoreError::Fs`] if they cannot be listed.
pub fn stale(layout: &Layout) -> Result<Vec<MountDir>, StoreError> {
    let mut found = Vec::new();
    for kept in KeptDir::all(layout)? {
        if !kept.path.join(RUN).is_dir() {
            continue;
        }
        let Some(lock) = lock_dir(&kept.path)? else { continue };
        let Some(mut record) = kept.record() else { continue };
        record.name = Some(kept.name());
        found.push(MountDir { path: kept.path, record, is_new: false, lock });
    }
    Ok(found)
}
