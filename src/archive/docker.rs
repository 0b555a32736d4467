//! The images of a docker-archive (moby image/tarexport load.go). It has no manifests of registries, so
//! one is made for each image: then an archive is unpacked and verified like any other source.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
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
    let mut known = Known::default();
    // Items of one image, with names or without, are one image with all names.
    let mut listed: HashMap<(Digest, bool), usize> = HashMap::new();
    for item in items {
        let image = image(files, item, &mut found, &mut known)?;
        let key = (image.tops[0].digest, image.names.is_empty());
        match listed.entry(key) {
            Entry::Occupied(at) => found.images[*at.get()].names.extend(image.names),
            Entry::Vacant(place) => {
                place.insert(found.images.len());
                found.images.push(image);
            }
        }
    }
    Ok(found)
}

/// What was read for items before, by its path.
#[derive(Default)]
struct Known {
    configs: HashMap<String, Config>,
    compressed: HashMap<String, Digest>,
}

struct Config {
    descriptor: Descriptor,
    parsed: ImageConfig,
}

fn config<'a>(
    files: &Files,
    path: &str,
    known: &'a mut HashMap<String, Config>,
) -> Result<&'a Config, ArchiveError> {
    match known.entry(path.to_owned()) {
        Entry::Occupied(known) => Ok(known.into_mut()),
        Entry::Vacant(place) => {
            let bytes = files.document(path)?.ok_or_else(|| missing(path))?;
            let parsed = ImageConfig::parse(&bytes)?;
            let (id, size) = (Digest::of(&bytes), bytes.len() as u64);
            let descriptor = documents::descriptor(media_type::OCI_CONFIG, id, size);
            Ok(place.insert(Config { descriptor, parsed }))
        }
    }
}

fn missing(path: &str) -> ArchiveError {
    ArchiveError::Invalid(format!("{path} is missing"))
}

fn image(
    files: &Files,
    item: Item,
    found: &mut Found,
    known: &mut Known,
) -> Result<FoundImage, ArchiveError> {
    let config = config(files, &item.config, &mut known.configs)?;
    let paths = item.layers.unwrap_or_default();
    config.parsed.check_layers(paths.len())?;
    if paths.len() > MAX_LAYERS {
        return Err(ManifestError::TooManyLayers(paths.len()).into());
    }
    let mut layers = Vec::with_capacity(paths.len());
    for (path, diff_id) in paths.iter().zip(config.parsed.diff_ids()) {
        let range = files.find(path)?.ok_or_else(|| missing(path))?;
        let layer = layer(&range, path, diff_id.digest(), &mut known.compressed)?;
        found.paths.insert(layer.digest, path.clone());
        layers.push(layer);
    }
    found.paths.insert(config.descriptor.digest, item.config);
    let manifest = documents::manifest(&config.descriptor, &layers).map_err(std::io::Error::from);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::files::Files;

    #[test]
    fn items_of_one_image_are_one_image_with_all_names() {
        let dir = tempfile::tempdir().unwrap();
        let layer = b"the bytes of a layer";
        let config = |os: &str| {
            let id = Digest::of(layer);
            format!(
                r#"{{"os":"{os}","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{id}"]}}}}"#
            )
        };
        let item = |config: &str, tags: &str| {
            format!(r#"{{"Config":"{config}","RepoTags":{tags},"Layers":["layer.tar"]}}"#)
        };
        let items = [
            item("a.json", r#"["x:1"]"#),
            item("b.json", r#"["y:1"]"#),
            item("a.json", "null"),
            item("same.json", r#"["x:3","x:2"]"#),
            item("a.json", "[]"),
        ];
        let manifest = format!("[{}]", items.join(","));
        let (a, b) = (config("linux"), config("other"));
        for (name, bytes) in [
            (MANIFEST, manifest.as_bytes()),
            ("layer.tar", layer),
            ("a.json", a.as_bytes()),
            ("same.json", a.as_bytes()),
            ("b.json", b.as_bytes()),
        ] {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        let found = images(&Files::of_dir(dir.path()).unwrap()).unwrap();
        let names = |image: &FoundImage| {
            image.names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let names: Vec<String> = found.images.iter().map(names).collect();
        assert_eq!(names, ["x:1 x:3 x:2", "y:1", ""]);
        assert_eq!(found.images[0].tops[0].digest, found.images[2].tops[0].digest);
    }
}
