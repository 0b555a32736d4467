//! The layer db: one record per chain id (moby layer/filestore.go).

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;

use super::layer_index::{IndexView, Key, LayerIndex};
use super::layer_record::{LayerRecord, cache_id_in};
use super::layout::{Layout, TAR_SPLIT};
use super::{StoreError, links};
use crate::digest::Digest;
use crate::fsutil::{self, At};
use crate::oci::{ChainId, DiffId};
use crate::overlay::CacheId;

/// The committed layers of a root.
#[derive(Debug)]
pub struct Layers {
    pub(super) layout: Layout,
    pub(super) index: LayerIndex,
}

impl Layers {
    pub(super) fn new(layout: Layout) -> Self {
        Self { index: LayerIndex::new(layout.clone()), layout }
    }

    /// Returns the record of `chain`, if the layer is complete. An incomplete one counts as
    /// absent: dockerd drops such records, too, and a pull replaces them.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a file cannot be read.
    pub fn get(&self, chain: &ChainId) -> Result<Option<LayerRecord>, StoreError> {
        Ok(LayerRecord::read_complete(&self.layout, chain)?)
    }

    /// Reads a record, even if its layer is incomplete.
    pub(super) fn record(&self, chain: &ChainId) -> Result<Option<LayerRecord>, StoreError> {
        Ok(LayerRecord::read(&self.layout, chain)?)
    }

    /// Returns all well-formed records, even of incomplete layers. Reads the whole layer db.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a file cannot be read.
    pub fn list(&self) -> Result<Vec<LayerRecord>, StoreError> {
        let records = self.chains()?.into_iter().map(|chain| self.record(&chain));
        records.filter_map(Result::transpose).collect()
    }

    /// Returns how many records name each directory. Reads the whole layer db.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a file cannot be read.
    pub fn records_per_directory(&self) -> Result<HashMap<CacheId, usize>, StoreError> {
        let mut counts = HashMap::new();
        for chain in self.chains()? {
            if let Some(id) = cache_id_in(&self.layout.layer(&chain))? {
                *counts.entry(id).or_default() += 1;
            }
        }
        Ok(counts)
    }

    /// Returns the chain IDs of all records, complete or not.
    pub(super) fn chains(&self) -> Result<Vec<ChainId>, StoreError> {
        let names = fsutil::names_in(&self.layout.layers())?;
        Ok(names.iter().filter_map(|name| Digest::from_hex(name).ok().map(ChainId)).collect())
    }

    /// Returns the records of a stack, base first; `None` if one is missing.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a file cannot be read.
    pub fn stack(&self, diff_ids: &[DiffId]) -> Result<Option<Vec<LayerRecord>>, StoreError> {
        ChainId::stack(diff_ids).iter().map(|chain| self.get(chain)).collect()
    }

    /// Returns the first fault of a stack, given base first, in one sentence.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a file cannot be read.
    pub fn fault(&self, stack: &[LayerRecord]) -> Result<Option<String>, StoreError> {
        let overlay = self.layout.overlay();
        let mut parent = None;
        for record in stack {
            if let Some(why) = links::fault(&overlay, record, parent)? {
                return Ok(Some(format!("layer {}: {why}", record.chain.short())));
            }
            parent = Some(record);
        }
        let named: Vec<_> = stack.iter().map(|it| (it.chain, Some(it.cache_id.clone()))).collect();
        let shared = self.sharing_directories(&named)?;
        Ok(shared
            .first()
            .map(|chain| format!("layer {}: another layer uses the same directory", chain.short())))
    }

    /// Returns those of `chains` whose directory another record names, too. That is damage,
    /// because a directory has the files of one layer. The caller does not hold the `commit` lock.
    ///
    /// # Errors
    /// [`StoreError`] if a file cannot be read.
    pub fn with_shared_directory(&self, chains: &[ChainId]) -> Result<Vec<ChainId>, StoreError> {
        let read = |chain: &ChainId| Ok((*chain, cache_id_in(&self.layout.layer(chain))?));
        let named: Vec<_> = chains.iter().map(read).collect::<Result<_, StoreError>>()?;
        self.sharing_directories(&named)
    }

    /// Does the same for layers whose directories are known.
    fn sharing_directories(
        &self,
        named: &[(ChainId, Option<CacheId>)],
    ) -> Result<Vec<ChainId>, StoreError> {
        let mut index = self.index.open()?;
        let mut shared = Vec::new();
        for (chain, id) in named {
            let Some(id) = id else { continue };
            let another =
                named.iter().any(|(other, named)| other != chain && named.as_ref() == Some(id));
            if another || self.is_named(&mut index, id, Some(chain))? {
                shared.push(*chain);
            }
        }
        Ok(shared)
    }

    /// Returns whether a record other than that of `except` names the directory `id`.
    pub(super) fn is_named(
        &self,
        index: &mut IndexView,
        id: &CacheId,
        except: Option<&ChainId>,
    ) -> Result<bool, StoreError> {
        for chain in self.index.find(index, &Key::Directory(id.clone()))? {
            if except != Some(&chain)
                && cache_id_in(&self.layout.layer(&chain))?.as_ref() == Some(id)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the complete layers with that content, above any parent. The caller does not hold
    /// the `commit` lock.
    ///
    /// # Errors
    /// [`StoreError`] if a file cannot be read.
    pub fn by_diff_id(&self, diff_id: &DiffId) -> Result<Vec<LayerRecord>, StoreError> {
        let chains = self.index.find(&mut self.index.open()?, &Key::Diff(*diff_id))?;
        let records = chains.iter().filter_map(|chain| self.get(chain).transpose());
        records.filter(|record| record.as_ref().is_ok_and(|it| it.diff_id == *diff_id)).collect()
    }

    /// Returns the records whose parent is `chain`.
    pub(super) fn children(
        &self,
        index: &mut IndexView,
        chain: &ChainId,
    ) -> Result<Vec<LayerRecord>, StoreError> {
        let mut children = Vec::new();
        for child in self.index.find(index, &Key::Parent(*chain))? {
            children.extend(self.record(&child)?.filter(|child| child.parent == Some(*chain)));
        }
        Ok(children)
    }

    /// Returns whether a layer other than `except` has the parent `chain`. That follows from its chain
    /// ID, so its record is not read.
    pub(super) fn has_child(
        &self,
        index: &mut IndexView,
        chain: &ChainId,
        except: &[ChainId],
    ) -> Result<bool, StoreError> {
        let children = self.index.find(index, &Key::Parent(*chain))?;
        let mut others = children.iter().filter(|child| !except.contains(child));
        Ok(others.any(|child| self.layout.layer(child).exists()))
    }

    /// Makes the next look-up find what other processes have committed.
    pub fn refresh(&self) {
        self.index.forget();
    }

    /// Opens a layer's tar-split file.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if it cannot be opened.
    pub fn tar_split(&self, chain: &ChainId) -> Result<File, StoreError> {
        let path = self.layout.layer(chain).join(TAR_SPLIT);
        Ok(fsutil::open(&path).at("open", &path)?)
    }

    /// Returns the path of a layer's tar-split file.
    pub fn tar_split_path(&self, chain: &ChainId) -> PathBuf {
        self.layout.layer(chain).join(TAR_SPLIT)
    }

    /// Returns the directory of a layer's files.
    pub fn diff_path(&self, record: &LayerRecord) -> PathBuf {
        self.layout.overlay().diff(&record.cache_id)
    }
}
