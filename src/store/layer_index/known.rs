//! What the index already knows of a layer or an image before it is rebuilt.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::facts::{Detail, Fact, Key, Total, Version};
use crate::digest::Digest;
use crate::oci::{ChainId, DiffId, ImageId};
use crate::overlay::CacheId;
use crate::store::layer_record::LayerRecord;

/// What the files tell.
#[derive(Debug, Default)]
pub struct Known {
    layers: BTreeMap<ChainId, KnownLayer>,
    images: BTreeMap<ImageId, KnownImage>,
}

#[derive(Debug, Default)]
struct KnownLayer {
    diff: Option<DiffId>,
    parent: Option<ChainId>,
    directory: Option<(Version, CacheId)>,
}

#[derive(Debug, Default)]
struct KnownImage {
    chains: BTreeSet<ChainId>,
    total: Option<(Digest, Total)>,
}

impl Known {
    /// Adds a fact. Of several directories of a layer, that of the latest version counts.
    pub fn learn(&mut self, fact: Fact) {
        let Fact { key, value, detail } = fact;
        match (key, detail) {
            (Key::Diff(id), _) => self.layer(value).diff = Some(id),
            (Key::Parent(id), _) => self.layer(value).parent = Some(id),
            (Key::Directory(id), Detail::Version(version)) => {
                let layer = self.layer(value);
                layer.directory = layer.directory.take().max(Some((version, id)));
            }
            (Key::User(chain), _) => {
                self.images.entry(ImageId(value)).or_default().chains.insert(chain);
            }
            (Key::Total(id), Detail::Total(total)) => {
                self.images.entry(id).or_default().total = Some((value, total));
            }
            (Key::Directory(_) | Key::Total(_), _) => {}
        }
    }

    fn layer(&mut self, chain: Digest) -> &mut KnownLayer {
        self.layers.entry(ChainId(chain)).or_default()
    }

    /// Returns the facts about the layer `chain`, if they are those of `version` of its record.
    pub fn of_layer(&self, chain: ChainId, version: Option<Version>) -> Option<Vec<Fact>> {
        let layer = self.layers.get(&chain)?;
        let (seen, cache_id) = layer.directory.clone()?;
        let (diff_id, parent, size) = (layer.diff?, layer.parent, 0);
        let right = Some(seen) == version && ChainId::above(parent, diff_id) == chain;
        right.then(|| Fact::of(&LayerRecord { chain, parent, diff_id, cache_id, size }, version))
    }

    /// Returns the facts about an image, if all its layers are `unchanged`. An image ID stands for
    /// the same layers forever, but not for the same state of their records.
    pub fn of_image(&self, id: ImageId, unchanged: &HashSet<ChainId>) -> Option<Vec<Fact>> {
        let KnownImage { chains, total } = self.images.get(&id)?;
        let (top, Total { layers, bytes }) = (*total)?;
        let all = chains.len() == layers && chains.contains(&ChainId(top));
        let right = all && chains.iter().all(|chain| unchanged.contains(chain));
        let mut ordered: Vec<ChainId> = chains.iter().filter(|it| it.0 != top).copied().collect();
        ordered.push(ChainId(top));
        right.then(|| Fact::of_image(id, &ordered, Some(bytes)))
    }
}
