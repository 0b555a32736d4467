//! The layer db: one record per chain id (moby layer/filestore.go).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::layer_record::LayerRecord;
use super::layout::{CACHE_ID, DIFF, Layout, PARENT, SIZE, TAR_SPLIT};
use super::{StoreError, links, stage};
use crate::digest::Digest;
use crate::fsutil::{self, At, FsError};
use crate::oci::{ChainId, DiffId};
use crate::overlay::CacheId;

/// The committed layers of a root.
#[derive(Debug)]
pub struct Layers {
    pub(super) layout: Layout,
    /// Read on first use, updated by commits.
    index: Mutex<Option<LayerIndex>>,
}

/// The records by content and by parent.
#[derive(Debug, Default)]
struct LayerIndex {
    by_diff: HashMap<DiffId, Vec<ChainId>>,
    children: HashMap<ChainId, Vec<ChainId>>,
}

impl LayerIndex {
    fn add(&mut self, record: &LayerRecord) {
        let add = |chains: &mut Vec<ChainId>| {
            if !chains.contains(&record.chain) {
                chains.push(record.chain);
            }
        };
        add(self.by_diff.entry(record.diff_id).or_default());
        if let Some(parent) = record.parent {
            add(self.children.entry(parent).or_default());
        }
    }
}

impl Layers {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, index: Mutex::new(None) }
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
    fn record(&self, chain: &ChainId) -> Result<Option<LayerRecord>, StoreError> {
        let dir = self.layout.layer(chain);
        let read = |name: &str| fsutil::read_optional(&dir.join(name));
        let (Some(diff), Some(size), Some(cache)) = (read(DIFF)?, read(SIZE)?, read(CACHE_ID)?)
        else {
            return Ok(None);
        };
        let parent = match read(PARENT)?.map(|text| text.parse()) {
            None => None,
            Some(Ok(parent)) => Some(parent),
            Some(Err(_)) => return Ok(None),
        };
        let (Ok(diff_id), Ok(bytes), Ok(cache_id)) = (diff.parse(), size.parse(), cache.parse())
        else {
            return Ok(None);
        };
        let as_written = |bytes: u64| bytes.to_string() == size;
        let right = ChainId::above(parent, diff_id) == *chain && as_written(bytes);
        Ok(right.then_some(LayerRecord { chain: *chain, parent, diff_id, cache_id, size: bytes }))
    }

    /// Returns the records of a stack, base first; `None` if one is missing.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a file cannot be read.
    pub fn stack(&self, diff_ids: &[DiffId]) -> Result<Option<Vec<LayerRecord>>, StoreError> {
        ChainId::stack(diff_ids).iter().map(|chain| self.get(chain)).collect()
    }

    /// Returns all well-formed records, even if their layers are incomplete.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a file cannot be read.
    pub fn list(&self) -> Result<Vec<LayerRecord>, StoreError> {
        let records = self.chains()?.into_iter().map(|chain| self.record(&chain));
        records.filter_map(Result::transpose).collect()
    }

    fn chains(&self) -> Result<Vec<ChainId>, StoreError> {
        let names = fsutil::names_in(&self.layout.layers())?;
        Ok(names.iter().filter_map(|name| Digest::from_hex(name).ok().map(ChainId)).collect())
    }

    /// Returns the number of records that name each directory. More than one is damage, because
    /// a directory has the files of one layer.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a file cannot be read.
    pub fn records_per_directory(&self) -> Result<HashMap<CacheId, usize>, StoreError> {
        let mut counts = HashMap::new();
        for chain in self.chains()? {
            if let Some(id) = stage::cache_id_in(&self.layout.layer(&chain))? {
                *counts.entry(id).or_default() += 1;
            }
        }
        Ok(counts)
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
        let counts = self.records_per_directory()?;
        let shared = stack.iter().find(|record| counts.get(&record.cache_id) > Some(&1));
        Ok(shared.map(|record| {
            format!("layer {}: another layer uses the same directory", record.chain.short())
        }))
    }

    /// Returns those of `chains` whose directory another record names, too.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a file cannot be read.
    pub fn with_shared_directory(&self, chains: &[ChainId]) -> Result<Vec<ChainId>, StoreError> {
        let counts = self.records_per_directory()?;
        let mut shared = Vec::new();
        for chain in chains {
            let id = stage::cache_id_in(&self.layout.layer(chain))?;
            if id.and_then(|id| counts.get(&id)).is_some_and(|counts| *counts > 1) {
                shared.push(*chain);
            }
        }
        Ok(shared)
    }

    /// Returns the complete layers with that content, above any parent.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a file cannot be read.
    pub fn by_diff_id(&self, diff_id: &DiffId) -> Result<Vec<LayerRecord>, StoreError> {
        let chains =
            self.with_index(|index| index.by_diff.get(diff_id).cloned().unwrap_or_default())?;
        chains.iter().filter_map(|chain| self.get(chain).transpose()).collect()
    }

    /// Returns the records whose parent is `chain`.
    pub(super) fn children(&self, chain: &ChainId) -> Result<Vec<LayerRecord>, StoreError> {
        let chains =
            self.with_index(|index| index.children.get(chain).cloned().unwrap_or_default())?;
        chains.iter().filter_map(|chain| self.record(chain).transpose()).collect()
    }

    /// Makes the next look-up by content read the records again, since other processes may have
    /// committed layers.
    pub fn refresh(&self) {
        *self.index.lock().unwrap_or_else(PoisonError::into_inner) = None;
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

    /// Adds a record to the index.
    pub(super) fn add_to_index(&self, record: &LayerRecord) -> Result<(), StoreError> {
        self.with_index(|index| index.add(record))
    }

    fn with_index<T>(&self, act: impl FnOnce(&mut LayerIndex) -> T) -> Result<T, StoreError> {
        let mut guard = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            let mut index = LayerIndex::default();
            self.list()?.iter().for_each(|record| index.add(record));
            *guard = Some(index);
        }
        Ok(act(guard.get_or_insert_default()))
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
