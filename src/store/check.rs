//! The check of a root: names, configs, records of layers, their directories and links, and the
//! documents of the content store. It reads no contents of layers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::time::Duration;

use super::check_layer::{self, CheckedRecord, Links};
use super::damage::{Damage, DamageClass};
use super::layer_record::LayerRecord;
use super::references::References;
use super::{Store, StoreError, containers, daemon, lock, omitted};
use crate::oci::{ChainId, ImageConfig, ImageId};
use crate::overlay::Abilities;

/// How often a root that dockerd changes meanwhile is checked, and the interval.
const LIVE_CHECKS: usize = 3;
const LIVE_INTERVAL: Duration = Duration::from_millis(200);

/// The result of [`Store::check`].
#[derive(Debug)]
pub struct Findings {
    /// The damage, in the order of classes and paths.
    pub damage: Vec<Damage>,
    /// The images that were checked.
    pub images: Vec<ImageId>,
    /// The layers whose records and directories are there, so that their contents can be verified.
    pub layers: Vec<LayerRecord>,
    /// The number of layers that were checked.
    pub layer_count: usize,
    /// The images of each layer.
    users: HashMap<ChainId, Vec<ImageId>>,
}

impl Findings {
    /// Adds the images that need the layer of `damage`.
    pub fn with_images(&self, mut damage: Damage) -> Damage {
        let users = damage.layer.and_then(|chain| self.users.get(&chain));
        damage.images.extend(users.into_iter().flatten());
        damage
    }
}

/// The images that are checked.
struct Images {
    ids: Vec<ImageId>,
    stacks: Vec<(ImageId, Vec<ChainId>)>,
    damage: Vec<Damage>,
}

impl Store {
    /// Checks the images `wanted`, or all images and layers. The caller holds the store lock for
    /// reading, if there is one.
    ///
    /// What other processes change meanwhile is not reported: damage is confirmed under the `commit`
    /// lock, or, on the root of a live daemon, by repeated checks.
    ///
    /// # Errors
    /// [`StoreError`] if the root cannot be read.
    pub fn check(&self, wanted: Option<&[ImageId]>) -> Result<Findings, StoreError> {
        let mut found = self.check_once(wanted)?;
        if found.damage.is_empty() {
            return Ok(found);
        }
        if daemon::refuse_if_live(self.root()).is_err() {
            for _ in 1..LIVE_CHECKS {
                std::thread::sleep(LIVE_INTERVAL);
                let again = self.check_once(wanted)?;
                let same = |a: &Damage, b: &Damage| (a.class, &a.path) == (b.class, &b.path);
                found.damage.retain(|damage| again.damage.iter().any(|other| same(damage, other)));
            }
            return Ok(found);
        }
        match lock::commit_lock(&self.layout) {
            Ok(_commit) => self.check_once(wanted),
            // The root is read-only or has never been written by rpull: nothing is committed.
            Err(StoreError::Fs(_)) => Ok(found),
            Err(e) => Err(e),
        }
    }

    fn check_once(&self, wanted: Option<&[ImageId]>) -> Result<Findings, StoreError> {
        let mut damage = Vec::new();
        let names = match self.names().load() {
            Ok(names) => names,
            Err(StoreError::DamagedNames { path, why }) => {
                damage.push(Damage::new(DamageClass::Names, path, why));
                References::default()
            }
            Err(e) => return Err(e),
        };
        let images = self.check_images(&names, wanted)?;
        damage.extend(images.damage);
        let mut users: HashMap<ChainId, Vec<ImageId>> = HashMap::new();
        for (id, stack) in &images.stacks {
            stack.iter().for_each(|chain| users.entry(*chain).or_default().push(*id));
        }
        let mut chains: BTreeSet<ChainId> = users.keys().copied().collect();
        if wanted.is_none() {
            chains.extend(self.layers().chains()?);
            chains.extend(containers::parents(&self.layout)?);
        }
        let layers = self.check_layers(chains, &mut damage)?;
        let mut found = Findings {
            damage: Vec::new(),
            images: images.ids,
            layer_count: layers.count,
            layers: layers.verifiable,
            users,
        };
        let mut damage: Vec<Damage> =
            damage.into_iter().map(|damage| found.with_images(damage)).collect();
        damage.extend(self.damaged_documents(&names, wanted)?);
        damage.sort_by(|a, b| (a.class, &a.path).cmp(&(b.class, &b.path)));
        damage.dedup_by(|a, b| (a.class, &a.path) == (b.class, &b.path));
        found.damage = damage;
        Ok(found)
    }

