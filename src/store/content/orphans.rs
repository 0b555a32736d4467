//! The orphans of a root's own content directory.

use super::dir::Dir;
use super::{BLOB_LOCK, Content, IndexState, SHARED, locks, partial};
use crate::store::orphans::{Orphan, OrphanKind};
use crate::store::{Store, StoreError};

impl Store {
    /// Adds partial downloads, and blobs that no image needs. A directory that several roots share
    /// has none.
    ///
    /// # Errors
    /// [`StoreError`] if the content or the store cannot be read.
    pub(in crate::store) fn orphaned_content(
        &self,
        orphans: &mut Vec<Orphan>,
    ) -> Result<(), StoreError> {
        let Some(dirs) = self.content().existing()? else { return Ok(()) };
        if dirs.root.stat(SHARED).is_some() {
            return Ok(());
        }
        for (name, bytes) in partial::list(&dirs.ingest)? {
            let (kind, path) = (OrphanKind::PartialDownload, dirs.ingest.path().join(name));
            orphans.push(Orphan { kind, path, bytes });
        }
        let IndexState::Valid(index) = dirs.index()? else { return Ok(()) };
        let unneeded = self.unneeded_blobs(&dirs, &index)?;
        // A running pull keeps a config before it has written the image that needs it.
        if unneeded.is_empty() || locks::is_in_use(&dirs.locks)? {
            return Ok(());
        }
        for name in unneeded {
            let (kind, path) = (OrphanKind::ContentBlob, dirs.blobs.path().join(&name));
            orphans.push(Orphan { kind, path, bytes: disk_bytes(&dirs.blobs, &name) });
        }
        Ok(())
    }
}

impl Content {
    /// Removes all partial downloads that no process uses, from a directory that only this root uses.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read or removed.
    pub(in crate::store) fn remove_partials(&self) -> Result<(), StoreError> {
        let Some(dirs) = self.existing()? else { return Ok(()) };
        if dirs.root.stat(SHARED).is_some() {
            return Ok(());
        }
        for (name, _) in partial::list(&dirs.ingest)? {
            let digest = name.split('.').next().unwrap_or_default();
            if let Ok(_lock) = locks::try_temporary(&dirs.locks, format!("{BLOB_LOCK}{digest}"))? {
                partial::remove(&dirs.ingest, digest)?;
            }
        }
        Ok(())
    }
}

/// Returns the bytes that a file takes on the disk.
pub fn disk_bytes(dir: &Dir, name: &str) -> u64 {
    dir.stat(name).map_or(0, |stat| u64::try_from(stat.st_blocks).unwrap_or(0) * 512)
}
