//! The check of the content store: files that do not match their names.

use std::collections::HashSet;
use std::path::PathBuf;

use super::dir::Dir;
use super::{BLOBS, Content, INDEX, IndexState, SHA256, SHARED};
use crate::digest::Digest;
use crate::oci::{AnyManifest, ImageId};
use crate::store::damage::{Damage, DamageClass};
use crate::store::references::References;
use crate::store::{Store, StoreError};

impl Store {
    /// Returns the damaged manifests, indexes and configs of the images `wanted`, or of all images,
    /// and a damaged `index.json`. Missing documents are not damage, because a pull fetches them.
    ///
    /// # Errors
    /// [`StoreError`] if the content directory cannot be read.
    pub(in crate::store) fn damaged_documents(
        &self,
        names: &References,
        wanted: Option<&[ImageId]>,
    ) -> Result<Vec<Damage>, StoreError> {
        let content = self.content();
        let mut damage = Vec::new();
        let mut next: Vec<(Digest, ImageId)> = Vec::new();
        let is_wanted = |id: &ImageId| wanted.is_none_or(|wanted| wanted.contains(id));
        let named = names.iter().filter(|(_, id)| is_wanted(id));
        next.extend(named.filter_map(|(name, id)| Some((name.digest()?, id))));
        let ids = self.images().list()?;
        next.extend(ids.into_iter().filter(is_wanted).map(|id| (id.digest(), id)));
        let mut seen = HashSet::new();
        while let Some((digest, image)) = next.pop() {
            if !seen.insert(digest) || content.open(&digest)?.is_none() {
                continue;
            }
            let Some(bytes) = content.get(&digest)? else {
                let (class, path) = (DamageClass::ContentBlob, content.blob_path(&digest));
                let why = "its SHA-256 does not match its name";
                damage.push(Damage { images: vec![image], ..Damage::new(class, path, why) });
                continue;
            };
            match AnyManifest::parse(bytes, digest, "") {
                Ok(AnyManifest::Image(found)) => next.push((found.parsed.config.digest, image)),
                Ok(AnyManifest::Index(index)) => {
                    let entries = index.parsed.manifests.iter();
                    next.extend(entries.map(|entry| (entry.digest, image)));
                }
                Err(_) => {}
            }
        }
        if wanted.is_none() && content.has_damaged_index()? {
            let path = content.path().join(INDEX);
            damage.push(Damage::new(DamageClass::ContentBlob, path, "it is not an OCI index"));
        }
        Ok(damage)
    }
}

impl Content {
    /// Returns the path of a blob.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path().join(BLOBS).join(SHA256).join(digest.hex())
    }

    /// Returns the digests of all blobs.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the directory cannot be read.
    pub fn blobs(&self) -> Result<Vec<Digest>, StoreError> {
        let Some(root) = Dir::open(self.path())? else { return Ok(Vec::new()) };
        let Some(blobs) = root.dir(BLOBS)? else { return Ok(Vec::new()) };
        let Some(blobs) = blobs.dir(SHA256)? else { return Ok(Vec::new()) };
        let names = blobs.list()?;
        Ok(names.iter().filter_map(|name| Digest::from_hex(name).ok()).collect())
    }

    /// Removes a blob, if only this root uses the content directory.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if it cannot be removed.
    pub fn remove_own_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let Some(dirs) = self.existing()? else { return Ok(()) };
        let _lock = dirs.lock_index()?;
        match dirs.root.stat(SHARED) {
            Some(_) => Ok(()),
            None => Ok(dirs.blobs.unlink(&digest.hex())?),
        }
    }

    fn has_damaged_index(&self) -> Result<bool, StoreError> {
        let Some(root) = Dir::open(self.path())? else { return Ok(false) };
        Ok(matches!(super::read_index(&root)?, IndexState::Damaged))
    }
}
