//! Diff IDs of blobs and source repositories of layers (moby
//! distribution/metadata/v2_metadata_service.go). They only save downloads.

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::layout::Layout;
use crate::digest::Digest;
use crate::fsutil::{self, Durability};
use crate::oci::DiffId;
use crate::reference::Repository;

/// Sources per layer at most, as in dockerd.
const MAX_SOURCES: usize = 50;

/// A blob that unpacks to a layer, and its repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BlobSource {
    /// The digest of the blob.
    pub digest: Digest,
    /// The canonical name of the repository.
    pub source_repository: String,
    /// Empty after a pull; written by a push.
    #[serde(rename = "HMAC", default)]
    pub hmac: String,
}

impl BlobSource {
    /// Creates the source that a pull records.
    fn pulled(digest: &Digest, repository: &Repository) -> Self {
        let source_repository = repository.canonical();
        Self { digest: *digest, source_repository, hmac: String::new() }
    }
}

/// The mappings between blobs and layers.
#[derive(Debug)]
pub struct Distribution {
    layout: Layout,
}

impl Distribution {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout }
    }

    /// Returns the diff ID of the blob, if it was unpacked before.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the file cannot be read.
    pub fn diff_id(&self, digest: &Digest) -> Result<Option<DiffId>, StoreError> {
        let text = fsutil::read_optional(&self.layout.diff_id_by_digest(digest))?;
        Ok(text.and_then(|text| text.parse().ok()))
    }

    /// Returns the sources of the layer, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the file cannot be read.
    pub fn sources(&self, diff_id: &DiffId) -> Result<Vec<BlobSource>, StoreError> {
        let text = fsutil::read_optional(&self.layout.sources_by_diff_id(diff_id))?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    /// Returns whether a blob of `repository` is recorded that unpacks to `diff_id`. A full list
    /// of sources counts as recorded, since older sources were dropped from it.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a file cannot be read.
    pub fn has_source(
        &self,
        diff_id: &DiffId,
        repository: &Repository,
    ) -> Result<bool, StoreError> {
        let (sources, canonical) = (self.sources(diff_id)?, repository.canonical());
        if sources.len() >= MAX_SOURCES {
            return Ok(true);
        }
        // The newest is last.
        for source in sources.iter().rev().filter(|source| source.source_repository == canonical) {
            if self.diff_id(&source.digest)? == Some(*diff_id) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Records that the blob `digest` of `repository` unpacks to `diff_id`.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a file cannot be read or written.
    pub fn record(
        &self,
        digest: &Digest,
        diff_id: &DiffId,
        repository: &Repository,
    ) -> Result<(), StoreError> {
        if self.diff_id(digest)? != Some(*diff_id) {
            let path = self.layout.diff_id_by_digest(digest);
            self.layout.temporary().replace(
                &path,
                diff_id.to_string().as_bytes(),
                0o644,
                Durability::Unsynced,
            )?;
        }
        let new = BlobSource::pulled(digest, repository);
        let mut sources = self.sources(diff_id)?;
        if sources.last() == Some(&new) {
            return Ok(());
        }
        sources.retain(|source| *source != new);
        sources.push(new);
        let old = sources.len().saturating_sub(MAX_SOURCES);
        let path = self.layout.sources_by_diff_id(diff_id);
        let json = serde_json::to_vec(&sources[old..])
            .map_err(|e| StoreError::Damaged { path: path.clone(), why: e.to_string() })?;
        Ok(self.layout.temporary().replace(&path, &json, 0o644, Durability::Unsynced)?)
    }
}
