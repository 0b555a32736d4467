//! What layers lack that were unpacked without a capability.
//!
//! ```text
//! <root>/rpull/omitted/<cache id>     JSON, see overlay::Omitted
//! ```
//!
//! A record is written before its layer can be committed, and removed after the layer's directory.
//! A layer without a record was unpacked with all capabilities, by dockerd or by rpull. Directories
//! have random names that are never used again, so a record that outlives its layer is harmless.

use std::path::PathBuf;

use super::layout::Layout;
use super::{LayerRecord, Store, StoreError};
use crate::fsutil::{self, At, FsError};
use crate::overlay::{Abilities, CacheId, Omitted};

/// Records what the layer in `directory` lacks.
///
/// # Errors
/// [`FsError`] if the record cannot be written.
pub fn record(layout: &Layout, directory: &CacheId, omitted: &Omitted) -> Result<(), FsError> {
    fsutil::ensure_dir(&layout.omitted(), 0o700)?;
    let path = path(layout, directory);
    let text = serde_json::to_vec(omitted).map_err(std::io::Error::other).at("write", &path)?;
    fsutil::write_new(&path, &text, 0o600)
}

/// Removes the record of a layer that was removed.
///
/// # Errors
/// [`FsError`] if it cannot be removed.
pub fn forget(layout: &Layout, directory: &CacheId) -> Result<(), FsError> {
    fsutil::remove(&path(layout, directory))
}

/// Returns the path of a layer's record.
pub fn path(layout: &Layout, directory: &CacheId) -> PathBuf {
    layout.omitted().join(directory.as_str())
}

/// Returns what the layer in `directory` lacks; `None` if it was unpacked with all capabilities.
///
/// # Errors
/// [`FsError`] if the record cannot be read.
pub fn of(layout: &Layout, directory: &CacheId) -> Result<Option<Omitted>, FsError> {
    let text = fsutil::read_optional(&path(layout, directory))?;
    Ok(text.map(|text| Omitted::parse(&text)))
}

impl Store {
    /// Returns what a layer lacks; `None` if it was unpacked with all capabilities.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the record cannot be read.
    pub fn omitted(&self, record: &LayerRecord) -> Result<Option<Omitted>, StoreError> {
        Ok(of(&self.layout, &record.cache_id)?)
    }

    /// Returns what one of the layers lacks that a process with `abilities` would not omit, in one
    /// clause.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a record cannot be read.
    pub fn avoidable(
        &self,
        layers: &[LayerRecord],
        abilities: &Abilities,
    ) -> Result<Option<String>, StoreError> {
        // No layer of most roots lacks anything.
        if !self.layout.omitted().is_dir() {
            return Ok(None);
        }
        for record in layers {
            let omitted = self.omitted(record)?;
            if let Some(why) = omitted.and_then(|omitted| omitted.avoidable(abilities)) {
                return Ok(Some(format!("layer {}: {why}", record.chain.short())));
            }
        }
        Ok(None)
    }

    /// Removes the records of layers that dockerd removed. The caller holds the store lock in
    /// exclusive mode.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a record cannot be removed.
    pub(super) fn remove_stale_omitted(&self) -> Result<(), StoreError> {
        let dir = self.layout.omitted();
        for name in fsutil::names_in(&dir)? {
            let exists = name.parse().is_ok_and(|id: CacheId| self.overlay().dir(&id).is_dir());
            if !exists {
                fsutil::remove(&dir.join(name))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_read_until_it_is_forgotten() {
        let (_dir, layout) = Layout::scratch();
        let id = CacheId::generate().unwrap();
        assert_eq!(of(&layout, &id).unwrap(), None);
        let omitted = Omitted { devices: 8, ..Omitted::default() };
        record(&layout, &id, &omitted).unwrap();
        assert_eq!(of(&layout, &id).unwrap(), Some(omitted));
        std::fs::write(path(&layout, &id), "").unwrap();
        assert!(of(&layout, &id).unwrap().unwrap().unknown);
        forget(&layout, &id).unwrap();
        forget(&layout, &id).unwrap();
        assert_eq!(of(&layout, &id).unwrap(), None);
    }

    #[test]
    fn record_of_a_layer_that_dockerd_removed_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::at(root.path(), None);
        store.layout.create().unwrap();
        let (gone, here) = (CacheId::generate().unwrap(), CacheId::generate().unwrap());
        for id in [&gone, &here] {
            record(&store.layout, id, &Omitted::default()).unwrap();
        }
        std::fs::create_dir(store.overlay().dir(&here)).unwrap();
        store.remove_stale_omitted().unwrap();
        assert_eq!(fsutil::names_in(&store.layout.omitted()).unwrap(), [here.as_str()]);
    }
}
