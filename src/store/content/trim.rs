//! Removal of unneeded blobs from a root's own content directory.
//!
//! A content directory that several roots share is never trimmed, because no root has a list
//! of what the others need. Blobs of entries that other tools wrote to `index.json` are kept.

use std::collections::HashSet;

use super::dir::{self, Dir};
use super::index::IndexFile;
use super::{BLOBS, Content, Dirs, INGEST, IndexState, LOCKS, SHA256, SHARED, ingest};
use crate::digest::Digest;
use crate::oci::{AnyManifest, ImageId};
use crate::store::{Store, StoreError};
use rustix::fs::FileType;

impl Store {
    /// Removes the blobs that no image of the root needs, and their entries in `index.json`,
    /// if no other root shares the content directory. The caller holds the store lock in
    /// exclusive mode, so no pull of this root is about to use them.
    ///
    /// # Errors
    /// [`StoreError`] if the content or the store cannot be read or changed.
    pub(in crate::store) fn trim_content(&self) -> Result<(), StoreError> {
        self.content()
            .existing()?
            .map_or(Ok(()), |dirs| self.trim(&dirs, |dirs, index| self.unneeded_blobs(dirs, index)))
    }

    /// Does the same for the blobs of the image `id`, which was removed with its names, whose
    /// digests were `removed`. Reads no manifest of another image, unless layers were kept.
    ///
    /// # Errors
    /// [`StoreError`] if the content or the store cannot be read or changed.
    pub(in crate::store) fn trim_content_of(
        &self,
        id: &ImageId,
        removed: Vec<Digest>,
    ) -> Result<(), StoreError> {
        let Some(dirs) = self.content().existing()? else { return Ok(()) };
        self.trim(&dirs, |dirs, index| self.unneeded_blobs_of(id, removed, dirs, index))
    }

    fn trim(
        &self,
        dirs: &Dirs,
        unneeded: impl FnOnce(&Dirs, &IndexFile) -> Result<Vec<String>, StoreError>,
    ) -> Result<(), StoreError> {
        let _lock = dirs.lock_index()?;
        if dirs.root.stat(SHARED).is_some() {
            return Ok(());
        }
        ingest::sweep(&dirs.ingest, &dirs.locks);
        // The blobs that a damaged index needs are unknown, so all are kept.
        let IndexState::Valid(mut index) = dirs.index()? else { return Ok(()) };
        let unneeded = unneeded(dirs, &index)?;
        let named = self.named_content()?;
        if index.remove(|digest| !named.contains(digest)) {
            dirs.write_index(&index)?;
        }
        unneeded.iter().try_for_each(|name| Ok(dirs.blobs.unlink(name)?))
    }

    /// Returns the names of the blobs that no image of the root and no entry of another tool needs.
    ///
    /// # Errors
    /// [`StoreError`] if the content or the store cannot be read.
    pub(super) fn unneeded_blobs(
        &self,
        dirs: &Dirs,
        index: &IndexFile,
    ) -> Result<Vec<String>, StoreError> {
        let mut roots = index.foreign();
        roots.extend(self.named_content()?);
        let mut needed = self.reachable(roots)?;
        needed.extend(self.images().list()?.iter().map(ImageId::digest));
        let mut names = dirs.blobs.list()?;
        names.retain(|name| {
            let unneeded = Digest::from_hex(name).is_ok_and(|digest| !needed.contains(&digest));
            unneeded && !dirs.blobs.stat(name).is_some_and(|s| dir::is(&s, FileType::Directory))
        });
        Ok(names)
    }

    /// Does the same for the blobs to which the digests `removed` lead.
    fn unneeded_blobs_of(
        &self,
        id: &ImageId,
        mut removed: Vec<Digest>,
        dirs: &Dirs,
        index: &IndexFile,
    ) -> Result<Vec<String>, StoreError> {
        let named = self.named_content()?;
        // Other names of the image may have been removed before, without its blobs.
        removed.extend(index.ours());
        removed.retain(|digest| !named.contains(digest));
        let (mut unneeded, mut layers) = (HashSet::new(), HashSet::new());
        if !self.layout.image(id).exists() {
            unneeded.insert(id.digest());
        }
        while let Some(digest) = removed.pop() {
            if named.contains(&digest) || unneeded.contains(&digest) {
                continue;
            }
            let Some(bytes) = self.content().get(&digest)? else { continue };
            match AnyManifest::parse(bytes, digest, "") {
                Ok(AnyManifest::Image(image)) => {
                    let config = image.parsed.config.digest;
                    if self.layout.image(&ImageId(config)).exists() {
                        continue;
                    }
                    unneeded.insert(config);
                    layers.extend(image.parsed.layers.iter().map(|layer| layer.digest));
                }
                Ok(AnyManifest::Index(index)) => {
                    removed.extend(index.parsed.manifests.iter().map(|entry| entry.digest));
                }
                Err(_) => {}
            }
            unneeded.insert(digest);
        }
        let is_there = |digest: &Digest| dirs.blobs.stat(&digest.hex()).is_some();
        if layers.iter().any(is_there) {
            // Any other image can have the same layer.
            return self.unneeded_blobs(dirs, index);
        }
        let foreign = self.reachable(index.foreign())?;
        let unneeded = unneeded.into_iter().filter(|it| is_there(it) && !foreign.contains(it));
        Ok(unneeded.map(|digest| digest.hex()).collect())
    }

    /// Returns the digests in the names of images.
    fn named_content(&self) -> Result<HashSet<Digest>, StoreError> {
        Ok(self.names().load()?.iter().filter_map(|(name, _)| name.digest()).collect())
    }

    /// Returns the manifests or indexes `roots` and the blobs that they need.
    fn reachable(&self, mut roots: Vec<Digest>) -> Result<HashSet<Digest>, StoreError> {
        let (mut needed, mut seen) = (HashSet::new(), HashSet::new());
        while let Some(digest) = roots.pop() {
            if !seen.insert(digest) {
                continue;
            }
            needed.insert(digest);
            let Some(bytes) = self.content().get(&digest)? else { continue };
            match AnyManifest::parse(bytes, digest, "") {
                Ok(AnyManifest::Image(image)) => {
                    let layers = image.parsed.layers.iter().map(|layer| layer.digest);
                    needed.extend(layers.chain([image.parsed.config.digest]));
                }
                Ok(AnyManifest::Index(index)) => {
                    roots.extend(index.parsed.manifests.iter().map(|entry| entry.digest));
                }
                Err(_) => {}
            }
        }
        Ok(needed)
    }
}

impl Content {
    /// Opens the root's own content; `None` if it has none or uses a shared directory.
    pub(super) fn existing(&self) -> Result<Option<Dirs>, StoreError> {
        let Some(root) = Dir::open(self.path())?.filter(|_| self.is_own()) else { return Ok(None) };
        let Some(blobs) = root.dir(BLOBS)? else { return Ok(None) };
        let Some(blobs) = blobs.dir(SHA256)? else { return Ok(None) };
        let (ingest, locks) = (root.ensure_dir(INGEST)?, root.ensure_dir(LOCKS)?);
        Ok(Some(Dirs { root, blobs, ingest, locks }))
    }
}
