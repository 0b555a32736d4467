//! Adding layers and images that come from this machine.

use super::image::Image;
use super::store::Store;
use crate::error::Error;
use crate::import::{self, Source};
use crate::layer::Limits;
use crate::oci::{ChainId, DiffId, ImageId};
use crate::reference::Reference;
use crate::store::LayerRecord;

/// The right to add layers and images to a [`Store`]. While it exists, removals by other programs
/// wait; pulls and readers do not. Several threads can use it.
///
/// ```no_run
/// # fn example(config: &[u8]) -> Result<(), rpull::Error> {
/// use rpull::{LayerSource, Limits, Store};
///
/// let import = Store::open("/var/lib/images")?.import(Limits::default())?;
/// let tar = std::fs::File::open("base.tar.gz").expect("base.tar.gz");
/// let base = import.layer(None, LayerSource::new("base.tar.gz", tar))?;
/// let image = import.image(config, &[base], &["app:1".parse()?])?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Import {
    store: Store,
    inner: import::Import,
}

/// A layer that is committed in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedLayer(LayerRecord);

impl ImportedLayer {
    pub(super) fn new(record: LayerRecord) -> Self {
        Self(record)
    }

    /// The SHA-256 of the layer's tar.
    pub fn diff_id(&self) -> DiffId {
        self.0.diff_id
    }

    /// The ID of the stack of layers up to this one.
    pub fn chain_id(&self) -> ChainId {
        self.0.chain
    }

    /// The sum of the sizes of the layer's files in bytes, as Docker counts it.
    pub fn size(&self) -> u64 {
        self.0.size
    }
}

impl Store {
    /// Begins to add layers and images, within `limits`: waits until no other program removes
    /// images, and creates the store if there is none.
    ///
    /// # Errors
    /// A running dockerd uses the store, it cannot be locked, or its file system cannot hold layers.
    pub fn import(&self, limits: Limits) -> Result<Import, Error> {
        Ok(Import { store: self.clone(), inner: self.begin_import(limits)? })
    }

    /// Does the same for other operations of the library, which commit layers step by step.
    pub(super) fn begin_import(&self, limits: Limits) -> Result<import::Import, Error> {
        import::Import::begin(self.begin(), limits, &*self.waiting, &*self.dropping)
    }
}

impl Import {
    /// Adds the layer of `source` above `parent`, or finds that the store has it.
    ///
    /// # Errors
    /// The tar cannot be read, is invalid, or is not what the source requires. Nothing of the layer is
    /// left then.
    pub fn layer(
        &self,
        parent: Option<&ImportedLayer>,
        source: Source<'_>,
    ) -> Result<ImportedLayer, Error> {
        let staged = self.inner.stage(source)?;
        Ok(ImportedLayer(self.inner.commit(parent.map(|parent| &parent.0), staged)?))
    }

    /// Returns the layer with the content `diff_id` above `parent`, if the store has it there, or can
    /// copy it from another image.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn known_layer(
        &self,
        parent: Option<&ImportedLayer>,
        diff_id: DiffId,
    ) -> Result<Option<ImportedLayer>, Error> {
        Ok(self.inner.find(parent.map(|parent| &parent.0), diff_id)?.map(ImportedLayer))
    }

    /// Returns the layers of an image in the store, base first.
    ///
    /// # Errors
    /// There is no such image, or it is damaged.
    pub fn layers_of(&self, image: &ImageId) -> Result<Vec<ImportedLayer>, Error> {
        Ok(self.inner.layers_of(image)?.0.into_iter().map(ImportedLayer).collect())
    }

    /// Adds an image with the given config, byte for byte, whose `rootfs.diff_ids` are those of
    /// `layers`, base first. Moves `names` to it, last of all.
    ///
    /// # Errors
    /// The config is invalid, a name has a digest, or a file cannot be written.
    pub fn image(
        &self,
        config: &[u8],
        layers: &[ImportedLayer],
        names: &[Reference],
    ) -> Result<Image, Error> {
        let layers: Vec<LayerRecord> = layers.iter().map(|layer| layer.0.clone()).collect();
        let new = import::NewImage { config, layers: &layers, names, parent: None };
        let id = self.inner.image(new)?;
        let name = names.first().map_or_else(|| id.to_string(), Reference::to_string);
        Ok(Image::new(self.store.clone(), id, name))
    }

    /// Returns the warnings so far, such as what the layers lack because this process lacks a
    /// capability.
    pub fn warnings(&self) -> Vec<String> {
        self.inner.warnings()
    }
}
