//! The space that a root takes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::SystemTime;

use super::orphans::Orphans;
use super::view::ImageLine;
use super::{Store, StoreError, containers};
use crate::oci::{ChainId, ImageId};

/// The space of one image. Sizes are bytes as Docker counts them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ImageUsage {
    /// The image ID.
    pub id: ImageId,
    /// Its lines in the list of images, one per name.
    pub lines: Vec<ImageLine>,
    /// The sizes of all its layers.
    pub size: u64,
    /// The sizes of the layers that other images have, too.
    pub shared: u64,
    /// The containers of dockerd that use it.
    pub containers: usize,
    /// When it was pulled or mounted last.
    pub last_used: SystemTime,
}

impl ImageUsage {
    /// The sizes of the layers that only this image has, bytes.
    pub fn unique(&self) -> u64 {
        self.size - self.shared
    }
}

/// The space of a root.
#[derive(Debug)]
#[non_exhaustive]
pub struct Usage {
    /// The complete images, the least recently used first.
    pub images: Vec<ImageUsage>,
    /// The number of layers.
    pub layer_count: usize,
    /// The sizes of all layers, each once, bytes.
    pub layers_size: u64,
    /// The sizes of the layers that no container and no writable mount needs, bytes.
    pub layers_reclaimable: u64,
    /// What nothing needs, and `gc` removes.
    pub orphans: Orphans,
}

/// An image with its stack.
pub(super) struct ImageStack {
    pub id: ImageId,
    pub chains: Vec<ChainId>,
    pub last_used: SystemTime,
}

/// The images of a root and the sizes of its layers.
pub(super) struct Stacks {
    /// The images, the least recently used first.
    pub images: Vec<ImageStack>,
    /// The size of each layer, bytes.
    pub sizes: HashMap<ChainId, u64>,
}

impl Stacks {
    /// Returns the number of images that have each layer.
    pub fn users(&self) -> HashMap<ChainId, usize> {
        let mut users = HashMap::new();
        for chain in self.images.iter().flat_map(|image| &image.chains) {
            *users.entry(*chain).or_default() += 1;
        }
        users
    }

    /// Returns the size of a layer, bytes; 0 if it is missing.
    pub fn size(&self, chain: &ChainId) -> u64 {
        self.sizes.get(chain).copied().unwrap_or(0)
    }
}

impl Store {
    /// Returns the images whose configs can be read, with their layers.
    ///
    /// # Errors
    /// [`StoreError`] if the root cannot be read.
    pub(super) fn stacks(&self) -> Result<Stacks, StoreError> {
        let mut images = Vec::new();
        for id in self.images().list()? {
            let Some(config) = self.images().config(&id) else { continue };
            let chains = ChainId::stack(config.diff_ids());
            images.push(ImageStack { id, chains, last_used: self.last_use(&id)? });
        }
        images.sort_by_key(|image| (image.last_used, image.id));
        let sizes = self.layers().list()?.into_iter().map(|record| (record.chain, record.size));
        Ok(Stacks { images, sizes: sizes.collect() })
    }

    /// Measures the root. The caller holds the store lock.
    ///
    /// # Errors
    /// [`StoreError`] if the store is missing or cannot be read.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let mut lines: BTreeMap<ImageId, Vec<ImageLine>> = BTreeMap::new();
        for line in self.image_lines()? {
            lines.entry(line.id).or_default().push(line);
        }
        let stacks = self.stacks()?;
        let users = stacks.users();
        let of_containers = containers::images(&self.layout)?;
        let mut active: HashSet<ChainId> = HashSet::new();
        let mount_bases = self.mount_users()?.into_iter().filter_map(|mount| mount.base);
        for base in mount_bases {
            let mut next = Some(base);
            while let Some(chain) = next.filter(|chain| active.insert(*chain)) {
                next = self.layers().record(&chain)?.and_then(|record| record.parent);
            }
        }
        let mut images = Vec::new();
        for image in &stacks.images {
            let containers = of_containers.iter().filter(|id| **id == image.id).count();
            if containers > 0 {
                active.extend(&image.chains);
            }
            let sum = |chains: &mut dyn Iterator<Item = &ChainId>| -> u64 {
                chains.map(|chain| stacks.size(chain)).sum()
            };
            let shared = |chain: &&ChainId| users.get(*chain) > Some(&1);
            images.push(ImageUsage {
                id: image.id,
                lines: lines.remove(&image.id).unwrap_or_default(),
                size: sum(&mut image.chains.iter()),
                shared: sum(&mut image.chains.iter().filter(shared)),
                containers,
                last_used: image.last_used,
            });
        }
        let layers_size: u64 = stacks.sizes.values().sum();
        let active: u64 = active.iter().map(|chain| stacks.size(chain)).sum();
        Ok(Usage {
            images,
            layer_count: stacks.sizes.len(),
            layers_size,
            layers_reclaimable: layers_size - active,
            orphans: self.orphans()?,
        })
    }
}
