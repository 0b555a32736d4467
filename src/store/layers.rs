//! The layer db: a record a chain id (moby layer/filestore.go).

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Mutex;

use super::StoreError;
use super::layout::{CACHE_ID, DIFF, Layout, PARENT, SIZE, TAR_SPLIT};
use super::stage::Staged;
use crate::fsutil::{self, At};
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
    layout: Layout,
    /// The chains that have a layer with that diff id; read once, kept by commits.
    by_diff: Mutex<Option<HashMap<DiffId, Vec<ChainId>>>>,
}

impl Layers {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, by_diff: Mutex::new(None) }
    }

    /// The record of `chain`. One that lacks a part, or whose directory is gone, counts as
    /// absent: dockerd drops such records too, and a pull replaces them.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn get(&self, chain: &ChainId) -> Result<Option<LayerRecord>, StoreError> {
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
        let (Ok(diff_id), Ok(size), Ok(cache_id)) = (diff.parse(), size.parse(), cache.parse())
        else {
            return Ok(None);
        };
        let record = LayerRecord { chain: *chain, parent, diff_id, cache_id, size };
        let whole = self.layout.overlay().diff(&record.cache_id).is_dir()
            && dir.join(TAR_SPLIT).is_file()
            && ChainId::above(parent, diff_id) == *chain;
        Ok(whole.then_some(record))
    }

    /// The records of `chain` and all below it, base first; `None` if one is missing.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn stack(&self, diff_ids: &[DiffId]) -> Result<Option<Vec<LayerRecord>>, StoreError> {
        ChainId::stack(diff_ids).iter().map(|chain| self.get(chain)).collect()
    }

    /// All whole records.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn list(&self) -> Result<Vec<LayerRecord>, StoreError> {
        let names = fsutil::names_in(&self.layout.layers())?;
        let chains = names.iter().filter_map(|name| crate::digest::Digest::from_hex(name).ok());
        let records = chains.map(|digest| self.get(&ChainId(digest)));
        records.filter_map(Result::transpose).collect()
    }

    /// The layers with that content, whatever they stand on.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn by_diff_id(&self, diff_id: &DiffId) -> Result<Vec<LayerRecord>, StoreError> {
        let chains = self.with_index(|index| index.get(diff_id).cloned().unwrap_or_default())?;
        chains.iter().filter_map(|chain| self.get(chain).transpose()).collect()
    }

    /// Looks again at what other processes may have committed.
    pub fn refresh(&self) {
        *self.by_diff.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }

    /// Opens a layer's tar-split record.
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

    /// Makes a staged layer the one of its chain: writes its record, and renames it into
    /// place, which is the moment it exists. If another process was faster, its layer is
    /// returned and ours removed.
    ///
    /// # Errors
    /// [`StoreError::Fs`]; the staged layer is removed.
    pub fn commit(
        &self,
        staged: Staged,
        parent: Option<&LayerRecord>,
        diff_id: DiffId,
        size: u64,
    ) -> Result<LayerRecord, StoreError> {
        let chain = ChainId::above(parent.map(|parent| parent.chain), diff_id);
        let overlay = self.layout.overlay();
        if let Some(parent) = parent {
            overlay.set_parent(staged.cache_id(), &parent.cache_id)?;
        }
        let set = staged.write_set();
        let put =
            |name: &str, text: String| fsutil::write_new(&set.join(name), text.as_bytes(), 0o644);
        put(DIFF, diff_id.to_string())?;
        put(SIZE, size.to_string())?;
        put(CACHE_ID, staged.cache_id().to_string())?;
        if let Some(parent) = parent {
            put(PARENT, parent.chain.to_string())?;
        }
        fsutil::sync_dir(set)?;
        let place = self.layout.layer(&chain);
        while let Err(e) = fs::rename(set, &place) {
            if !place.is_dir() {
                return Err(e).at("commit layer to", &place)?;
            }
            if let Some(theirs) = self.get(&chain)? {
                return Ok(theirs);
            }
            // What stands there is broken, and would stand in dockerd's way as well
            // (moby#44909).
            self.move_away(&chain)?;
        }
        fsutil::sync_dir(&self.layout.layers())?;
        let cache_id = staged.committed();
        self.with_index(|index| index.entry(diff_id).or_default().push(chain))?;
        Ok(LayerRecord { chain, parent: parent.map(|p| p.chain), diff_id, cache_id, size })
    }

    /// Removes a layer: first its record by a rename, so that it never half exists, then
    /// its files (moby layer_store.go `deleteLayer`).
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn remove(&self, record: &LayerRecord) -> Result<(), StoreError> {
        let moved = self.rename_away(&record.chain)?;
        self.layout.overlay().remove_layer(&record.cache_id, None)?;
        fsutil::remove(&moved)?;
        self.with_index(|index| {
            index.entry(record.diff_id).or_default().retain(|chain| *chain != record.chain);
        })
    }

    fn move_away(&self, chain: &ChainId) -> Result<(), StoreError> {
        let path = self.layout.layer(chain).join(CACHE_ID);
        let cache_id = fsutil::read_optional(&path)?.and_then(|text| text.parse::<CacheId>().ok());
        let moved = self.rename_away(chain)?;
        if let Some(cache_id) = cache_id {
            self.layout.overlay().remove_layer(&cache_id, None)?;
        }
        Ok(fsutil::remove(&moved)?)
    }

    fn rename_away(&self, chain: &ChainId) -> Result<PathBuf, StoreError> {
        let random = fsutil::random_hex::<32>().map_err(StoreError::Random)?;
        let (from, to) = (self.layout.layer(chain), self.layout.layer_removing(chain, &random));
        fs::rename(&from, &to).at("remove layer", &from)?;
        Ok(to)
    }

    fn with_index<T>(
        &self,
        act: impl FnOnce(&mut HashMap<DiffId, Vec<ChainId>>) -> T,
    ) -> Result<T, StoreError> {
        let mut guard = self.by_diff.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if guard.is_none() {
            let mut index: HashMap<DiffId, Vec<ChainId>> = HashMap::new();
            for record in self.list()? {
                index.entry(record.diff_id).or_default().push(record.chain);
            }
            *guard = Some(index);
        }
        Ok(act(guard.get_or_insert_default()))
    }
}
