//! The manifest with which an image was pulled or pushed.

use super::{Store, StoreError};
use crate::digest::Digest;
use crate::oci::{AnyManifest, Document, ImageId, Manifest};
use crate::reference::Repository;

/// Indexes in indexes that are followed.
const DEEPEST: usize = 3;

impl Store {
    /// Returns a manifest of the image that the content store has, and that one of its names refers to.
    /// Names of the repository `first` come first.
    ///
    /// # Errors
    /// [`StoreError`] if the names or the content cannot be read.
    pub fn pulled_manifest(
        &self,
        id: ImageId,
        first: Option<&Repository>,
    ) -> Result<Option<Document<Manifest>>, StoreError> {
        let mut names = self.names().load()?.of(id);
        names.sort_by_key(|name| Some(name.repository()) != first);
        for name in names {
            let digests = match name.digest() {
                Some(digest) => vec![digest],
                None => self.content().lookup(&name)?,
            };
            for digest in digests {
                if let Some(manifest) = self.manifest_below(digest, id, DEEPEST)? {
                    return Ok(Some(manifest));
                }
            }
        }
        Ok(None)
    }

    /// Looks for the manifest of the image `id` in the document `digest` and below it.
    fn manifest_below(
        &self,
        digest: Digest,
        id: ImageId,
        depth: usize,
    ) -> Result<Option<Document<Manifest>>, StoreError> {
        let Some(bytes) = self.content().get(&digest)? else { return Ok(None) };
        match AnyManifest::parse(bytes, digest, "") {
            Ok(AnyManifest::Image(image)) if image.parsed.config.digest == id.digest() => {
                Ok(Some(image))
            }
            Ok(AnyManifest::Index(index)) if depth > 0 => {
                for entry in index.parsed.manifests {
                    if let Some(found) = self.manifest_below(entry.digest, id, depth - 1)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }
}
