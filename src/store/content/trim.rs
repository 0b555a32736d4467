//! Removal of unneeded blobs from a content directory.
//!
//! No root has a list of what the others need, so a content directory that several roots share is
//! trimmed only on demand, by the entries of its `index.json`. Blobs of entries that other tools wrote
//! are kept.

use std::collections::HashSet;

use rustix::fs::FileType;
use serde::Deserialize;

use super::dir::{self, Dir};
use super::index::IndexFile;
use super::orphans::disk_bytes;
use super::{BLOBS, Content, Dirs, INDEX, INGEST, IndexState, LOCKS, SHA256, SHARED, ingest};
use super::{layout_file, locks};
use crate::digest::Digest;
use crate::oci::{AnyManifest, ImageId};
use crate::store::orphans::{Orphan, OrphanKind};
use crate::store::{Store, StoreError};

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
        let named = self.named_content(&index)?;
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
        roots.extend(self.named_content(index)?);
        let mut needed = self.content().needed(roots)?;
        needed.extend(self.images().list()?.iter().map(ImageId::digest));
        all_but(dirs, &needed)
    }

    /// Does the same for the blobs to which the digests `removed` lead.
    fn unneeded_blobs_of(
        &self,
        id: &ImageId,
        mut removed: Vec<Digest>,
        dirs: &Dirs,
        index: &IndexFile,
    ) -> Result<Vec<String>, StoreError> {
        let named = self.named_content(index)?;
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
        let foreign = self.content().needed(index.foreign())?;
        let unneeded = unneeded.into_iter().filter(|it| is_there(it) && !foreign.contains(it));
        Ok(unneeded.map(|digest| digest.hex()).collect())
    }

    /// Returns the digests in the names of images, and those that `index` lists for a tag that has no
    /// digest: that of an image from an archive.
    fn named_content(&self, index: &IndexFile) -> Result<HashSet<Digest>, StoreError> {
        let names = self.names().load()?;
        let mut named: HashSet<Digest> =
            names.iter().filter_map(|(name, _)| name.digest()).collect();
        for (name, digest) in index.ours_with_names() {
            let Some(id) = names.lookup(&name).filter(|_| !named.contains(&digest)) else {
                continue;
            };
            if self.content().needed(vec![digest])?.contains(&id.digest()) {
                named.insert(digest);
            }
        }
        Ok(named)
    }
}

/// The parts of a manifest, an index or another OCI document that name documents and blobs.
#[derive(Deserialize)]
struct Links {
    config: Option<Link>,
    #[serde(default)]
    layers: Vec<Link>,
    #[serde(default)]
    blobs: Vec<Link>,
    #[serde(default)]
    manifests: Vec<Link>,
    subject: Option<Link>,
}

#[derive(Deserialize)]
struct Link {
    digest: Digest,
}

impl Content {
    /// Removes the blobs that no entry of `index.json` needs, and returns them, or only returns them in
    /// a `dry_run`. Waits for the pulls of all roots that use the content; `on_wait` is called with a
    /// description of the first one.
    ///
    /// # Errors
    /// [`StoreError::NoContent`] if there is no image layout, [`StoreError::Damaged`] if its `index.json`
    /// cannot be read as one, so that it is unknown what is needed, [`StoreError::Fs`] if a file
    /// cannot be read or removed.
    pub fn trim(&self, dry_run: bool, on_wait: &dyn Fn(&str)) -> Result<Vec<Orphan>, StoreError> {
        let none = || StoreError::NoContent(self.path().to_owned());
        let root = Dir::open(self.path())?.ok_or_else(none)?;
        if !layout_file::is_valid(&root)? {
            return Err(none());
        }
        let dirs = self.open_or_make(root)?;
        let _use = locks::end_use(&dirs.locks, on_wait)?;
        let _lock = dirs.lock_index()?;
        if !dry_run {
            ingest::sweep(&dirs.ingest, &dirs.locks);
        }
        let IndexState::Valid(index) = dirs.index()? else {
            let (path, why) = (dirs.root.path().join(INDEX), "it is not an OCI index".to_owned());
            return Err(StoreError::Damaged { path, why });
        };
        let mut removed = Vec::new();
        for name in all_but(&dirs, &self.needed(index.all())?)? {
            let (kind, path) = (OrphanKind::ContentBlob, dirs.blobs.path().join(&name));
            removed.push(Orphan { kind, path, bytes: disk_bytes(&dirs.blobs, &name) });
            if !dry_run {
                dirs.blobs.unlink(&name)?;
            }
        }
        Ok(removed)
    }

    /// Returns the documents `next` and all documents and blobs that they name.
    fn needed(&self, mut next: Vec<Digest>) -> Result<HashSet<Digest>, StoreError> {
        let (mut needed, mut seen) = (HashSet::new(), HashSet::new());
        while let Some(digest) = next.pop() {
            if !seen.insert(digest) {
                continue;
            }
            needed.insert(digest);
            let bytes = self.get(&digest)?;
            // An artifact of another tool may have any form.
            let Some(links) = bytes.and_then(|bytes| serde_json::from_slice::<Links>(&bytes).ok())
            else {
                continue;
            };
            needed.extend([links.layers, links.blobs].iter().flatten().map(|link| link.digest));
            needed.extend(links.config.map(|link| link.digest));
            next.extend(links.manifests.iter().chain(&links.subject).map(|link| link.digest));
        }
        Ok(needed)
    }

    /// Opens the root's own content; `None` if it has none or uses a shared directory.
    pub(super) fn existing(&self) -> Result<Option<Dirs>, StoreError> {
        let Some(root) = Dir::open(self.path())?.filter(|_| self.is_own()) else { return Ok(None) };
        let Some(blobs) = root.dir(BLOBS)? else { return Ok(None) };
        let Some(blobs) = blobs.dir(SHA256)? else { return Ok(None) };
        let (ingest, locks) = (root.ensure_dir(INGEST)?, root.ensure_dir(LOCKS)?);
        Ok(Some(Dirs { root, blobs, ingest, locks }))
    }
}

/// Returns the names of all blobs but the `needed` ones.
fn all_but(dirs: &Dirs, needed: &HashSet<Digest>) -> Result<Vec<String>, StoreError> {
    let mut names = dirs.blobs.list()?;
    names.retain(|name| {
        let unneeded = Digest::from_hex(name).is_ok_and(|digest| !needed.contains(&digest));
        unneeded && !dirs.blobs.stat(name).is_some_and(|s| dir::is(&s, FileType::Directory))
    });
    Ok(names)
}
