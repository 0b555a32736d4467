//! The manifest of a pushed image: the one with which it was pulled, or a new one.

use bytes::Bytes;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::image::Prepared;
use crate::digest::Digest;
use crate::error::Error;
use crate::oci::{Descriptor, media_type};

/// The format of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManifestFormat {
    /// Docker's manifest version 2, schema 2.
    Docker,
    /// The OCI image manifest.
    Oci,
}

/// How the tar of a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// It is not.
    Tar,
    /// By gzip.
    Gzip,
    /// By zstd.
    Zstd,
}

impl Packing {
    /// Returns the packing that a media type names.
    fn of(media_type: &str) -> Self {
        match media_type::essence(media_type) {
            kind if kind.ends_with("zstd") => Self::Zstd,
            kind if kind.ends_with(".tar") => Self::Tar,
            _ => Self::Gzip,
        }
    }

    /// Returns the media type of a layer.
    pub fn media_type(self, format: ManifestFormat) -> &'static str {
        use ManifestFormat::{Docker, Oci};
        match (format, self) {
            (Docker, Self::Tar) => "application/vnd.docker.image.rootfs.diff.tar",
            (Docker, Self::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (Docker, Self::Zstd) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
            (Oci, Self::Tar) => "application/vnd.oci.image.layer.v1.tar",
            (Oci, Self::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Oci, Self::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    schema_version: u8,
    media_type: &'a str,
    config: Entry<'a>,
    layers: Vec<Entry<'a>>,
}

/// A descriptor with its fields in the order of docker's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    media_type: &'a str,
    size: u64,
    digest: Digest,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    urls: &'a [String],
}

/// Returns the media type and the bytes of the manifest for `image` with the blobs `layers`.
///
/// # Errors
/// [`Error::Internal`] if it cannot be written as JSON.
pub fn of(
    image: &Prepared,
    layers: Vec<Descriptor>,
    format: Option<ManifestFormat>,
) -> Result<(String, Bytes), Error> {
    let pulled = image.pulled.as_ref();
    let pulled_format = pulled.map(|manifest| format_of(&manifest.media_type));
    if let Some(manifest) = pulled
        && format.is_none_or(|format| Some(format) == pulled_format)
        && digests(&manifest.parsed.layers) == digests(&layers)
    {
        return Ok((manifest.media_type.clone(), manifest.bytes.clone()));
    }
    let format = format.or(pulled_format).unwrap_or(ManifestFormat::Docker);
    let (manifest_type, config_type) = match format {
        ManifestFormat::Docker => (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG),
        ManifestFormat::Oci => (media_type::OCI_MANIFEST, media_type::OCI_CONFIG),
    };
    let config = &image.config;
    let manifest = Wire {
        schema_version: 2,
        media_type: manifest_type,
        config: Entry {
            media_type: config_type,
            size: config.len() as u64,
            digest: Digest::of(config),
            urls: &[],
        },
        layers: layers.iter().map(|layer| entry(layer, format)).collect(),
    };
    // The form of docker, so that the same blobs have the same digest.
    let mut bytes = Vec::new();
    let mut json = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"   "));
    manifest.serialize(&mut json).map_err(|e| Error::Internal(e.to_string()))?;
    Ok((manifest_type.to_owned(), bytes.into()))
}

fn entry(layer: &Descriptor, format: ManifestFormat) -> Entry<'_> {
    Entry {
        media_type: Packing::of(&layer.media_type).media_type(format),
        size: layer.size,
        digest: layer.digest,
        urls: &layer.urls,
    }
}

fn format_of(media_type: &str) -> ManifestFormat {
    match media_type {
        media_type::OCI_MANIFEST => ManifestFormat::Oci,
        _ => ManifestFormat::Docker,
    }
}

fn digests(layers: &[Descriptor]) -> Vec<Digest> {
    layers.iter().map(|layer| layer.digest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_type_of_a_layer_keeps_its_packing_in_both_formats() {
        for packing in [Packing::Tar, Packing::Gzip, Packing::Zstd] {
            for format in [ManifestFormat::Docker, ManifestFormat::Oci] {
                assert_eq!(Packing::of(packing.media_type(format)), packing);
            }
        }
        assert_eq!(Packing::of(""), Packing::Gzip);
    }

    #[test]
    fn new_manifest_has_the_form_of_docker() {
        let digest = Digest::of(b"x");
        let layer = Descriptor {
            media_type: Packing::Gzip.media_type(ManifestFormat::Oci).to_owned(),
            digest,
            size: 7,
            platform: None,
            urls: Vec::new(),
            annotations: Default::default(),
        };
        let image = Prepared { config: Bytes::from_static(b"x"), layers: Vec::new(), pulled: None };
        let (media_type, bytes) = of(&image, vec![layer], None).unwrap();
        assert_eq!(media_type, media_type::DOCKER_MANIFEST);
        let expected = format!(
            r#"{{
   "schemaVersion": 2,
   "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
   "config": {{
      "mediaType": "application/vnd.docker.container.image.v1+json",
      "size": 1,
      "digest": "{digest}"
   }},
   "layers": [
      {{
         "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
         "size": 7,
         "digest": "{digest}"
      }}
   ]
}}"#
        );
        assert_eq!(String::from_utf8(bytes.to_vec()).unwrap(), expected);
    }
}
