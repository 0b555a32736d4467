//! The layer db: one record per chain id (moby layer/filestore.go).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::layout::{CACHE_ID, DIFF, Layout, PARENT, SIZE, TAR_SPLIT};
use super::{StoreError, links, stage};
use crate::digest::Digest;
use crate::fsutil::{self, At, FsError};
use crate::oci::{ChainId, DiffId};
use crate::overlay::CacheId;

/// A committed layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRecord {
    /// What the stack up to this layer is known by.
    pub chain: ChainId,
    /// The stack below; `None` for a base.
    pub parent: Option<ChainId>,
    /// The sha256 of its tar.
    pub diff_id: DiffId,
    /// Its directory in `overlay2`.
    pub cache_id: CacheId,
    /// The sum of the sizes of its non-directories, bytes.
    pub size: u64,
}

/// The committed layers of a root.
#[derive(Debug)]
pub struct Layers {
    pub(super) layout: Layout,
    /// Read once, kept by commits.
    index: Mutex<Option<Index>>,
}

/// Who has what content, and who stands on whom.
#[derive(Debug, Default)]
struct Index {
    by_diff: HashMap<DiffId, Vec<ChainId>>,
    children: HashMap<ChainId, Vec<ChainId>>,
}

impl Index {
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

    /// The record of `chain`, if its parts are there. One that lacks a part counts as absent:
    /// dockerd drops such records too, and a pull replaces them.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn get(&self, chain: &ChainId) -> Result<Option<LayerRecord>, StoreError> {
        let Some(record) = self.record(chain)? else { return Ok(None) };
        let tar_split = self.layout.layer(chain).join(TAR_SPLIT);
        let whole = self.diff_path(&record).is_dir() && could_be_gzip(&tar_split)?;
        Ok(whole.then_some(record))
    }

    /// What the files of a record say, whether or not the layer is there.
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

    /// The records of a whole stack, base first; `None` if one is missing.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn stack(&self, diff_ids: &[DiffId]) -> Result<Option<Vec<LayerRecord>>, StoreError> {
        ChainId::stack(diff_ids).iter().map(|chain| self.get(chain)).collect()
    }

    /// All well-formed records, whether or not their layers are there.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn list(&self) -> Result<Vec<LayerRecord>, StoreError> {
        let records = self.chains()?.into_iter().map(|chain| self.record(&chain));
        records.filter_map(Result::transpose).collect()
    }

    fn chains(&self) -> Result<Vec<ChainId>, StoreError> {
        let names = fsutil::names_in(&self.layout.layers())?;
        Ok(names.iter().filter_map(|name| Digest::from_hex(name).ok().map(ChainId)).collect())
    }

    /// How many records name each directory. More than one is damage: a directory has the files
    /// of one layer.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn claims(&self) -> Result<HashMap<CacheId, usize>, StoreError> {
        let mut claims = HashMap::new();
        for chain in self.chains()? {
            if let Some(id) = stage::cache_id_in(&self.layout.layer(&chain))? {
                *claims.entry(id).or_default() += 1;
            }
        }
        Ok(claims)
    }

    /// What is wrong with a stack, given base first: the first fault, as one sentence.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn fault(&self, stack: &[LayerRecord]) -> Result<Option<String>, StoreError> {
        let overlay = self.layout.overlay();
        let mut parent = None;
        for record in stack {
            if let Some(why) = links::fault(&overlay, record, parent)? {
                return Ok(Some(format!("layer {}: {why}", record.chain.short())));
            }
            parent = Some(record);
        }
        let claims = self.claims()?;
        let shared = stack.iter().find(|record| claims.get(&record.cache_id) > Some(&1));
        Ok(shared.map(|record| {
            format!("layer {}: another layer uses the same directory", record.chain.short())
        }))
    }

    /// Those of `chains` whose directory another record names as well.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn with_shared_directory(&self, chains: &[ChainId]) -> Result<Vec<ChainId>, StoreError> {
        let claims = self.claims()?;
        let mut shared = Vec::new();
        for chain in chains {
            let id = stage::cache_id_in(&self.layout.layer(chain))?;
            if id.and_then(|id| claims.get(&id)).is_some_and(|claims| *claims > 1) {
                shared.push(*chain);
            }
        }
        Ok(shared)
    }

    /// The whole layers with that content, whatever they stand on.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn by_diff_id(&self, diff_id: &DiffId) -> Result<Vec<LayerRecord>, StoreError> {
        let chains =
            self.with_index(|index| index.by_diff.get(diff_id).cloned().unwrap_or_default())?;
        chains.iter().filter_map(|chain| self.get(chain).transpose()).collect()
    }

    /// The records that stand on `chain`.
    pub(super) fn children(&self, chain: &ChainId) -> Result<Vec<LayerRecord>, StoreError> {
        let chains =
            self.with_index(|index| index.children.get(chain).cloned().unwrap_or_default())?;
        chains.iter().filter_map(|chain| self.record(chain).transpose()).collect()
    }

    /// Has the next look-up by content see what other processes committed.
    pub fn refresh(&self) {
        *self.index.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Opens a layer's tar-split file.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn tar_split(&self, chain: &ChainId) -> Result<File, StoreError> {
        let path = self.layout.layer(chain).join(TAR_SPLIT);
        Ok(File::open(&path).at("open", &path)?)
    }

    /// A layer's files.
    pub fn diff_path(&self, record: &LayerRecord) -> PathBuf {
        self.layout.overlay().diff(&record.cache_id)
    }

    /// Adds a record to the index.
    pub(super) fn note(&self, record: &LayerRecord) -> Result<(), StoreError> {
        self.with_index(|index| index.add(record))
    }

    fn with_index<T>(&self, act: impl FnOnce(&mut Index) -> T) -> Result<T, StoreError> {
        let mut guard = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            let mut index = Index::default();
            self.list()?.iter().for_each(|record| index.add(record));
            *guard = Some(index);
        }
        Ok(act(guard.get_or_insert_default()))
    }
}

/// Bytes of the shortest gzip file: header, an empty block, checksum and length.
const SHORTEST_GZIP: u64 = 20;

/// The most that DEFLATE compresses, bytes out of one byte.
const LARGEST_RATIO: u64 = 1032;

/// Whether a file ends with a length that could be that of its content (RFC 1952): what can be
/// told of a tar-split file without reading it. An empty file, one of zeros and nearly every
/// one that was cut off do not.
fn could_be_gzip(path: &Path) -> Result<bool, FsError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).at("open", path),
    };
    let meta = file.metadata().at("read", path)?;
    if !meta.is_file() || meta.len() < SHORTEST_GZIP {
        return Ok(false);
    }
    let mut end = [0; 4];
    file.read_exact_at(&mut end, meta.len() - 4).at("read", path)?;
    let (stated, most) = (u64::from(u32::from_le_bytes(end)), meta.len() * LARGEST_RATIO);
    // The length is kept modulo 2^32, so it tells nothing of a file that could have that much.
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
