//! The record of a committed layer (moby layer/filestore.go).

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::layout::{CACHE_ID, DIFF, Layout, PARENT, SIZE, TAR_SPLIT};
use crate::fsutil::{self, At, FsError};
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

    /// Reads the record of `chain`; `None` also if its files or its tar-split metadata are missing.
    ///
    /// # Errors
    /// [`FsError`] if a file cannot be read.
    pub(super) fn read_complete(layout: &Layout, chain: &ChainId) -> Result<Option<Self>, FsError> {
        let Some(record) = Self::read(layout, chain)? else { return Ok(None) };
        let tar_split = layout.layer(chain).join(TAR_SPLIT);
        let diff = layout.overlay().diff(&record.cache_id);
        let complete = diff.is_dir() && could_be_gzip(&tar_split)?;
        Ok(complete.then_some(record))
    }
}

/// Returns the cache ID in the record in `dir`, even if the rest of the record is malformed.
///
/// # Errors
/// [`FsError`] if the file cannot be read.
pub(super) fn cache_id_in(dir: &Path) -> Result<Option<CacheId>, FsError> {
    Ok(fsutil::read_optional(&dir.join(CACHE_ID))?.and_then(|text| text.parse().ok()))
}

/// Bytes of a gzip file at least: header, an empty block, checksum and length.
const MIN_GZIP_SIZE: u64 = 20;

/// Decompressed bytes per compressed byte of DEFLATE at most.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// Returns whether a file ends with a plausible content length (RFC 1952). This check does not
/// read the whole file, and detects files that are empty, zeroed, and nearly all truncated ones.
pub(super) fn could_be_gzip(path: &Path) -> Result<bool, FsError> {
    let file = match fsutil::open(path) {
        Ok(file) => file,
        Err(e) if fsutil::is_absent(&e) || fsutil::is_damage(&e) => return Ok(false),
        Err(e) => return Err(e).at("open", path),
    };
    let meta = file.metadata().at("read", path)?;
    if meta.len() < MIN_GZIP_SIZE {
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
