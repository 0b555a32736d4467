//! Manifests and indexes (OCI image-spec manifest.md, image-index.md; Docker's manifest-v2-2.md),
//! and specific errors for what is not an image.

use bytes::Bytes;
use serde::Deserialize;

use super::descriptor::Descriptor;
use super::document::Document;
use super::media_type;
use super::platform::Platform;
use crate::digest::Digest;

/// Layers per image at most in Docker's store (moby layer_store.go `maxLayerDepth`).
pub const MAX_LAYERS: usize = 125;

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The config.
    pub config: Descriptor,
    /// The layers, base first.
    pub layers: Vec<Descriptor>,
}

/// An image index: manifests by platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The entries, in the order of the document.
    pub manifests: Vec<Descriptor>,
}

/// A manifest or an index.
#[derive(Debug, Clone)]
pub enum AnyManifest {
    /// An image.
    Image(Document<Manifest>),
    /// Images by platform.
    Index(Document<Index>),
}

/// The error for a document that is not an image, or not one that can be pulled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The manifest is not JSON of the right structure.
    #[error("invalid manifest: {0}")]
    Malformed(String),
    /// Docker's manifest schema 1, which is obsolete.
    #[error(
        "the image is in Docker's manifest schema 1, which is no longer supported; it must be pushed again as schema 2 or OCI"
    )]
    Schema1,
    /// The manifest is of another kind of artifact.
    #[error("this is {what} ({media_type}), not a container image")]
    NotAnImage {
        /// The kind of artifact, in words.
        what: &'static str,
        /// The media type that identifies it.
        media_type: String,
    },
    /// The media type is unknown.
    #[error("unsupported media type '{0}'; expected an image manifest or index")]
    MediaType(String),
    /// A layer has a media type that cannot be unpacked.
    #[error("layer {digest} has the unsupported media type '{media_type}'")]
    Layer {
        /// The digest of the layer.
        digest: Digest,
        /// The media type of the layer.
        media_type: String,
    },
    /// The image has more than [`MAX_LAYERS`] layers.
    #[error("the image has {0} layers; Docker's store supports at most {MAX_LAYERS}")]
    TooManyLayers(usize),
    /// No entry of the index runs on the platform.
    #[error("no matching manifest for {wanted} in the manifest list entries; available: {}", offered.join(", "))]
    NoPlatform {
        /// The requested platform.
        wanted: Platform,
        /// The available platforms.
        offered: Vec<String>,
    },
    /// The image has no index, and its config is for another platform.
    #[error("the image is for {actual}, and {wanted} was requested")]
    OtherPlatform {
        /// The requested platform.
        wanted: Platform,
        /// The platform of the image.
        actual: String,
    },
    /// Indexes are nested too deeply.
    #[error("the index is nested too deeply")]
    Nested,
    /// The config is not JSON of the right structure.
    #[error("invalid image config: {0}")]
    Config(String),
    /// Config and manifest have different numbers of layers.
    #[error(
        "layers from manifest don't match image configuration: {layers} layers, {diff_ids} diff ids"
    )]
    LayerCount {
        /// The number in the manifest.
        layers: usize,
        /// The number in the config.
        diff_ids: usize,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireManifest {
    #[serde(default)]
    schema_version: i64,
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    artifact_type: String,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde_json::Value>,
}

impl AnyManifest {
    /// Parses `bytes`, which were served with the media type `served_as`. The document's
    /// `mediaType` takes precedence over the header, and its structure over both, so an index
    /// cannot be taken for a manifest.
    ///
    /// # Errors
    /// [`ManifestError`] if it is invalid or not an image.
    pub fn parse(bytes: Bytes, digest: Digest, served_as: &str) -> Result<Self, ManifestError> {
        let malformed = |e: serde_json::Error| ManifestError::Malformed(e.to_string());
        let wire: WireManifest = serde_json::from_slice(&bytes).map_err(malformed)?;
        let own = if wire.media_type.is_empty() { served_as } else { &wire.media_type };
        let media_type = media_type::essence(own).to_owned();
        let schema1 = media_type::DOCKER_SCHEMA1.contains(&media_type.as_str());
        if schema1 || wire.schema_version == 1 || wire.fs_layers.is_some() {
            return Err(ManifestError::Schema1);
        }
        match (wire.config, wire.layers, wire.manifests) {
            (None, None, Some(manifests)) => {
                let parsed = Index { manifests };
                Ok(Self::Index(Document { bytes, digest, media_type, parsed }))
            }
            (Some(config), Some(layers), None) => {
                let parsed = image(config, layers, wire.artifact_type)?;
                Ok(Self::Image(Document { bytes, digest, media_type, parsed }))
            }
            (Some(_), Some(_), Some(_)) => {
                Err(ManifestError::Malformed("it is both an image and an index".to_owned()))
            }
            _ => Err(ManifestError::MediaType(media_type)),
        }
    }
}

fn image(
    config: Descriptor,
    layers: Vec<Descriptor>,
    artifact: String,
) -> Result<Manifest, ManifestError> {
    if let Some(what) = media_type::other_artifact(&config.media_type) {
        let media_type = if artifact.is_empty() { config.media_type } else { artifact };
        return Err(ManifestError::NotAnImage { what, media_type });
    }
    let encrypted = |layer: &&Descriptor| layer.media_type.ends_with("+encrypted");
    let wrong = layers
        .iter()
        .find(encrypted)
        .or_else(|| layers.iter().find(|layer| !media_type::is_layer(&layer.media_type)));
    if let Some(layer) = wrong {
        return Err(ManifestError::Layer {
            digest: layer.digest,
            media_type: layer.media_type.clone(),
        });
    }
    if layers.len() > MAX_LAYERS {
        return Err(ManifestError::TooManyLayers(layers.len()));
    }
    let total = layers.iter().try_fold(config.size, |sum, layer| sum.checked_add(layer.size));
    if total.is_none_or(|total| i64::try_from(total).is_err()) {
        return Err(ManifestError::Malformed("the sum of its sizes is over 2^63".to_owned()));
    }
    Ok(Manifest { config, layers })
}

impl Index {
    /// Returns the entries that run on `platform`, best first. An entry without a platform matches
    /// all and is last; attestations have the platform `unknown/unknown` and match none.
    ///
    /// # Errors
    /// [`ManifestError::NoPlatform`] if there is no such entry.
    pub fn select(&self, platform: &Platform) -> Result<Vec<&Descriptor>, ManifestError> {
        let known = |entry: &&Descriptor| {
            entry.media_type.is_empty()
                || media_type::ACCEPTED_MANIFESTS.contains(&media_type::essence(&entry.media_type))
        };
        let mut ranked: Vec<(usize, &Descriptor)> = self
            .manifests
            .iter()
            .filter(known)
            .filter_map(|entry| match &entry.platform {
                None => Some((usize::MAX, entry)),
                Some(offered) => platform.rank(offered).map(|rank| (rank, entry)),
            })
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        if ranked.is_empty() {
            let real = self.manifests.iter().filter_map(|entry| entry.platform.as_ref());
            let mut offered: Vec<String> =
                real.filter(|p| p.os != "unknown").map(Platform::to_string).collect();
            offered.dedup();
            return Err(ManifestError::NoPlatform { wanted: platform.clone(), offered });
        }
        Ok(ranked.into_iter().map(|(_, entry)| entry).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<AnyManifest, ManifestError> {
        AnyManifest::parse(
            Bytes::copy_from_slice(json.as_bytes()),
            Digest::of(json.as_bytes()),
            media_type::OCI_MANIFEST,
        )
    }

    fn descriptor(media_type: &str, platform: &str) -> String {
        let digest = Digest::of(platform.as_bytes());
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":3{platform}}}"#)
    }

    fn image_json(config: &str, layer: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            descriptor(config, ""),
            descriptor(layer, "")
        )
    }

    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    #[test]
    fn document_that_is_not_an_image_is_refused_by_name() {
        assert!(parse(&image_json(CONFIG, LAYER)).is_ok());
        assert_eq!(
            parse(r#"{"schemaVersion":1,"fsLayers":[]}"#).unwrap_err(),
            ManifestError::Schema1
        );
        let helm =
            parse(&image_json("application/vnd.cncf.helm.config.v1+json", LAYER)).unwrap_err();
        assert!(helm.to_string().contains("a Helm chart"), "{helm}");
        let plugin =
            parse(&image_json("application/vnd.docker.plugin.v1+json", LAYER)).unwrap_err();
        assert!(plugin.to_string().contains("plugin"), "{plugin}");
        let encrypted =
            parse(&image_json(CONFIG, "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"));
        assert!(matches!(encrypted.unwrap_err(), ManifestError::Layer { .. }));
        assert!(matches!(parse("{}").unwrap_err(), ManifestError::MediaType(_)));
        assert!(matches!(parse("[").unwrap_err(), ManifestError::Malformed(_)));
        for size in [":-3", ":9223372036854775808", ":1e30", ":\"3\"", ":9223372036854775807"] {
            let error = parse(&image_json(CONFIG, LAYER).replace(":3", size)).unwrap_err();
            assert!(matches!(error, ManifestError::Malformed(_)), "{size}");
        }
        let both = image_json(CONFIG, LAYER).replace("\"layers\"", "\"manifests\":[],\"layers\"");
        assert!(matches!(parse(&both).unwrap_err(), ManifestError::Malformed(_)));
    }

    fn index(platforms: &[&str]) -> Index {
        let entry = |p: &&str| {
            let mut parts = p.split('/');
            let (os, arch, variant) =
                (parts.next().unwrap(), parts.next(), parts.next().unwrap_or(""));
            let platform = arch.map(|arch| {
                format!(
                    r#","platform":{{"os":"{os}","architecture":"{arch}","variant":"{variant}"}}"#
                )
            });
            descriptor(media_type::OCI_MANIFEST, &platform.unwrap_or_default())
        };
        let entries: Vec<String> = platforms.iter().map(entry).collect();
        match parse(&format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(",")))
            .unwrap()
        {
            AnyManifest::Index(index) => index.parsed,
            AnyManifest::Image(_) => panic!("not an index"),
        }
    }

    fn chosen(platforms: &[&str], wanted: &str) -> Option<String> {
        let index = index(platforms);
        let best = *index.select(&wanted.parse().unwrap()).ok()?.first()?;
        Some(best.platform.as_ref().map(Platform::to_string).unwrap_or("any".into()))
    }

    #[test]
    fn index_with_several_platforms_selects_the_best() {
        let all = ["unknown/unknown", "linux/arm/v7", "linux/386", "linux/amd64", "linux/arm64/v8"];
        assert_eq!(chosen(&all, "linux/amd64").unwrap(), "linux/amd64");
        assert_eq!(chosen(&all, "linux/arm64").unwrap(), "linux/arm64");
        assert_eq!(chosen(&all, "linux/arm/v8").unwrap(), "linux/arm/v7");
        assert_eq!(chosen(&["linux/386"], "linux/amd64").unwrap(), "linux/386");
        assert_eq!(chosen(&["any", "linux/386"], "linux/amd64").unwrap(), "linux/386");
        assert_eq!(chosen(&["any"], "linux/s390x").unwrap(), "any");
        assert_eq!(
            chosen(&["linux/amd64", "linux/amd64/v3"], "linux/amd64/v3").unwrap(),
            "linux/amd64/v3"
        );
        assert_eq!(chosen(&["linux/amd64/v3"], "linux/amd64/v2"), None);
        assert_eq!(chosen(&all, "windows/amd64"), None);
        assert_eq!(chosen(&["unknown/unknown"], "linux/amd64"), None);
    }
}
