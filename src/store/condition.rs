//! Whether an image is whole: what every answer "it is already here" rests on.

use super::{Store, StoreError};
use crate::digest::Digest;
use crate::oci::{AnyManifest, Descriptor, ImageConfig, ImageId};
use crate::reference::Repository;

/// The state of an image in the store.
#[derive(Debug)]
pub enum Condition {
    /// The store has no such image.
    Absent,
    /// It is listed, and cannot be used as it is: why, as one sentence.
    Damaged(String),
    /// All of it is there, and dockerd can mount it.
    Whole(ImageConfig),
}

impl Store {
    /// The state of an image: its config, its layers and their links. The contents of files are
    /// not read. The caller holds the store lock.
    ///
    /// # Errors
    /// [`StoreError`] if a file cannot be read.
    pub fn condition(&self, id: &ImageId) -> Result<Condition, StoreError> {
        let bytes = match self.images().get(id) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Condition::Absent),
            Err(StoreError::Damaged { why, .. }) => {
                return Ok(Condition::Damaged(format!("its config: {why}")));
            }
            Err(e) => return Err(e),
        };
        let config = match ImageConfig::parse(&bytes) {
            Ok(config) => config,
            Err(e) => return Ok(Condition::Damaged(format!("its config: {e}"))),
        };
        let Some(stack) = self.layers().stack(config.diff_ids())? else {
            return Ok(Condition::Damaged("a layer of it is missing or incomplete".to_owned()));
        };
        Ok(match self.layers().fault(&stack)? {
            Some(why) => Condition::Damaged(why),
            None => Condition::Whole(config),
        })
    }

    /// Whether `distribution/` has what a pull of the manifest or index `digest` from
    /// `repository` writes for the image `id`. Where the manifest is not in the content store,
    /// nothing can be said against it.
    ///
    /// # Errors
    /// [`StoreError`] if a file cannot be read.
    pub fn sources_are_recorded(
        &self,
        digest: &Digest,
        id: &ImageId,
        config: &ImageConfig,
        repository: &Repository,
    ) -> Result<bool, StoreError> {
        let Some(layers) = self.blobs_of(digest, id)? else { return Ok(true) };
        for (blob, diff_id) in layers.iter().zip(config.diff_ids()) {
            if !self.distribution().has(&blob.digest, diff_id, repository)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The layers' blobs of the image `id` by the manifest or index `digest`, base first.
    fn blobs_of(
        &self,
        digest: &Digest,
        id: &ImageId,
    ) -> Result<Option<Vec<Descriptor>>, StoreError> {
        let mut next = vec![*digest];
        // An index may name indexes, which no image nests deeper than this.
        for _ in 0..3 {
            let mut below = Vec::new();
            for digest in &next {
                let Some(bytes) = self.content().get(digest)? else { continue };
                match AnyManifest::parse(bytes, *digest, "") {
                    Ok(AnyManifest::Image(image)) if image.parsed.config.digest == id.digest() => {
                        return Ok(Some(image.parsed.layers));
                    }
                    Ok(AnyManifest::Index(index)) => {
                        below.extend(index.parsed.manifests.iter().map(|entry| entry.digest));
                    }
                    _ => {}
                }
            }
            next = below;
        }
        Ok(None)
    }
}
