//! Images of layers that are committed.

use chrono::{SecondsFormat, Utc};

use super::Import;
use crate::digest::Digest;
use crate::error::Error;
use crate::oci::{ImageConfig, ImageId};
use crate::reference::Reference;
use crate::store::{Condition, LayerRecord, StoreError};

/// An image to add.
#[derive(Debug, Clone, Copy)]
pub struct NewImage<'a> {
    /// Its config, byte for byte.
    pub config: &'a [u8],
    /// Its layers, base first: those that the config lists.
    pub layers: &'a [LayerRecord],
    /// Its names, all without a digest. A name that another image has is moved.
    pub names: &'a [Reference],
    /// The image that it was made from, if `docker history` is to show it. That one cannot be removed
    /// as long as the new image exists.
    pub parent: Option<ImageId>,
}

impl Import {
    /// Returns the layers of an image that the store has, base first, and its config.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the image is not whole, [`StoreError::NoSuchImage`] if there is none.
    pub fn layers_of(&self, id: &ImageId) -> Result<(Vec<LayerRecord>, Vec<u8>), Error> {
        let image = || id.short();
        let no_image = || Error::from(StoreError::NoSuchImage(image()));
        let config = match self.store.condition(id)? {
            Condition::Absent => return Err(no_image()),
            Condition::Damaged(why) => return Err(Error::DamagedImage { image: image(), why }),
            Condition::Whole(config) => config,
        };
        let layers = self.store.layers().stack(config.diff_ids())?.ok_or_else(no_image)?;
        Ok((layers, self.store.images().get(id)?.ok_or_else(no_image)?))
    }

    /// Adds an image whose layers are committed, and then its names.
    ///
    /// # Errors
    /// [`Error::Manifest`] if the config is invalid, [`Error::Usage`] if it lists other layers or a name
    /// has a digest, [`Error::Store`] if a file cannot be written.
    pub fn image(&self, image: NewImage<'_>) -> Result<ImageId, Error> {
        let NewImage { config, layers, names, parent } = image;
        let parsed = ImageConfig::parse(config)?;
        if !parsed.diff_ids().iter().eq(layers.iter().map(|layer| &layer.diff_id)) {
            return Err(Error::Usage(
                "the config lists other layers than the image has".to_owned(),
            ));
        }
        check_names(names)?;
        let id = ImageId(Digest::of(config));
        let is_new = self.store.images().get(&id)?.is_none();
        self.store.commit_image(config, layers)?;
        // An image cannot become its own ancestor: it is new.
        if let Some(parent) = parent.filter(|parent| is_new && *parent != id) {
            self.store.images().set_parent(&id, &parent)?;
        }
        if !names.is_empty() {
            self.store.names().update(|all| {
                for name in names {
                    all.set(&name.clone().with_default_tag().0, id);
                }
            })?;
            let now = Utc::now().to_rfc3339_opts(SecondsFormat::AutoSi, true);
            self.store.images().set_last_updated(&id, &now)?;
        }
        self.store.record_use(&id);
        Ok(id)
    }
}

/// Refuses names with a digest, which would promise a manifest.
pub(super) fn check_names(names: &[Reference]) -> Result<(), Error> {
    match names.iter().find(|name| name.digest().is_some()) {
        Some(name) => {
            Err(Error::Usage(format!("'{name}' has a digest: give the image a tag only")))
        }
        None => Ok(()),
    }
}
