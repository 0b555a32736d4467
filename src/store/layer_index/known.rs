//! What the index already knows of a layer before it is rebuilt.

use super::facts::{Fact, Key, Version};
use crate::oci::{ChainId, DiffId};
use crate::overlay::CacheId;
use crate::store::layer_record::LayerRecord;

/// What the files tell of one layer.
#[derive(Debug, Default)]
pub struct Known {
    diff: Option<DiffId>,
    parent: Option<ChainId>,
    directory: Option<(Version, CacheId)>,
}

impl Known {
    /// Adds a fact. Of several directories, that of the latest version counts.
    pub fn learn(&mut self, fact: Fact) {
        match (fact.key, fact.version) {
            (Key::Diff(id), _) => self.diff = Some(id),
            (Key::Parent(id), _) => self.parent = Some(id),
            (Key::Directory(id), Some(version)) => {
                self.directory = self.directory.take().max(Some((version, id)));
            }
            (Key::Directory(_), None) => {}
        }
    }

    /// Returns the facts of `chain`, if they are those of `version` of its record.
    pub fn facts(&self, chain: ChainId, version: Option<Version>) -> Option<Vec<Fact>> {
        let (seen, cache_id) = self.directory.clone()?;
        let diff_id = self.diff?;
        let right = Some(seen) == version && ChainId::above(self.parent, diff_id) == chain;
        let (parent, size) = (self.parent, 0);
        right.then(|| Fact::of(&LayerRecord { chain, parent, diff_id, cache_id, size }, version))
    }
}
