//! The comparison of the index with the layer db and the image db.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::facts::{Fact, Version, is_shard};
use super::known::Known;
use super::stamp::Stamp;
use super::{IndexView, LayerIndex, REMOVING, STAMP, by_key, replace};
use crate::digest::Digest;
use crate::fsutil::{self, FsError};
use crate::oci::ChainId;
use crate::store::StoreError;
use crate::store::images::Images;
use crate::store::layer_record::{self, LayerRecord};

/// What the two databases contain.
pub struct Contents {
    /// The facts about all of it.
    pub facts: Vec<Fact>,
    /// Whether the layer db has partly removed records.
    removing: bool,
}

impl LayerIndex {
    /// Compares the files with the two databases and completes them. The caller holds the `commit`
    /// lock.
    pub(super) fn rebuild(&self) -> Result<IndexView, StoreError> {
        let Some(stamp) = Stamp::of(&self.layout) else { return Ok(IndexView::Memory) };
        let Contents { facts, removing } = match self.known() {
            Ok(known) => self.read(&known)?,
            Err(_) => return Ok(IndexView::Memory),
        };
        // Another program is changing them.
        if Stamp::of(&self.layout).as_ref() != Some(&stamp) {
            return Ok(IndexView::Memory);
        }
        let confirmed = !removing;
        let written = self.write(&facts).and_then(|()| match confirmed {
            true => replace(&self.path(STAMP), &stamp.to_string()),
            false => Ok(()),
        });
        if written.is_err() {
            *self.memory() = Some(by_key(facts));
            return Ok(IndexView::Memory);
        }
        Ok(IndexView::Files { stamp, confirmed })
    }

    /// Makes the files invalid, and returns what they contain.
    pub(super) fn known(&self) -> Result<Known, FsError> {
        let dir = self.layout.layer_index();
        fsutil::ensure_dir(&dir, 0o700)?;
        fsutil::remove(&self.path(STAMP))?;
        let mut known = Known::default();
        for name in fsutil::names_in(&dir)? {
            let path = dir.join(&name);
            if !is_shard(&name) {
                // A temporary file of a killed process.
                fsutil::remove(&path)?;
                continue;
            }
            let text = fsutil::read_optional(&path)?.unwrap_or_default();
            text.lines().filter_map(Fact::parse).for_each(|fact| known.learn(fact));
        }
        Ok(known)
    }

    /// Returns what the two databases contain. Reads only what is not `known`.
    pub(super) fn read(&self, known: &Known) -> Result<Contents, StoreError> {
        let names = fsutil::names_in(&self.layout.layers())?;
        let removing = names.iter().any(|name| name.ends_with(REMOVING));
        let mut facts = Vec::with_capacity(names.len() * 4);
        let mut unchanged = HashSet::new();
        for chain in names.iter().filter_map(|name| Digest::from_hex(name).ok()).map(ChainId) {
            let dir = self.layout.layer(&chain);
            let version = Version::of(&dir);
            if let Some(known) = known.of_layer(chain, version) {
                facts.extend(known);
                unchanged.insert(chain);
            } else if let Some(record) = LayerRecord::read(&self.layout, &chain)? {
                facts.extend(Fact::of(&record, version));
            } else if let Some(id) = layer_record::cache_id_in(&dir)? {
                facts.push(Fact::directory(id, chain, version));
            }
        }
        self.read_images(known, &unchanged, &mut facts)?;
        Ok(Contents { facts, removing })
    }

    /// Adds the facts about all images whose configs can be read.
    fn read_images(
        &self,
        known: &Known,
        unchanged: &HashSet<ChainId>,
        facts: &mut Vec<Fact>,
    ) -> Result<(), StoreError> {
        let images = Images::new(self.layout.clone());
        let mut sizes: HashMap<ChainId, Option<u64>> = HashMap::new();
        for id in images.list()? {
            if let Some(known) = known.of_image(id, unchanged) {
                facts.extend(known);
                continue;
            }
            let Some(config) = images.config(&id) else { continue };
            let chains = ChainId::stack(config.diff_ids());
            let mut sum = Some(0u64);
            for chain in &chains {
                let size = match sizes.get(chain) {
                    Some(size) => *size,
                    None => {
                        let record = LayerRecord::read_complete(&self.layout, chain)?;
                        *sizes.entry(*chain).or_insert(record.map(|record| record.size))
                    }
                };
                sum = sum.zip(size).map(|(sum, size)| sum.saturating_add(size));
            }
            facts.extend(Fact::of_image(id, &chains, sum));
        }
        Ok(())
    }

    /// Writes the shards that differ.
    fn write(&self, facts: &[Fact]) -> Result<(), FsError> {
        let mut shards: BTreeMap<String, Vec<&Fact>> = BTreeMap::new();
        facts.iter().for_each(|fact| shards.entry(fact.key.shard()).or_default().push(fact));
        for name in fsutil::names_in(&self.layout.layer_index())? {
            if !shards.contains_key(&name) {
                fsutil::remove(&self.path(&name))?;
            }
        }
        for (name, mut facts) in shards {
            let path = self.path(&name);
            facts.sort_unstable();
            let text: String = facts.into_iter().map(Fact::to_string).collect();
            if fsutil::read_optional(&path)?.as_deref() != Some(text.as_str()) {
                replace(&path, &text)?;
            }
        }
        Ok(())
    }
}
