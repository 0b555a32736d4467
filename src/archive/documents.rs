//! The documents that an archive gets: `manifest.json`, `index.json` and image manifests.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::digest::Digest;
use crate::oci::{Descriptor, media_type};
use crate::reference::Reference;

/// What an archive consists of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArchiveFormat {
    /// An OCI image layout with Docker's `manifest.json`, as docker 25 and later write it.
    #[default]
    Both,
    /// An OCI image layout with manifests of OCI's media types.
    Oci,
    /// A docker-archive with uncompressed layers, which all versions of docker read.
    Docker,
}

/// The text of `oci-layout` (OCI image-spec image-layout.md).
pub const LAYOUT_TEXT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// The annotation with the name of an entry (OCI image-spec annotations.md): docker and containerd
/// write the tag alone.
pub const NAME: &str = "org.opencontainers.image.ref.name";

/// The annotation with the whole name (containerd core/images/annotations.go).
pub const IMAGE_NAME: &str = "io.containerd.image.name";

/// One image of `manifest.json` (moby image/tarexport `manifestItem`).
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerItem {
    /// The path of the config.
    pub config: String,
    /// The names with tags; null if there are none, as docker writes it.
    pub repo_tags: Option<Vec<String>>,
    /// The paths of the layers, base first.
    pub layers: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    config: &'a Descriptor,
    layers: &'a [Descriptor],
}

/// Returns a descriptor without annotations.
pub fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        platform: None,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
    }
}

/// Returns an OCI manifest.
///
/// # Errors
/// None in practice: descriptors are JSON.
pub fn manifest(config: &Descriptor, layers: &[Descriptor]) -> serde_json::Result<Vec<u8>> {
    let media_type = media_type::OCI_MANIFEST;
    serde_json::to_vec(&Manifest { schema_version: 2, media_type, config, layers })
}

/// Returns `index.json` with one entry per name, or one per image without a name.
///
/// # Errors
/// None in practice: descriptors are JSON.
pub fn index<'a>(
    images: impl Iterator<Item = (&'a Descriptor, &'a [Reference])> + Clone,
) -> serde_json::Result<Vec<u8>> {
    let mut tags: HashMap<&str, usize> = HashMap::new();
    for name in images.clone().flat_map(|(_, names)| names) {
        *tags.entry(name.tag().unwrap_or_default()).or_default() += 1;
    }
    let mut manifests = Vec::new();
    for (image, names) in images {
        if names.is_empty() {
            manifests.push(image.clone());
        }
        for name in names {
            let (mut entry, tag) = (image.clone(), name.tag().unwrap_or_default());
            // Tools that know only this annotation must find each image by it.
            let own = if tags[tag] > 1 { name.canonical() } else { tag.to_owned() };
            entry.annotations.insert(NAME.to_owned(), own);
            entry.annotations.insert(IMAGE_NAME.to_owned(), name.canonical());
            manifests.push(entry);
        }
    }
    let media_type = media_type::OCI_INDEX;
    serde_json::to_vec(&Index { schema_version: 2, media_type, manifests })
}

/// Returns the OCI media type of a layer that has another one.
pub fn oci_layer(docker: &str) -> &'static str {
    match media_type::essence(docker) {
        kind if kind.ends_with("zstd") => media_type::OCI_LAYER_ZSTD,
        kind if kind.ends_with("tar") => media_type::OCI_LAYER,
        _ => media_type::OCI_LAYER_GZIP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_share_a_tag_have_whole_names() {
        let names = |all: &[&str]| all.iter().map(|it| it.parse().unwrap()).collect::<Vec<_>>();
        let image =
            |text: &str| descriptor(media_type::OCI_MANIFEST, Digest::of(text.as_bytes()), 1);
        let images = [
            (image("a"), names(&["a:1", "a:2"])),
            (image("b"), names(&["quay.io/b:1"])),
            (image("c"), names(&[])),
        ];
        let text = index(images.iter().map(|(image, names)| (image, &names[..]))).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let entries = json["manifests"].as_array().unwrap();
        let named: Vec<_> =
            entries.iter().map(|entry| entry["annotations"][NAME].as_str()).collect();
        let expected = [Some("docker.io/library/a:1"), Some("2"), Some("quay.io/b:1"), None];
        assert_eq!(named, expected);
        assert_eq!(entries[1]["annotations"][IMAGE_NAME], "docker.io/library/a:2");
    }
}
