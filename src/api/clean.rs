//! The space of a store, and what gives it back.

use super::store::{Removal, Store};
use crate::error::Error;
use crate::store::{Orphan, Orphans, Prune, Pruned, Usage};

impl Store {
    /// Measures the images, layers and orphans of the store. Changes nothing.
    ///
    /// # Errors
    /// There is no store, or it cannot be read.
    pub fn usage(&self) -> Result<Usage, Error> {
        self.read(crate::store::Store::usage)
    }

    /// Returns what [`Removal::remove_orphans`] would remove.
    ///
    /// # Errors
    /// There is no store, it cannot be read, or the list of image names is damaged.
    pub fn orphans(&self) -> Result<Orphans, Error> {
        self.read(|store| {
            store.must_exist()?;
            store.orphans()
        })
    }

    /// Returns what [`Removal::prune`] would remove.
    ///
    /// # Errors
    /// There is no store, or it cannot be read.
    pub fn prunable(&self, prune: &Prune) -> Result<Pruned, Error> {
        self.read(|store| {
            store.must_exist()?;
            store.prune(prune, true)
        })
    }
}

impl Store {
    /// Removes the blobs of the content store that no entry of its `index.json` needs, such as those of
    /// tags that moved, and returns them. In a `dry_run`, they are only returned. Waits for pulls into
    /// all stores that share the content. Nothing else removes anything from a shared content store.
    ///
    /// # Errors
    /// There is no content store, its index is damaged, or a file cannot be removed.
    pub fn trim_content(&self, dry_run: bool) -> Result<Vec<Orphan>, Error> {
        Ok(self.begin().content().trim(dry_run, &*self.waiting)?)
    }
}

impl Removal {
    /// Removes what no image, container or mount needs: layers without an image, directories and
    /// links without a record, unused records, partial downloads, content of removed images. Returns
    /// what was removed.
    ///
    /// # Errors
    /// Something cannot be read or removed, or the list of image names is damaged.
    pub fn remove_orphans(&self) -> Result<Orphans, Error> {
        Ok(self.store.remove_orphans()?)
    }

    /// Removes the images that match `prune`, the least recently used first, and the layers that only
    /// they have. What a container or a mount uses stays.
    ///
    /// # Errors
    /// The store cannot be read or changed.
    pub fn prune(&self, prune: &Prune) -> Result<Pruned, Error> {
        Ok(self.store.prune(prune, false)?)
    }
}
