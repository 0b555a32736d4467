//! What blobs unpack to, and where layers can be had (moby
//! distribution/metadata/v2_metadata_service.go). It saves downloads, no more.

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::layout::Layout;
use crate::digest::Digest;
use crate::fsutil;
use crate::oci::DiffId;
use crate::reference::Repository;

/// The most sources that dockerd keeps per layer.
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

    /// Whether a blob of `repository` is recorded that unpacks to `diff_id`. Where the list of
    /// sources is full, one may have been dropped from it, so nothing is missing there.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn has_source(
        &self,
        diff_id: &DiffId,
        repository: &Repository,
    ) -> Result<bool, StoreError> {
        let (sources, canonical) = (self.sources(diff_id)?, repository.canonical());
        if sources.len() >= MOST_SOURCES {
            return Ok(true);
        }
        // The newest stand last.
        for source in sources.iter().rev().filter(|source| source.source_repository == canonical) {
            if self.diff_id(&source.digest)? == Some(*diff_id) {
                return Ok(true);
            }
        }
        Ok(false)
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
