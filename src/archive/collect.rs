//! What the store has of an image that is saved.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use super::documents::{self, ArchiveFormat};
use super::error::ArchiveError;
use crate::digest::Digest;
use crate::fsutil::{self, At};
use crate::layer::{self, LayerError, TarAssembler};
use crate::oci::{Descriptor, Document, ImageConfig, ImageId, Manifest, media_type};
use crate::overlay::DiffDir;
use crate::reference::Reference;
use crate::store::{LayerRecord, Store, StoreError};

/// An image with all that an archive gets of it.
pub struct CollectedImage {
    /// The image.
    pub id: ImageId,
    /// Its names with tags, in the order in which they were given.
    pub names: Vec<Reference>,
    /// Its config.
    pub config: Vec<u8>,
    /// Its manifest.
    pub manifest: Vec<u8>,
    /// The descriptor of the manifest, with the platform.
    pub descriptor: Descriptor,
    /// Its layers, base first.
    pub layers: Vec<CollectedLayer>,
}

/// A layer, and where its bytes are.
pub struct CollectedLayer {
    /// The digest of the bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    source: Source,
}

enum Source {
    /// The content store has the blob.
    Kept,
    /// The tar is assembled.
    Layer { record: LayerRecord, tar_split: PathBuf, diff: PathBuf },
}

impl CollectedLayer {
    /// Calls `read` with a reader of the bytes.
    ///
    /// # Errors
    /// The error of `read`, or [`ArchiveError`] if the layer cannot be opened.
    pub fn with<T>(
        &self,
        store: &Store,
        read: impl FnOnce(&mut dyn Read) -> Result<T, ArchiveError>,
    ) -> Result<T, ArchiveError> {
        let (record, tar_split, diff) = match &self.source {
            Source::Kept => {
                let missing = || ArchiveError::DamagedBlob {
                    blob: self.digest,
                    why: "it was removed".to_owned(),
                };
                let mut file = store.content().open(&self.digest)?.ok_or_else(missing)?;
                return read(&mut file);
            }
            Source::Layer { record, tar_split, diff } => (record, tar_split, diff),
        };
        let failed = |source| ArchiveError::Layer { layer: record.diff_id.digest(), source };
        let files = DiffDir::open(diff).map_err(|e| failed(LayerError::open(diff, e)))?;
        let tar_split = fsutil::open(tar_split).at("open", tar_split)?;
        read(&mut TarAssembler::new(tar_split, &files))
    }
}

/// Collects what an archive of `format` gets of the image `id`.
///
/// # Errors
/// [`ArchiveError`] if the image is damaged or cannot be read.
pub fn collect(
    store: &Store,
    id: ImageId,
    names: Vec<Reference>,
    format: ArchiveFormat,
) -> Result<CollectedImage, ArchiveError> {
    let config = store.images().get(&id)?.ok_or_else(|| StoreError::NoSuchImage(id.to_string()))?;
    let parsed = ImageConfig::parse(&config)?;
    let records = store.layers().stack(parsed.diff_ids())?.ok_or_else(|| StoreError::Damaged {
        path: store.root().to_owned(),
        why: format!("a layer of the image {} is missing", id.short()),
    })?;
    let original = match format {
        ArchiveFormat::Docker => None,
        ArchiveFormat::Both | ArchiveFormat::Oci => store.pulled_manifest(id, None)?,
    };
    let original = original.filter(|it| parsed.check_layers(it.parsed.layers.len()).is_ok());
    let mut layers = Vec::with_capacity(records.len());
    let mut descriptors = Vec::with_capacity(records.len());
    for (n, record) in records.into_iter().enumerate() {
        let blob = original.as_ref().map(|manifest| &manifest.parsed.layers[n]);
        let (layer, media_type) = collect_layer(store, record, blob)?;
        descriptors.push(documents::descriptor(media_type, layer.digest, layer.size));
        layers.push(layer);
    }
    let is_oci = |it: &Document<Manifest>| it.media_type == media_type::OCI_MANIFEST;
    let same = |it: &Document<Manifest>| {
        it.parsed.layers.iter().zip(&layers).all(|(blob, layer)| blob.digest == layer.digest)
    };
    let (manifest, kind) = match original {
        // Byte for byte, so that the digest stays, unless the format does not allow it.
        Some(it) if same(&it) && (format == ArchiveFormat::Both || is_oci(&it)) => {
            (it.bytes.to_vec(), it.media_type)
        }
        _ => {
            let size = config.len() as u64;
            let config = documents::descriptor(media_type::OCI_CONFIG, id.digest(), size);
            let text = documents::manifest(&config, &descriptors).map_err(std::io::Error::from);
            (text.map_err(ArchiveError::Write)?, media_type::OCI_MANIFEST.to_owned())
        }
    };
    let size = manifest.len() as u64;
    let mut descriptor = documents::descriptor(&kind, Digest::of(&manifest), size);
    let platform = parsed.platform();
    descriptor.platform = (!platform.os.is_empty()).then_some(platform);
    Ok(CollectedImage { id, names, config, manifest, descriptor, layers })
}

/// Returns where the bytes of a layer are: the blob that it was pulled as if the content store has it,
/// else its tar. Returns the OCI media type, too.
fn collect_layer(
    store: &Store,
    record: LayerRecord,
    blob: Option<&Descriptor>,
) -> Result<(CollectedLayer, &'static str), ArchiveError> {
    if let Some(blob) = blob
        && store.content().has(&blob.digest, blob.size)?
    {
        let (digest, size) = (blob.digest, blob.size);
        let layer = CollectedLayer { digest, size, source: Source::Kept };
        return Ok((layer, documents::oci_layer(&blob.media_type)));
    }
    let digest = record.diff_id.digest();
    let tar_split = store.layers().tar_split_path(&record.chain);
    let diff = store.layers().diff_path(&record);
    let file: File = fsutil::open(&tar_split).at("open", &tar_split)?;
    let size = layer::tar_size(file);
    let size = size.map_err(|source| ArchiveError::Layer { layer: digest, source })?;
    let source = Source::Layer { record, tar_split, diff };
    Ok((CollectedLayer { digest, size, source }, media_type::OCI_LAYER))
}
