//! Commits of staged layers and of images, checks and repairs of committed layers, and removals.
//! Commits and repairs take the `commit` lock, so all processes that need a layer get the same one.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::journal::JournalEntry;
use super::layer_index::{IndexView, REMOVING};
use super::layer_record::{LayerRecord, cache_id_in};
use super::layers::Layers;
use super::layout::{Layout, PARENT};
use super::{Store, StoreError, links, lock, omitted, stage, unsynced};
use crate::digest::Digest;
use crate::fsutil::{self, At, Durability};
use crate::oci::{ChainId, DiffId, ImageId};
use crate::overlay::CacheId;

/// The result of [`Layers::ensure_committed`].
#[derive(Debug)]
pub enum CommitOutcome {
    /// The layer is committed and consistent with its parents.
    Committed(LayerRecord),
    /// The layer is committed with a fault. Verify its files, then call [`Layers::repair`], or
    /// `ensure_committed` again with its directory as broken.
    Suspect(LayerRecord, String),
    /// The layer is neither committed nor staged by any process.
    Missing,
}

impl Store {
    /// Stores the config of an image with the committed layers `layers`, base first, and returns its
    /// ID.
    ///
    /// # Errors
    /// [`StoreError`] if a file cannot be read or written.
    pub fn commit_image(
        &self,
        config: &[u8],
        layers: &[LayerRecord],
    ) -> Result<ImageId, StoreError> {
        let id = ImageId(Digest::of(config));
        let path = self.layout.image(&id);
        let temporary = self.layout.temporary();
        let replacement = match self.images.get(&id) {
            Ok(Some(_)) => None,
            // Synced before the lock is taken, because that can take long.
            _ => Some(temporary.write(&path, config, 0o600, Durability::Synced)?),
        };
        let commit = lock::commit_lock(&self.layout)?;
        let index = &self.layers.index;
        let mut view = index.open_locked()?;
        index.add_image(&mut view, id, layers);
        if let Some(replacement) = replacement {
            replacement.rename()?;
            index.confirm(&mut view, &[], 0);
            drop(commit);
            fsutil::sync_dir(&self.layout.images())?;
        }
        Ok(id)
    }
}

impl Layers {
    /// Returns the committed layer with the content `diff_id` above `parent`, which must be
    /// committed. If it is missing and any process has that content staged, commits that by
    /// renaming its write set. Replaces a record whose directory is `broken`; the new layer takes
    /// over its link, by which the layers above refer to it.
    ///
    /// # Errors
    /// [`StoreError`] if a file cannot be read or written.
    pub fn ensure_committed(
        &self,
        parent: Option<&LayerRecord>,
        diff_id: DiffId,
        broken: Option<&CacheId>,
    ) -> Result<CommitOutcome, StoreError> {
        let chain = ChainId::above(parent.map(|parent| parent.chain), diff_id);
        let _commit = lock::commit_lock(&self.layout)?;
        if let Some(record) = self.get(&chain)?.filter(|there| broken != Some(&there.cache_id)) {
            return Ok(match links::fault(&self.layout.overlay(), &record, parent)? {
                None => CommitOutcome::Committed(record),
                Some(why) => CommitOutcome::Suspect(record, why),
            });
        }
        let complete = stage::all_complete(&self.layout)?;
        let Some(staged) = complete.into_iter().find(|staged| staged.diff_id == diff_id) else {
            return Ok(CommitOutcome::Missing);
        };
        self.commit(staged.path, parent, diff_id).map(CommitOutcome::Committed)
    }

    /// Repairs a suspect layer whose files were verified.
    ///
    /// # Errors
    /// [`StoreError`] if a file cannot be read or written.
    pub fn repair(
        &self,
        record: &LayerRecord,
        parent: Option<&LayerRecord>,
    ) -> Result<(), StoreError> {
        let _commit = lock::commit_lock(&self.layout)?;
        let children = self.children(&mut self.index.open_locked()?, &record.chain)?;
        links::repair(&self.layout, record, parent, &children)
    }

    /// Returns the diff ID of the blob `digest`, if a process has it staged.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the staged layers cannot be read.
    pub fn staged_blob(&self, digest: &Digest) -> Result<Option<DiffId>, StoreError> {
        let complete = stage::all_complete(&self.layout)?;
        let of_blob = complete.into_iter().find(|staged| staged.blob.as_ref() == Some(digest));
        Ok(of_blob.map(|staged| staged.diff_id))
    }

    /// Returns whether a process has a layer with that content staged.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the staged layers cannot be read.
    pub fn is_staged(&self, diff_id: &DiffId) -> Result<bool, StoreError> {
        Ok(stage::all_complete(&self.layout)?.iter().any(|staged| staged.diff_id == *diff_id))
    }

    fn commit(
        &self,
        set: PathBuf,
        parent: Option<&LayerRecord>,
        diff_id: DiffId,
    ) -> Result<LayerRecord, StoreError> {
        let damaged = |why: &str| StoreError::Damaged { path: set.clone(), why: why.to_owned() };
        let chain = ChainId::above(parent.map(|parent| parent.chain), diff_id);
        let cache_id = cache_id_in(&set)?.ok_or_else(|| damaged("its cache-id is missing"))?;
        let size = stage::size_in(&set)?.ok_or_else(|| damaged("its size is missing"))?;
        let overlay = self.layout.overlay();
        overlay.set_parent(&cache_id, parent.map(|parent| &parent.cache_id))?;
        // A process that was killed here may have left the file for another parent.
        fsutil::remove(&set.join(PARENT))?;
        if let Some(parent) = parent {
            let text = parent.chain.to_string();
            fsutil::write_new(&set.join(PARENT), text.as_bytes(), 0o644)?;
        }
        let place = self.layout.layer(&chain);
        let mut index = self.index.open_locked()?;
        let old = self.own_directory(&mut index, &chain)?;
        let children = self.children(&mut index, &chain)?;
        if old.is_some() || !children.is_empty() {
            links::inherit(&self.layout, &chain, old.as_ref(), &cache_id, &children)?;
        }
        let parent = parent.map(|parent| parent.chain);
        let record = LayerRecord { chain, parent, diff_id, cache_id, size };
        self.index.add(&mut index, &record);
        unsynced::add(&self.layout, &chain, &record.cache_id)?;
        // An existing record is broken. dockerd could not replace it either (moby#44909).
        let replaces = place.symlink_metadata().is_ok();
        match replaces {
            true => self.replace(&mut index, &set, &chain)?,
            false => fs::rename(&set, &place).at("commit layer to", &place)?,
        }
        self.index.confirm(&mut index, &[&record], usize::from(replaces));
        Ok(record)
    }

