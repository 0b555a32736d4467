//! The manifests of what is copied: an image, an index with its images, or any other artifact.

use std::collections::HashSet;

use bytes::Bytes;
use serde::Deserialize;

use crate::digest::Digest;
use crate::error::{Error, ManifestError, RegistryError};
use crate::oci::{Descriptor, media_type};
use crate::reference::Repository;
use crate::registry::Registry;

/// Indexes in indexes that are followed.
const DEEPEST: usize = 4;

/// Bytes of all manifests of one copy at most: they are in memory until the target has them.
const MAX_SIZE: usize = 64 << 20;

/// A manifest or index.
#[derive(Debug)]
pub struct Item {
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// The bytes.
    pub bytes: Bytes,
    /// The blobs that it names.
    pub blobs: Vec<Descriptor>,
}

/// The manifests of one copy, each once, those that an index names before it.
#[derive(Debug, Default)]
pub struct Collected {
    /// The manifests.
    pub items: Vec<Item>,
    seen: HashSet<Digest>,
    size: usize,
}

/// What is done next.
enum Next {
    /// Fetch a manifest, at a depth below the first one.
    Fetch(Digest, usize),
    /// Add an index, after those that it names.
    Add(Item),
}

/// What a copy reads of a manifest. All other fields are copied as they are.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Collected {
    /// Fetches the manifest `digest` of `repository`, and those that it names.
    ///
    /// # Errors
    /// [`Error`] if one is missing, has another digest, or is not a manifest.
    pub async fn add(
        &mut self,
        registry: &Registry,
        repository: &Repository,
        digest: Digest,
    ) -> Result<(), Error> {
        let mut stack = vec![Next::Fetch(digest, 0)];
        while let Some(next) = stack.pop() {
            let (digest, depth) = match next {
                Next::Fetch(digest, depth) => (digest, depth),
                Next::Add(item) => {
                    self.items.push(item);
                    continue;
                }
            };
            if !self.seen.insert(digest) {
                continue;
            }
            let raw = registry.manifest(repository, &digest.to_string()).await?;
            let (item, children) = parse(raw.bytes, digest, &raw.media_type)?;
            self.size += item.bytes.len();
            if self.size > MAX_SIZE {
                let (what, limit) = (format!("all manifests of {repository}"), MAX_SIZE as u64);
                return Err(RegistryError::TooLarge { what, limit }.into());
            }
            if depth == DEEPEST && !children.is_empty() {
                return Err(ManifestError::Nested.into());
            }
            stack.push(Next::Add(item));
            let children = children.into_iter().rev();
            stack.extend(children.map(|child| Next::Fetch(child, depth + 1)));
        }
        Ok(())
    }
}

/// Parses a manifest. Returns the digests of the manifests that it names, too.
fn parse(
    bytes: Bytes,
    digest: Digest,
    served_as: &str,
) -> Result<(Item, Vec<Digest>), ManifestError> {
    let malformed = |e: serde_json::Error| ManifestError::Malformed(e.to_string());
    let wire: Wire = serde_json::from_slice(&bytes).map_err(malformed)?;
    let own = if wire.media_type.is_empty() { served_as } else { &wire.media_type };
    let media_type = media_type::essence(own).to_owned();
    if wire.fs_layers.is_some() {
        return Err(ManifestError::Schema1);
    }
    let mut blobs: Vec<Descriptor> = wire.config.into_iter().collect();
    blobs.extend(wire.layers.into_iter().flatten().filter(|layer| !is_foreign(layer)));
    let children = wire.manifests.into_iter().flatten().map(|entry| entry.digest).collect();
    Ok((Item { digest, media_type, bytes, blobs }, children))
}

/// Returns whether a layer is fetched from other places than registries.
fn is_foreign(layer: &Descriptor) -> bool {
    let kind = &layer.media_type;
    !layer.urls.is_empty() && (kind.contains(".foreign.") || kind.contains(".nondistributable."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Result<(Item, Vec<Digest>), ManifestError> {
        let digest = Digest::of(json.as_bytes());
        parse(Bytes::copy_from_slice(json.as_bytes()), digest, "served/as; charset=utf-8")
    }

    #[test]
    fn artifact_and_index_of_any_kind_give_their_blobs_and_manifests() {
        let digest = Digest::of(b"x");
        let entry = |kind: &str, more: &str| {
            format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":1{more}}}"#)
        };
        let (config, layer) =
            (entry("application/vnd.cncf.helm.config.v1+json", ""), entry("a/b", ""));
        let foreign = entry(
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            r#","urls":["https://x"]"#,
        );
        let (chart, none) =
            parsed(&format!(r#"{{"config":{config},"layers":[{layer},{foreign}]}}"#)).unwrap();
        assert_eq!((chart.blobs.len(), none.len(), &*chart.media_type), (2, 0, "served/as"));
        let (index, children) =
            parsed(&format!(r#"{{"mediaType":"i/x","manifests":[{layer}]}}"#)).unwrap();
        assert_eq!((index.blobs.len(), children, &*index.media_type), (0, vec![digest], "i/x"));
        assert_eq!(parsed(r#"{"fsLayers":[]}"#).unwrap_err(), ManifestError::Schema1);
        assert!(matches!(parsed("[").unwrap_err(), ManifestError::Malformed(_)));
    }
}
