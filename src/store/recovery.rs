//! Recovery after a boot: layers that a power failure may have damaged are verified, and what is
//! damaged is dropped, before any command uses it.

use std::collections::HashSet;
use std::convert::Infallible;

use super::layer_record::{LayerRecord, cache_id_in};
use super::parallel::on_all_cores;
use super::{Store, StoreError, links, omitted, stage, unsynced};
use crate::fsutil;
use crate::oci::ChainId;
use crate::overlay::CacheId;
use crate::reference::Reference;

/// What a recovery did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The number of layers that were verified.
    pub verified: usize,
    /// The references of images that were dropped, since layers of them were damaged.
    pub dropped: Vec<Reference>,
}

impl Store {
    /// Returns how many layers of other boots must be verified; `None` if there is nothing to do.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the lists cannot be read.
    pub fn unverified(&self) -> Result<Option<usize>, StoreError> {
        Ok(unsynced::of_other_boots(&self.layout)?.map(|unsynced| unsynced.layers.len()))
    }

    /// Verifies the layers that other boots left unsynced, by `is_intact` on all cores, and drops
    /// damaged layers with the images that need them. The caller holds the store lock in exclusive
    /// mode.
    ///
    /// # Errors
    /// [`StoreError`] if a record cannot be read or something cannot be removed. The next call
    /// begins anew.
    pub fn recover(
        &self,
        is_intact: &(dyn Fn(&LayerRecord) -> bool + Sync),
    ) -> Result<Recovered, StoreError> {
        let Some(unsynced) = unsynced::of_other_boots(&self.layout)? else {
            return Ok(Recovered::default());
        };
        self.remove_dead_write_sets()?;
        let mut records = Vec::new();
        let mut damaged = HashSet::new();
        for (chain, _) in &unsynced.layers {
            match self.layers().get(chain)? {
                Some(record) => records.push(record),
                None if self.layout.layer(chain).exists() => drop(damaged.insert(*chain)),
                None => {}
            }
        }
        let verified = records.len();
        let check = |record: &LayerRecord| Ok((!is_intact(record)).then_some(record.chain));
        let found: Result<_, Infallible> = on_all_cores(&records, check);
        damaged.extend(found.unwrap_or_default().into_iter().flatten());
        for record in records.iter().filter(|record| !damaged.contains(&record.chain)) {
            self.repair_links(record, &damaged)?;
        }
        let dropped = self.drop_images(&damaged)?;
        let mut index = self.layers().index.open()?;
        self.layers().remove(&mut index, &damaged.into_iter().collect::<Vec<_>>())?;
        // A damaged record may not name its directory.
        let records = self.layers().records_per_directory()?;
        for (_, directory) in &unsynced.layers {
            if !records.contains_key(directory) {
                self.remove_directory(directory)?;
            }
        }
        unsynced.remove(&self.layout)?;
        Ok(Recovered { verified, dropped })
    }

    /// Writes everything to the disk; layers need no verification after the next boot then.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if syncfs(2) fails.
    pub fn sync(&self) -> Result<(), StoreError> {
        unsynced::sync(&self.layout)
    }

    /// Removes staged layers of other boots. Their journals may be lost, and the files of their
    /// write sets too; names are not.
    fn remove_dead_write_sets(&self) -> Result<(), StoreError> {
        let dir = self.layout.write_sets();
        let names = fsutil::names_in(&dir)?;
        if names.is_empty() {
            return Ok(());
        }
        let (all, records) = (self.overlay().all()?, self.layers().records_per_directory()?);
        for name in names {
            if let Some(prefix) = stage::directory_prefix(&name) {
                // Another directory is that of a record which was being replaced.
                let named = cache_id_in(&dir.join(&name))?;
                let is_staged =
                    |id: &&CacheId| id.as_str().starts_with(prefix) || named.as_ref() == Some(*id);
                for id in all.iter().filter(is_staged).filter(|id| !records.contains_key(id)) {
                    self.remove_directory(id)?;
                }
            }
            fsutil::remove(&dir.join(name))?;
        }
        Ok(())
    }

    /// Removes a layer's directory with all links to it.
    fn remove_directory(&self, id: &CacheId) -> Result<(), StoreError> {
        let overlay = self.overlay();
        for link in overlay.links_to(id)? {
            overlay.remove_link(id, &link)?;
        }
        overlay.remove_layer(id, None)?;
        Ok(omitted::forget(&self.layout, id)?)
    }

    /// Rewrites the links of an intact layer, if a power failure damaged them.
    fn repair_links(
        &self,
        record: &LayerRecord,
        damaged: &HashSet<ChainId>,
    ) -> Result<(), StoreError> {
        let parent = match record.parent {
            Some(parent) if damaged.contains(&parent) => return Ok(()),
            Some(parent) => self.layers().get(&parent)?,
            None => None,
        };
        if record.parent.is_some() && parent.is_none() {
            return Ok(());
        }
        match links::fault(&self.overlay(), record, parent.as_ref())? {
            Some(_) => self.layers().repair(record, parent.as_ref()),
            None => Ok(()),
        }
    }

    /// Removes the images that need one of `chains`, with their names.
    fn drop_images(&self, chains: &HashSet<ChainId>) -> Result<Vec<Reference>, StoreError> {
        let mut dropped = Vec::new();
        if chains.is_empty() {
            return Ok(dropped);
        }
        for id in self.images().list()? {
            let Some(config) = self.images().config(&id) else { continue };
            if !ChainId::stack(config.diff_ids()).iter().any(|chain| chains.contains(chain)) {
                continue;
            }
            dropped.extend(self.names().update(|names| {
                let of_image = names.of(id);
                for name in &of_image {
                    names.remove(name);
                }
                of_image
            })?);
            self.images().remove(&id)?;
        }
        Ok(dropped)
    }
}
