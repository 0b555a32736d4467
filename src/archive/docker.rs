//! The images of a docker-archive (moby image/tarexport load.go). It has no manifests of registries, so
//! one is made for each image: then an archive is unpacked and verified like any other source.

use std::collections::HashMap;
use std::io::Read;

use bytes::Bytes;
use serde::Deserialize;

use super::documents;
use super::error::ArchiveError;
use super::files::{FileRange, Files};
use super::found::{Found, FoundImage};
use crate::digest::Digest;
use crate::layer::Compression;
use crate::oci::{Descriptor, ImageConfig, MAX_LAYERS, ManifestError, media_type};
use crate::reference::Reference;

/// The path of the list of images.
pub const MANIFEST: &str = "manifest.json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    #[serde(default)]
    config: String,
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Returns the images that `manifest.json` lists.
///
/// # Errors
/// [`ArchiveError`] if a document is invalid, or a layer is missing or has an unknown compression.
pub fn images(files: &Files) -> Result<Found, ArchiveError> {
    let bytes = files.document(MANIFEST)?.unwrap_or_default();
    let invalid = |e: serde_json::Error| ArchiveError::Invalid(format!("{MANIFEST}: {e}"));
    let items: Vec<Item> = serde_json::from_slice(&bytes).map_err(invalid)?;
    let mut found = Found::default();
    let mut known = HashMap::new();
    for item in items {
        let image = image(files, item, &mut found, &mut known)?;
        found.images.push(image);
    }
    Ok(found)
}

fn image(
    files: &Files,
    item: Item,
    found: &mut Found,
    known: &mut HashMap<String, Digest>,
) -> Result<FoundImage, ArchiveError> {
    let missing = |path: &str| ArchiveError::Invalid(format!("{path} is missing"));
    let config = files.document(&item.config)?.ok_or_else(|| missing(&item.config))?;
    let parsed = ImageConfig::parse(&config)?;
    let paths = item.layers.unwrap_or_default();
    parsed.check_layers(paths.len())?;
    if paths.len() > MAX_LAYERS {
        return Err(ManifestError::TooManyLayers(paths.len()).into());
    }
    let id = Digest::of(&config);
    let mut layers = Vec::with_capacity(paths.len());
    for (path, diff_id) in paths.iter().zip(parsed.diff_ids()) {
        let range = files.find(path)?.ok_or_else(|| missing(path))?;
        let layer = layer(&range, path, diff_id.digest(), known)?;
        found.paths.insert(layer.digest, path.clone());
        layers.push(layer);
    }
    found.paths.insert(id, item.config);
    let config = documents::descriptor(media_type::OCI_CONFIG, id, config.len() as u64);
    let manifest = documents::manifest(&config, &layers).map_err(std::io::Error::from);
    let manifest = Bytes::from(manifest.map_err(ArchiveError::Read)?);
    let top = Digest::of(&manifest);
    let top_size = manifest.len() as u64;
    found.made.insert(top, manifest);
    let names = item.repo_tags.unwrap_or_default();
    Ok(FoundImage {
        tops: vec![documents::descriptor(media_type::OCI_MANIFEST, top, top_size)],
        names: names.iter().map(|name| tag(name)).collect::<Result<_, _>>()?,
        label: None,
    })
}

/// Returns the descriptor of a layer. An uncompressed one has its diff ID as digest, which is verified
/// when it is unpacked. A compressed one is hashed.
fn layer(
    range: &FileRange,
    path: &str,
    diff_id: Digest,
    known: &mut HashMap<String, Digest>,
) -> Result<Descriptor, ArchiveError> {
    let mut head = Vec::new();
    range.reader().take(6).read_to_end(&mut head).map_err(ArchiveError::Read)?;
    let kind = match Compression::detect(&head).map_err(ArchiveError::Tar)? {
        Compression::None => {
            return Ok(documents::descriptor(media_type::OCI_LAYER, diff_id, range.size()));
        }
        Compression::Gzip => media_type::OCI_LAYER_GZIP,
        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
    };
    let digest = match known.get(path) {
        Some(digest) => *digest,
        None => Digest::of_reader(range.reader()).map_err(ArchiveError::Read)?,
    };
    known.insert(path.to_owned(), digest);
    Ok(documents::descriptor(kind, digest, range.size()))
}

/// Parses a name of `RepoTags`, which must have a tag.
fn tag(name: &str) -> Result<Reference, ArchiveError> {
    let parsed = name.parse::<Reference>().ok();
    let tagged = parsed.filter(|it| it.tag().is_some() && it.digest().is_none());
    tagged.ok_or_else(|| ArchiveError::Invalid(format!("invalid tag '{name}'")))
}
