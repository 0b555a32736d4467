//! The image db: configs, byte for byte (moby image/fs.go).

use std::collections::HashSet;
use std::fs;
use std::io;

use super::StoreError;
use super::layout::Layout;
use crate::digest::Digest;
use crate::fsutil::{self, At, Durability};
use crate::oci::ImageId;

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
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).at("read", &path)?,
        };
        if Digest::of(&bytes) != id.digest() {
            return Err(StoreError::Damaged {
                path,
                why: "its SHA-256 does not match its name".to_owned(),
            });
        }
        Ok(Some(bytes))
    }

    /// Stores a config and returns its ID.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if it cannot be written.
    pub fn put(&self, config: &[u8]) -> Result<ImageId, StoreError> {
        let id = ImageId(Digest::of(config));
        if !matches!(self.get(&id), Ok(Some(_))) {
            self.layout.temporary().replace(
                &self.layout.image(&id),
                config,
                0o600,
                Durability::Synced,
            )?;
        }
        Ok(id)
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

    /// Returns the images on which dockerd built others.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the metadata cannot be read.
    pub fn parents(&self) -> Result<HashSet<ImageId>, StoreError> {
        let names = fsutil::names_in(&self.layout.images_metadata())?;
        let ids = names.iter().filter_map(|name| Digest::from_hex(name).ok()).map(ImageId);
        ids.filter_map(|id| self.parent(&id).transpose()).collect()
    }

    /// Returns the time of the last tag command, RFC 3339.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the file cannot be read.
    pub fn last_updated(&self, id: &ImageId) -> Result<Option<String>, StoreError> {
        Ok(fsutil::read_optional(&self.layout.image_metadata(id).join("lastUpdated"))?)
    }

    /// Records the time of a tag command, RFC 3339 with nanoseconds. A pull does not call this.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the file cannot be written.
    pub fn set_last_updated(&self, id: &ImageId, when: &str) -> Result<(), StoreError> {
        let dir = self.layout.image_metadata(id);
        fsutil::ensure_dir(&dir, 0o700)?;
        Ok(self.layout.temporary().replace(
            &dir.join("lastUpdated"),
            when.as_bytes(),
            0o600,
            Durability::Synced,
        )?)
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
