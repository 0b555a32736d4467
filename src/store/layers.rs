//! The layer db: one record per chain id (moby layer/filestore.go).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::layer_index::{IndexView, Key, LayerIndex};
use super::layer_record::{LayerRecord, cache_id_in};
use super::layout::{Layout, TAR_SPLIT};
use super::{StoreError, links};
use crate::digest::Digest;
use crate::fsutil::{self, At, FsError};
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
        let Some(record) = self.record(chain)? else { return Ok(None) };
        let tar_split = self.layout.layer(chain).join(TAR_SPLIT);
        let whole = self.diff_path(&record).is_dir() && could_be_gzip(&tar_split)?;
        Ok(whole.then_some(record))
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

    fn chains(&self) -> Result<Vec<ChainId>, StoreError> {
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
        Ok(File::open(&path).at("open", &path)?)
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

/// Bytes of a gzip file at least: header, an empty block, checksum and length.
const MIN_GZIP_SIZE: u64 = 20;

/// Decompressed bytes per compressed byte of DEFLATE at most.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// Returns whether a file ends with a plausible content length (RFC 1952). This check does not
/// read the whole file, and detects files that are empty, zeroed, and nearly all truncated ones.
pub(super) fn could_be_gzip(path: &Path) -> Result<bool, FsError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).at("open", path),
    };
    let meta = file.metadata().at("read", path)?;
    if !meta.is_file() || meta.len() < MIN_GZIP_SIZE {
        return Ok(false);
    }
    let mut end = [0; 4];
    file.read_exact_at(&mut end, meta.len() - 4).at("read", path)?;
    let (stated, most) = (u64::from(u32::from_le_bytes(end)), meta.len() * MAX_DEFLATE_RATIO);
    // The length is stored modulo 2^32, so that of a large file proves nothing.
    Ok(most > u64::from(u32::MAX) || (stated > 0 && stated <= most))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn tar_split_that_is_empty_or_cut_is_not_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(TAR_SPLIT);
        let judge = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            could_be_gzip(&path).unwrap()
        };
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder
            .write_all(&b"{\"type\":2,\"payload\":\"AAAA\",\"position\":0}\n".repeat(90))
            .unwrap();
        let whole = encoder.finish().unwrap();
        assert!(judge(&whole));
        assert!(!judge(b""));
        assert!(!judge(&vec![0; whole.len()]));
        assert!(!judge(&whole[..10]));
        assert!(!judge(&whole[..whole.len() - 5]), "the last bytes are another length");
        assert!(!could_be_gzip(&dir.path().join("absent")).unwrap());
    }
}
