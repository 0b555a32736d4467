//! The check whether an image in the store is complete and usable.

use super::{Store, StoreError};
use crate::oci::{ImageConfig, ImageId};
use crate::reference::Repository;

/// The state of an image in the store.
#[derive(Debug)]
pub enum Condition {
    /// The store has no such image.
    Absent,
    /// The image is listed but cannot be used; the reason in one sentence.
    Damaged(String),
    /// The image is complete, and dockerd can mount it.
    Whole(ImageConfig),
}

impl Store {
    /// Checks an image's config, its layers and their links, but not the contents of files. The
    /// caller holds the store lock.
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

    /// Returns the config of an image from the image db or else from the content store, if it can be
    /// read there.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the content cannot be read.
    pub fn any_config(&self, id: &ImageId) -> Result<Option<ImageConfig>, StoreError> {
        if let Some(config) = self.images().config(id) {
            return Ok(Some(config));
        }
        let bytes = self.content().get(&id.digest())?;
        Ok(bytes.and_then(|bytes| ImageConfig::parse(&bytes).ok()))
    }

    /// Returns whether `repository` is recorded as a source of each layer of an image, as every
    /// pull from there records it.
    ///
    /// # Errors
    /// [`StoreError`] if a file cannot be read.
    pub fn sources_are_recorded(
        &self,
        config: &ImageConfig,
        repository: &Repository,
    ) -> Result<bool, StoreError> {
        for diff_id in config.diff_ids() {
            if !self.distribution().has_source(diff_id, repository)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