    fn check_images(
        &self,
        names: &References,
        wanted: Option<&[ImageId]>,
    ) -> Result<Images, StoreError> {
        let ids: BTreeSet<ImageId> = match wanted {
            Some(wanted) => wanted.iter().copied().collect(),
            None => {
                self.images().list()?.into_iter().chain(names.iter().map(|(_, id)| id)).collect()
            }
        };
        let mut images = Images { ids: Vec::new(), stacks: Vec::new(), damage: Vec::new() };
        for id in ids {
            images.ids.push(id);
            let config = match self.images().get(&id) {
                Ok(Some(bytes)) => ImageConfig::parse(&bytes).map_err(|e| e.to_string()),
                Ok(None) => Err("the config of a named image is missing".to_owned()),
                Err(StoreError::Damaged { why, .. }) => Err(why),
                Err(StoreError::Fs(e)) if e.source.kind() != io::ErrorKind::PermissionDenied => {
                    Err(e.source.to_string())
                }
                Err(e) => return Err(e),
            };
            match config {
                Ok(config) => images.stacks.push((id, ChainId::stack(config.diff_ids()))),
                Err(why) => {
                    let mut damage = Damage::new(DamageClass::Config, self.layout.image(&id), why);
                    damage.images.push(id);
                    images.damage.push(damage);
                }
            }
        }
        Ok(images)
    }

    fn check_layers(
        &self,
        chains: BTreeSet<ChainId>,
        damage: &mut Vec<Damage>,
    ) -> Result<CheckedLayers, StoreError> {
        let overlay = self.overlay();
        let mut checked: BTreeMap<ChainId, CheckedRecord> = BTreeMap::new();
        let mut next: Vec<ChainId> = chains.into_iter().collect();
        while let Some(chain) = next.pop() {
            if checked.contains_key(&chain) {
                continue;
            }
            let found = check_layer::record(&self.layout, chain)?;
            next.extend(found.record.as_ref().and_then(|record| record.parent));
            checked.insert(chain, found);
        }
        let mut links = Links::default();
        let mut damaged: HashSet<ChainId> = HashSet::new();
        for found in checked.values() {
            let Some(record) = &found.record else { continue };
            let below = below(&checked, record);
            let of_layer = check_layer::directory(&overlay, &mut links, record, below.as_deref())?;
            // The contents of a layer can be verified, whatever is wrong with its links.
            damaged.extend(
                of_layer
                    .iter()
                    .filter(|it| it.class == DamageClass::LayerDirectory)
                    .filter_map(|it| it.layer),
            );
            damage.extend(of_layer);
        }
        self.shared_directories(&checked, damage)?;
        self.unprivileged_layers(&checked, damage)?;
        let count = checked.len();
        let mut verifiable = Vec::new();
        for (chain, found) in checked {
            let no_tar_split = found.damage.iter().any(|it| it.class == DamageClass::TarSplit);
            damage.extend(found.damage);
            verifiable.extend(found.record.filter(|_| !no_tar_split && !damaged.contains(&chain)));
        }
        Ok(CheckedLayers { count, verifiable })
    }

    /// Adds the records that name a directory that another record names, too.
    fn shared_directories(
        &self,
        checked: &BTreeMap<ChainId, CheckedRecord>,
        damage: &mut Vec<Damage>,
    ) -> Result<(), StoreError> {
        let counts = self.layers().records_per_directory()?;
        for record in checked.values().filter_map(|found| found.record.as_ref()) {
            if counts.get(&record.cache_id) > Some(&1) {
                let path = self.layout.layer(&record.chain).join(super::layout::CACHE_ID);
                let why = "another layer uses the same directory";
                let shared = Damage::new(DamageClass::SharedDirectory, path, why);
                damage.push(shared.of_layer(record.chain));
            }
        }
        Ok(())
    }
}

impl Store {
    /// Adds the layers that this process could unpack with less omitted. For a process without
    /// capabilities, they are as they should be.
    fn unprivileged_layers(
        &self,
        checked: &BTreeMap<ChainId, CheckedRecord>,
        damage: &mut Vec<Damage>,
    ) -> Result<(), StoreError> {
        let abilities = Abilities::expected();
        for record in checked.values().filter_map(|found| found.record.as_ref()) {
            let omitted = self.omitted(record)?;
            if let Some(why) = omitted.and_then(|omitted| omitted.avoidable(&abilities)) {
                let path = omitted::path(&self.layout, &record.cache_id);
                let why = format!("the layer was unpacked without privileges: {why}");
                let found = Damage::new(DamageClass::UnprivilegedLayer, path, why);
                damage.push(found.of_layer(record.chain));
            }
        }
        Ok(())
    }
}

struct CheckedLayers {
    count: usize,
    verifiable: Vec<LayerRecord>,
}

/// Returns the records below `record`, nearest first; `None` if one of them is damaged.
fn below<'a>(
    checked: &'a BTreeMap<ChainId, CheckedRecord>,
    record: &LayerRecord,
) -> Option<Vec<&'a LayerRecord>> {
    let mut below = Vec::new();
    let mut parent = record.parent;
    while let Some(chain) = parent {
        let record = checked.get(&chain)?.record.as_ref()?;
        below.push(record);
        parent = record.parent;
    }
    Some(below)
}
