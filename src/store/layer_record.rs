//! The record of a committed layer (moby layer/filestore.go).

use std::path::Path;

use super::layout::{CACHE_ID, DIFF, Layout, PARENT, SIZE};
use crate::fsutil::{self, FsError};
use crate::oci::{ChainId, DiffId};
use crate::overlay::CacheId;

/// A committed layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRecord {
    /// The chain ID of the stack up to this layer.
    pub chain: ChainId,
    /// The chain ID of the stack below; `None` for a base layer.
    pub parent: Option<ChainId>,
    /// The SHA-256 of its tar.
    pub diff_id: DiffId,
    /// Its directory in `overlay2`.
    pub cache_id: CacheId,
    /// The sum of the sizes of its non-directories, bytes.
    pub size: u64,
}

impl LayerRecord {
    /// Reads the record of `chain`, even if its layer is incomplete; `None` if it is missing or
    /// malformed.
    ///
    /// # Errors
    /// [`FsError`] if a file cannot be read.
    pub(super) fn read(layout: &Layout, chain: &ChainId) -> Result<Option<Self>, FsError> {
        let dir = layout.layer(chain);
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
        Ok(right.then_some(Self { chain: *chain, parent, diff_id, cache_id, size: bytes }))
    }
}

/// Returns the cache ID in the record in `dir`, even if the rest of the record is malformed.
///
/// # Errors
/// [`FsError`] if the file cannot be read.
pub(super) fn cache_id_in(dir: &Path) -> Result<Option<CacheId>, FsError> {
    Ok(fsutil::read_optional(&dir.join(CACHE_ID))?.and_then(|text| text.parse().ok()))
}