    /// Replaces the broken record of `chain`, in one step where the file system can: after a kill
    /// there is the old layer or the new one.
    fn replace(
        &self,
        index: &mut IndexView,
        set: &Path,
        chain: &ChainId,
    ) -> Result<(), StoreError> {
        let place = self.layout.layer(chain);
        let mut old = stage::withdraw_to_replace(&self.layout, set)?;
        match renameat_with(CWD, &old, CWD, &place, RenameFlags::EXCHANGE) {
            // The file system cannot exchange names, such as ZFS before 2.2.
            Err(Errno::INVAL | Errno::NOSYS) => {
                let removing = self.rename_away(&place)?;
                fs::rename(&old, &place).at("commit layer to", &place)?;
                old = removing;
            }
            exchanged => exchanged.at("commit layer to", &place)?,
        }
        self.remove_record(index, Some(*chain), &old)
    }

    /// Removes the record that a layer of a dead process replaced. The caller holds the store lock and
    /// the `commit` lock.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the record or its files cannot be removed.
    pub(super) fn finish_replacement(&self, entry: &JournalEntry) -> Result<(), StoreError> {
        match stage::replaced_record(&self.layout, entry)? {
            Some(old) => self.remove_record(&mut self.index.open_locked()?, None, &old),
            None => Ok(()),
        }
    }

    /// Returns the directory of the record of `chain`, unless another record names it, too.
    fn own_directory(
        &self,
        index: &mut IndexView,
        chain: &ChainId,
    ) -> Result<Option<CacheId>, StoreError> {
        let Some(id) = cache_id_in(&self.layout.layer(chain))? else { return Ok(None) };
        let shared = self.is_named(index, &id, Some(chain))?;
        Ok((!shared).then_some(id))
    }

    /// Removes layers, topmost first: renames their records, so that no layer is incomplete, then
    /// removes their files (moby layer_store.go `deleteLayer`). The caller holds the store lock in
    /// exclusive mode.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a record or its files cannot be removed.
    pub(super) fn remove(
        &self,
        index: &mut IndexView,
        chains: &[ChainId],
    ) -> Result<(), StoreError> {
        let records = chains.iter().filter_map(|chain| self.record(chain).transpose());
        let records = records.collect::<Result<Vec<_>, _>>()?;
        let moved: Result<Vec<PathBuf>, _> =
            chains.iter().map(|chain| self.rename_away(&self.layout.layer(chain))).collect();
        let moved = moved?;
        self.remove_files(index, &moved)?;
        self.index.remove(index, &records);
        self.index.confirm(index, &[], moved.len());
        Ok(())
    }

    /// Finishes removals of killed processes. The caller holds the store lock and the `commit`
    /// lock, so no removal is running.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a record or its files cannot be removed.
    pub(super) fn finish_removals(&self) -> Result<(), StoreError> {
        let mut index = self.index.open_locked()?;
        if index.is_confirmed() {
            return Ok(());
        }
        let dir = self.layout.layers();
        let names = fsutil::names_in(&dir)?;
        let begun = names.iter().filter(|name| name.ends_with(REMOVING));
        let begun: Vec<PathBuf> = begun.map(|name| dir.join(name)).collect();
        self.remove_files(&mut index, &begun)?;
        index.removals_are_finished();
        self.index.confirm(&mut index, &[], begun.len());
        Ok(())
    }

    /// Removes renamed records, and their directories unless another record names the same one.
    fn remove_files(&self, index: &mut IndexView, moved: &[PathBuf]) -> Result<(), StoreError> {
        for moved in moved {
            let name = moved.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let chain = name.split('-').next().and_then(|hex| Digest::from_hex(hex).ok());
            self.remove_record(index, chain.map(ChainId), moved)?;
        }
        Ok(())
    }

    /// Removes the record at `moved`, and its directory unless another record names the same one.
    /// `chain` is the layer that it was, if that is known.
    fn remove_record(
        &self,
        index: &mut IndexView,
        chain: Option<ChainId>,
        moved: &Path,
    ) -> Result<(), StoreError> {
        if let Some(cache_id) = cache_id_in(moved)?
            && !self.is_named(index, &cache_id, None)?
        {
            self.layout.overlay().remove_layer(&cache_id, None)?;
            chain.map_or(Ok(()), |chain| unsynced::forget(&self.layout, &chain, &cache_id))?;
            omitted::forget(&self.layout, &cache_id)?;
        }
        Ok(fsutil::remove(moved)?)
    }

    fn rename_away(&self, record: &Path) -> Result<PathBuf, StoreError> {
        let random = fsutil::random_hex::<32>().map_err(StoreError::Random)?;
        let removing = Layout::layer_removing(record, &random);
        fs::rename(record, &removing).at("remove layer", record)?;
        Ok(removing)
    }
}
