//! What is pushed: the config of an image, its layers, and the manifest with which it was pulled.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::digest::Digest;
use crate::error::ManifestError;
use crate::oci::{ChainId, Descriptor, DiffId, Document, ImageConfig, ImageId, Manifest};
use crate::reference::{Reference, Repository};
use crate::store::{Store, StoreError};

/// Blobs, and the paths of their repositories.
type Elsewhere = Vec<(Digest, String)>;

/// An image, ready to be pushed.
pub struct Prepared {
    /// The bytes of the config.
    pub config: Bytes,
    /// The layers, base first.
    pub layers: Vec<Layer>,
    /// The manifest with which it was pulled.
    pub pulled: Option<Document<Manifest>>,
}

/// A layer to push.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// Its place in the layer db.
    pub chain: ChainId,
    /// The size of its files in bytes, 0 if it is unknown.
    pub size: u64,
    /// Its blob in the manifest with which the image was pulled.
    pub pulled: Option<Descriptor>,
    /// Its blobs in the repository of the target, newest first.
    pub in_target: Vec<Digest>,
    /// Its blobs in other repositories of the same registry, and their paths, the best first.
    pub elsewhere: Elsewhere,
}

impl Prepared {
    /// Reads the image `id`, which is pushed to `target`.
    ///
    /// # Errors
    /// [`StoreError`] if it is missing, damaged or cannot be read.
    pub fn read(store: &Store, id: ImageId, target: &Repository) -> Result<Self, StoreError> {
        let config = store.images().get(&id)?;
        let config = config.ok_or_else(|| StoreError::NoSuchImage(id.to_string()))?;
        let damaged = |e: ManifestError| StoreError::Damaged {
            path: store.root().to_owned(),
            why: format!("image {}: {e}", id.short()),
        };
        let diff_ids = ImageConfig::parse(&config).map_err(damaged)?.diff_ids().to_vec();
        let pulled = store.pulled_manifest(id, Some(target))?;
        let pulled = pulled.filter(|manifest| manifest.parsed.layers.len() == diff_ids.len());
        let mut layers = Vec::new();
        for (place, chain) in ChainId::stack(&diff_ids).into_iter().enumerate() {
            let diff_id = diff_ids[place];
            let (in_target, elsewhere) = sources(store, diff_id, target)?;
            let pulled = pulled.as_ref().map(|manifest| manifest.parsed.layers[place].clone());
            let size = store.layers().get(&chain)?.map_or(0, |record| record.size);
            layers.push(Layer { diff_id, chain, size, pulled, in_target, elsewhere });
        }
        Ok(Self { config: config.into(), layers, pulled })
    }

    /// Returns each layer once, base first.
    pub fn unique_layers(&self) -> Vec<Layer> {
        let mut seen = HashSet::new();
        self.layers.iter().filter(|layer| seen.insert(layer.diff_id)).cloned().collect()
    }

    /// Returns the blobs of all layers, base first.
    pub fn descriptors(&self, blobs: &HashMap<DiffId, Descriptor>) -> Vec<Descriptor> {
        let of = |layer: &Layer| blobs.get(&layer.diff_id).cloned();
        self.layers.iter().filter_map(of).collect()
    }
}

/// Returns the blobs of a layer in the repository `target`, and in others of the same registry.
fn sources(
    store: &Store,
    diff_id: DiffId,
    target: &Repository,
) -> Result<(Vec<Digest>, Elsewhere), StoreError> {
    let (mut in_target, mut elsewhere) = (Vec::new(), Vec::new());
    let canonical = target.canonical();
    for source in store.distribution().sources(&diff_id)?.into_iter().rev() {
        // A record that another program changed must not become a wrong layer.
        if store.distribution().diff_id(&source.digest)? != Some(diff_id) {
            continue;
        }
        if source.source_repository == canonical {
            in_target.push(source.digest);
        } else if let Ok(name) = source.source_repository.parse::<Reference>()
            && name.domain() == target.domain()
        {
            elsewhere.push((source.digest, name.path().to_owned()));
        }
    }
    // A registry is most likely to allow the mount from a repository with the same owner.
    elsewhere.sort_by_key(|(_, path)| std::cmp::Reverse(common_components(path, target.path())));
    Ok((in_target, elsewhere))
}

fn common_components(a: &str, b: &str) -> usize {
    a.split('/').zip(b.split('/')).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_of_one_owner_have_common_components() {
        assert_eq!(common_components("library/a", "library/b"), 1);
        assert_eq!(common_components("a/b/c", "a/b/c"), 3);
        assert_eq!(common_components("a/b", "b/a"), 0);
    }
}
