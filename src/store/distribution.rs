//! What blobs unpack to, and where layers can be had (moby
//! distribution/metadata/v2_metadata_service.go). It saves downloads, no more.

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::layout::Layout;
use crate::digest::Digest;
use crate::fsutil;
use crate::oci::DiffId;
use crate::reference::Repository;

/// dockerd keeps so many sources a layer.
const MOST_SOURCES: usize = 50;

/// One place a layer can be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Source {
    /// The blob.
    pub digest: Digest,
    /// The repository's whole name.
    pub source_repository: String,
    /// Empty after a pull; a push writes one.
    #[serde(rename = "HMAC", default)]
    pub hmac: String,
}

impl Source {
    /// A place that a layer was pulled from.
    fn pulled(digest: &Digest, repository: &Repository) -> Self {
        let source_repository = repository.canonical();
        Self { digest: *digest, source_repository, hmac: String::new() }
    }

    /// Whether `other` is the same blob in the same repository.
    fn is_same_place(&self, other: &Self) -> bool {
        (self.digest, &self.source_repository) == (other.digest, &other.source_repository)
    }
}

/// The maps between blobs and layers.
#[derive(Debug)]
pub struct Distribution {
    layout: Layout,
}

impl Distribution {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout }
    }

    /// What the blob unpacks to, if it was ever unpacked here.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn diff_id(&self, digest: &Digest) -> Result<Option<DiffId>, StoreError> {
        let text = fsutil::read_optional(&self.layout.diff_id_by_digest(digest))?;
        Ok(text.and_then(|text| text.parse().ok()))
    }

    /// The places the layer can be had, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn sources(&self, diff_id: &DiffId) -> Result<Vec<Source>, StoreError> {
        let text = fsutil::read_optional(&self.layout.sources_by_diff_id(diff_id))?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    }

    /// Whether it is recorded that the blob `digest` of `repository` unpacks to `diff_id`.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn has(
        &self,
        digest: &Digest,
        diff_id: &DiffId,
        repository: &Repository,
    ) -> Result<bool, StoreError> {
        let source = Source::pulled(digest, repository);
        Ok(self.diff_id(digest)? == Some(*diff_id)
            && self.sources(diff_id)?.iter().any(|known| known.is_same_place(&source)))
    }

    /// Notes that the blob `digest` of `repository` unpacks to `diff_id`.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn record(
        &self,
        digest: &Digest,
        diff_id: &DiffId,
        repository: &Repository,
    ) -> Result<(), StoreError> {
        if self.diff_id(digest)? != Some(*diff_id) {
            let path = self.layout.diff_id_by_digest(digest);
            fsutil::write_atomic(&path, diff_id.to_string().as_bytes(), 0o644)?;
        }
        let new = Source::pulled(digest, repository);
        let mut sources = self.sources(diff_id)?;
        if sources.last() == Some(&new) {
            return Ok(());
        }
        sources.retain(|source| *source != new);
        sources.push(new);
        let old = sources.len().saturating_sub(MOST_SOURCES);
        let path = self.layout.sources_by_diff_id(diff_id);
        let json = serde_json::to_vec(&sources[old..])
            .map_err(|e| StoreError::Damaged { path: path.clone(), why: e.to_string() })?;
        Ok(fsutil::write_atomic(&path, &json, 0o644)?)
    }
}
