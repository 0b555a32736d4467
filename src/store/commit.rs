//! A layer becomes part of an image: it is there and right, or a staged one is committed. All
//! of it happens under the `commit` lock, so processes that want the same layer get the same.

use std::fs;
use std::path::PathBuf;

use super::layers::{LayerRecord, Layers};
use super::layout::PARENT;
use super::{StoreError, links, lock, stage};
use crate::digest::Digest;
use crate::fsutil::{self, At};
use crate::oci::{ChainId, DiffId};
use crate::overlay::CacheId;

/// What came of [`Layers::establish`].
#[derive(Debug)]
pub enum Established {
    /// The layer is committed, and agrees with its parents.
    Layer(LayerRecord),
    /// It is committed and something is wrong with it. Verify its files, then call
    /// [`Layers::repair`], or `establish` again with its directory as broken.
    Suspect(LayerRecord, String),
    /// It is not there, and no process has it staged.
    Missing,
}

impl Layers {
    /// Gives the layer with the content `diff_id` above `parent`, which must have been
    /// established before. If it is not committed and any process has that content staged, that
    /// is committed: its write set is renamed into place, which is the moment the layer exists.
    /// A record whose directory is `broken` is replaced; the new layer takes its link, since
    /// the layers above know it by that.
    ///
    /// # Errors
    /// [`StoreError`] if a file cannot be read or written.
    pub fn establish(
        &self,
        parent: Option<&LayerRecord>,
        diff_id: DiffId,
        broken: Option<&CacheId>,
    ) -> Result<Established, StoreError> {
        let chain = ChainId::above(parent.map(|parent| parent.chain), diff_id);
        let _commit = lock::commit(&self.layout)?;
        if let Some(record) = self.get(&chain)?.filter(|there| broken != Some(&there.cache_id)) {
            return Ok(match links::fault(&self.layout.overlay(), &record, parent)? {
                None => Established::Layer(record),
                Some(why) => Established::Suspect(record, why),
            });
        }
        let complete = stage::all_complete(&self.layout)?;
        let Some(staged) = complete.into_iter().find(|staged| staged.diff_id == diff_id) else {
            return Ok(Established::Missing);
        };
        self.commit(staged.path, parent, diff_id).map(Established::Layer)
    }

    /// Rewrites what made a layer suspect, after its files were verified.
    ///
    /// # Errors
    /// [`StoreError`] if a file cannot be read or written.
    pub fn repair(
        &self,
        record: &LayerRecord,
        parent: Option<&LayerRecord>,
    ) -> Result<(), StoreError> {
        let _commit = lock::commit(&self.layout)?;
        links::repair(&self.layout, record, parent, &self.children(&record.chain)?)
    }

    /// What the blob `digest` unpacks to, if a process has it staged.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn staged_blob(&self, digest: &Digest) -> Result<Option<DiffId>, StoreError> {
        let complete = stage::all_complete(&self.layout)?;
        let of_blob = complete.into_iter().find(|staged| staged.blob.as_ref() == Some(digest));
        Ok(of_blob.map(|staged| staged.diff_id))
    }

    /// Whether a process has a layer with that content staged.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
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
        let cache_id =
            stage::cache_id_in(&set)?.ok_or_else(|| damaged("its cache-id is missing"))?;
        let size = stage::size_in(&set)?.ok_or_else(|| damaged("its size is missing"))?;
        let overlay = self.layout.overlay();
        overlay.set_parent(&cache_id, parent.map(|parent| &parent.cache_id))?;
        // A process that was killed just here may have left another parent's.
        fsutil::remove(&set.join(PARENT))?;
        if let Some(parent) = parent {
            let text = parent.chain.to_string();
            fsutil::write_new(&set.join(PARENT), text.as_bytes(), 0o644)?;
        }
        fsutil::sync_dir(&set)?;
        let place = self.layout.layer(&chain);
        let old = self.own_directory(&chain)?;
        let children = self.children(&chain)?;
        if old.is_some() || !children.is_empty() {
            links::inherit(&self.layout, &chain, old.as_ref(), &cache_id, &children)?;
        }
        // What is there is broken, and would be in dockerd's way as well (moby#44909).
        let moved = if place.exists() { Some(self.rename_away(&chain)?) } else { None };
        fs::rename(&set, &place).at("commit layer to", &place)?;
        fsutil::sync_dir(&self.layout.layers())?;
        self.remove_files(moved.as_slice())?;
        let parent = parent.map(|parent| parent.chain);
        let record = LayerRecord { chain, parent, diff_id, cache_id, size };
        self.note(&record)?;
        Ok(record)
    }

    /// The directory that the record of `chain` names, unless another record names it too: then
    /// it is that one's.
    fn own_directory(&self, chain: &ChainId) -> Result<Option<CacheId>, StoreError> {
        let id = stage::cache_id_in(&self.layout.layer(chain))?;
        if id.is_none() || self.with_shared_directory(&[*chain])?.contains(chain) {
            return Ok(None);
        }
        Ok(id)
    }

    /// Removes layers, topmost first: first their records by a rename each, so that no layer
    /// half exists, then their files (moby layer_store.go `deleteLayer`). The caller holds the
    /// store lock alone.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn remove(&self, chains: &[ChainId]) -> Result<(), StoreError> {
        let moved: Result<Vec<PathBuf>, _> =
            chains.iter().map(|chain| self.rename_away(chain)).collect();
        self.remove_files(&moved?)?;
        self.refresh();
        Ok(())
    }

    /// Finishes removals that a killed process began. The caller holds the store lock and the
    /// `commit` lock, so no process is just removing.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub(super) fn finish_removals(&self) -> Result<(), StoreError> {
        let dir = self.layout.layers();
        let names = fsutil::names_in(&dir)?;
        let begun = names.iter().filter(|name| name.ends_with("-removing"));
        self.remove_files(&begun.map(|name| dir.join(name)).collect::<Vec<_>>())
    }

    /// Removes records that were renamed away, and their directories unless another record
    /// names the same one.
    fn remove_files(&self, moved: &[PathBuf]) -> Result<(), StoreError> {
        if moved.is_empty() {
            return Ok(());
        }
        let claims = self.claims()?;
        for moved in moved {
            let cache_id = stage::cache_id_in(moved)?;
            if let Some(cache_id) = cache_id.filter(|id| !claims.contains_key(id)) {
                self.layout.overlay().remove_layer(&cache_id, None)?;
            }
            fsutil::remove(moved)?;
        }
        Ok(())
    }

    fn rename_away(&self, chain: &ChainId) -> Result<PathBuf, StoreError> {
        let random = fsutil::random_hex::<32>().map_err(StoreError::Random)?;
        let (from, to) = (self.layout.layer(chain), self.layout.layer_removing(chain, &random));
        fs::rename(&from, &to).at("remove layer", &from)?;
        Ok(to)
    }
}
