//! A layer on its way in: a directory in `overlay2` and a write set in `layerdb/tmp` that
//! nothing refers to yet.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StoreError;
use super::journal::{Journal, Leftover};
use super::layout::{Layout, TAR_SPLIT};
use crate::fsutil::{self, At};
use crate::overlay::{CacheId, LinkId};

/// A staged layer. Dropped without a commit, it is removed; killed without a chance to, it
/// is swept by whoever next writes to the root, because the journal names it.
#[derive(Debug)]
pub struct Staged {
    layout: Layout,
    journal: Arc<Journal>,
    leftover: Leftover,
    write_set: PathBuf,
    done: bool,
}

impl Staged {
    pub(super) fn new(layout: &Layout, journal: Arc<Journal>) -> Result<Self, StoreError> {
        let cache_id = CacheId::generate().map_err(StoreError::Random)?;
        let link_id = LinkId::generate().map_err(StoreError::Random)?;
        let random = fsutil::random_hex::<5>().map_err(StoreError::Random)?;
        let leftover = Leftover { cache_id, link_id, write_set: format!("write-set-{random}") };
        let write_set = layout.write_sets().join(&leftover.write_set);
        journal.add(&leftover)?;
        let staged = Self { layout: layout.clone(), journal, leftover, write_set, done: false };
        fsutil::ensure_dir(&staged.write_set, 0o700)?;
        layout.overlay().create_layer(&staged.leftover.cache_id, &staged.leftover.link_id)?;
        Ok(staged)
    }

    /// The directory for the layer's files, empty at first.
    pub fn diff_path(&self) -> PathBuf {
        self.layout.overlay().diff(&self.leftover.cache_id)
    }

    /// Where the layer's tar-split record lies until it is committed.
    pub fn tar_split_path(&self) -> PathBuf {
        self.write_set.join(TAR_SPLIT)
    }

    /// Makes the empty record file, readable and writable.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn create_tar_split(&self) -> Result<File, StoreError> {
        let path = self.tar_split_path();
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)
            .at("create", &path)?;
        fsutil::set_mode(&path, 0o644)?;
        Ok(file)
    }

    pub(super) fn cache_id(&self) -> &CacheId {
        &self.leftover.cache_id
    }

    pub(super) fn write_set(&self) -> &Path {
        &self.write_set
    }

    pub(super) fn committed(mut self) -> CacheId {
        self.done = true;
        self.leftover.cache_id.clone()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What cannot be removed now is named in the journal, which then stays.
        let clean = self.done || self.leftover.remove(&self.layout).is_ok();
        self.journal.settle(clean);
    }
}
