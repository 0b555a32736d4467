//! The image db: configs, byte for byte (moby image/fs.go).

use std::collections::HashSet;

use super::StoreError;
use super::layout::Layout;
use crate::digest::Digest;
use crate::fsutil::{self, Durability};
use crate::oci::{ImageConfig, ImageId};

/// Bytes of a config at most; the limits of `registry` are lower.
const MAX_CONFIG_SIZE: u64 = 32 << 20;

/// The images of a root.
#[derive(Debug)]
pub struct Images {
    layout: Layout,
}

impl Images {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout }
    }

    /// Returns the verified config of `id`; `None` if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if its SHA-256 is not `id`, [`StoreError::Fs`] if it cannot be read.
    pub fn get(&self, id: &ImageId) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.layout.image(id);
        let bytes = match fsutil::read_optional_bytes(&path, MAX_CONFIG_SIZE) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(e) if fsutil::is_damage(&e.source) => {
                return Err(StoreError::Damaged { path, why: e.source.to_string() });
            }
            Err(e) => return Err(e)?,
        };
        if Digest::of(&bytes) != id.digest() {
            return Err(StoreError::Damaged {
                path,
                why: "its SHA-256 does not match its name".to_owned(),
            });
        }
        Ok(Some(bytes))
    }

    /// Returns whether there is a config of `id`, which may be damaged.
    pub fn exists(&self, id: &ImageId) -> bool {
        self.layout.image(id).exists()
    }

    /// Returns the config of `id`, if it can be read.
    pub(super) fn config(&self, id: &ImageId) -> Option<ImageConfig> {
        ImageConfig::parse(&self.get(id).ok()??).ok()
    }

    /// Returns all image IDs.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the directory cannot be read.
    pub fn list(&self) -> Result<Vec<ImageId>, StoreError> {
        let names = fsutil::names_in(&self.layout.images())?;
        Ok(names.iter().filter_map(|name| Digest::from_hex(name).ok()).map(ImageId).collect())
    }

    /// Returns the parent image, if dockerd built the image on one.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the file cannot be read.
    pub fn parent(&self, id: &ImageId) -> Result<Option<ImageId>, StoreError> {
        let text = fsutil::read_optional(&self.layout.image_metadata(id).join("parent"))?;
        Ok(text.and_then(|text| text.parse().ok()))
    }

    /// Records the image that `id` was made from, as dockerd does.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the file cannot be written.
    pub fn set_parent(&self, id: &ImageId, parent: &ImageId) -> Result<(), StoreError> {
        self.put_metadata(id, "parent", &parent.to_string())
    }

    fn put_metadata(&self, id: &ImageId, name: &str, text: &str) -> Result<(), StoreError> {
        let dir = self.layout.image_metadata(id);
        fsutil::ensure_dir(&dir, 0o700)?;
        let (path, text) = (dir.join(name), text.as_bytes());
        Ok(self.layout.temporary().replace(&path, text, 0o600, Durability::Synced)?)
    }

    /// Returns the images on which dockerd built others.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the metadata cannot be read.
    pub fn parents(&self) -> Result<HashSet<ImageId>, StoreError> {
        Ok(self.with_parents()?.into_iter().map(|(_, parent)| parent).collect())
    }

    /// Returns an image that dockerd built on `id`.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the metadata cannot be read.
    pub fn child(&self, id: &ImageId) -> Result<Option<ImageId>, StoreError> {
        let children = self.with_parents()?.into_iter().filter(|(_, parent)| parent == id);
        let mut children = children.map(|(child, _)| child);
        Ok(children.find(|child| self.layout.image(child).exists()))
    }

    /// Returns the images that were built on `id`, or with `None` those that were built on no image of the
    /// store.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the metadata cannot be read.
    pub fn children(&self, id: Option<&ImageId>) -> Result<Vec<ImageId>, StoreError> {
        let pairs = self.with_parents()?;
        let Some(id) = id else {
            let built: HashSet<ImageId> = pairs.into_iter().map(|(child, _)| child).collect();
            return Ok(self.list()?.into_iter().filter(|id| !built.contains(id)).collect());
        };
        let children = pairs.into_iter().filter(|(_, parent)| parent == id).map(|(child, _)| child);
        Ok(children.filter(|child| self.layout.image(child).exists()).collect())
    }

    /// Returns the images that dockerd built on others, with these. Opens no file of other images.
    fn with_parents(&self) -> Result<Vec<(ImageId, ImageId)>, StoreError> {
        let names = fsutil::names_in(&self.layout.images_metadata())?;
        let ids = names.iter().filter_map(|name| Digest::from_hex(name).ok()).map(ImageId);
        let built = ids.filter(|id| self.layout.image_metadata(id).join("parent").exists());
        let pair = |id: ImageId| Ok(self.parent(&id)?.map(|parent| (id, parent)));
        built.filter_map(|id| pair(id).transpose()).collect()
    }

    /// Returns the time of the last tag command, RFC 3339; `None` if it is unknown.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the file cannot be read.
    pub fn last_updated(&self, id: &ImageId) -> Result<Option<String>, StoreError> {
        let text = fsutil::read_optional(&self.layout.image_metadata(id).join("lastUpdated"))?;
        Ok(text.filter(|text| !text.contains(char::REPLACEMENT_CHARACTER)))
    }

    /// Records the time of a tag command, RFC 3339 with nanoseconds. A pull does not call this.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the file cannot be written.
    pub fn set_last_updated(&self, id: &ImageId, when: &str) -> Result<(), StoreError> {
        self.put_metadata(id, "lastUpdated", when)
    }

    /// Removes a config, its metadata and its time of last use.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if they cannot be removed.
    pub fn remove(&self, id: &ImageId) -> Result<(), StoreError> {
        fsutil::remove(&self.layout.image_metadata(id))?;
        fsutil::remove(&self.layout.uses().join(id.hex()))?;
        Ok(fsutil::remove(&self.layout.image(id))?)
    }
}
