//! The layers of images as one tree: images that begin with the same layers share a branch.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::view::{LayerLine, listed};
use super::{LayerRecord, Store, StoreError};
use crate::digest::Digest;
use crate::oci::{ChainId, DiffId, ImageId};

/// The layers of images, and the images that end at them. Serialized, it has the form of
/// `rpull layers --tree --format json`.
///
/// Both lists are in the order of a walk over the tree from the base layers up, in which branches
/// are sorted by the first name above them. It is the same for the same store.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LayerTree {
    /// The layers. Each comes after the layer below it, and before those of other branches.
    pub layers: Vec<TreeLayer>,
    /// The images.
    pub images: Vec<TreeImage>,
    /// What is left out.
    pub not_shown: NotShown,
}

/// A layer in a [`LayerTree`].
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TreeLayer {
    #[serde(flatten)]
    line: LayerLine,
    /// The chain ID of the layer below; `None` for a base layer.
    pub parent: Option<ChainId>,
    /// The sizes of this layer and all below it, bytes.
    pub total: u64,
    /// The number of layers in the tree with this content, which is at least 1: equal diff IDs above
    /// different layers.
    pub copies: usize,
    /// The images that have the layer, sorted by name.
    pub images: Vec<ImageId>,
}

impl TreeLayer {
    /// The position, from the base, which is 1.
    pub fn position(&self) -> usize {
        self.line.position
    }

    /// The digest of the compressed blob that the layer was pulled as, if it was pulled.
    pub fn blob(&self) -> Option<Digest> {
        self.line.distribution_id
    }

    /// The SHA-256 of the layer's tar.
    pub fn diff_id(&self) -> DiffId {
        self.line.diff_id
    }

    /// The ID of the stack of layers up to this one.
    pub fn chain_id(&self) -> ChainId {
        self.line.chain_id
    }

    /// The name of the layer's directory below `overlay2`.
    pub fn cache_id(&self) -> &str {
        &self.line.cache_id
    }

    /// The sum of the sizes of the layer's files in bytes, as Docker counts it.
    pub fn size(&self) -> u64 {
        self.line.size
    }

    /// The directory with the layer's files.
    pub fn diff_dir(&self) -> &std::path::Path {
        &self.line.path
    }
}

/// An image in a [`LayerTree`]. Sizes are bytes as Docker counts them.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct TreeImage {
    /// The image ID.
    pub id: ImageId,
    /// Its names: those with a tag, and those with a digest whose repository has no tag.
    pub names: Vec<String>,
    /// The chain ID of its topmost layer; `None` if it has no layers.
    pub top: Option<ChainId>,
    /// The number of its layers.
    pub layers: usize,
    /// The sizes of its layers.
    pub size: u64,
    /// The sizes of the layers that no other image of the tree has.
    pub unique: u64,
}

/// What a [`LayerTree`] does not show. Of a tree of one image, only images are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NotShown {
    /// Layers that no image has, such as those of removed images and of the build cache.
    pub layers: usize,
    /// Directories of BuildKit that are not layers of images.
    pub buildkit_directories: usize,
    /// Images that are damaged or lack a layer.
    pub incomplete_images: usize,
    /// Images without a name on which others were built.
    pub intermediate_images: usize,
}

/// An image before its place in the tree is known.
struct Stack {
    id: ImageId,
    names: Vec<String>,
    layers: Vec<LayerRecord>,
}

/// A layer while the tree grows.
struct Node {
    record: LayerRecord,
    position: usize,
    children: Vec<usize>,
    /// The images that have it, and those that end at it, as positions in the list of stacks.
    images: Vec<usize>,
    tops: Vec<usize>,
}

impl Store {
    /// Returns the layers of all images as one tree, or those of `image` and of the images that share
    /// layers with it. Reads each record once. The caller holds the store lock.
    ///
    /// # Errors
    /// [`StoreError`] if the store or `image` is missing or cannot be read, or `image` is damaged.
    pub fn layer_tree(&self, image: Option<&ImageId>) -> Result<LayerTree, StoreError> {
        self.must_exist()?;
        let ids = match image {
            None => self.images().list()?,
            Some(id) => self.sharing_base(id)?,
        };
        let names = self.names().load()?.by_image();
        let parents = self.images().parents()?;
        let mut records = HashMap::new();
        let mut not_shown = NotShown::default();
        let mut stacks = Vec::new();
        for id in ids {
            let names = names.get(&id).map_or(&[][..], Vec::as_slice);
            let names: Vec<String> = listed(names).map(ToString::to_string).collect();
            let chains = self.images().config(&id);
            let chains = chains.map(|config| ChainId::stack(config.diff_ids()));
            let layers = chains.and_then(|chains| self.complete(&chains, &mut records));
            let hidden = image != Some(&id) && names.is_empty() && parents.contains(&id);
            match layers {
                None => not_shown.incomplete_images += 1,
                Some(_) if hidden => not_shown.intermediate_images += 1,
                Some(layers) => stacks.push(Stack { id, names, layers }),
            }
        }
        match image {
            None => self.count_others(&mut not_shown, &records)?,
            // The error of another command says what is wrong with it.
            Some(id) if !stacks.iter().any(|it| it.id == *id) => drop(self.layer_lines(id)?),
            Some(_) => {}
        }
        self.assemble(stacks, not_shown)
    }

    /// Returns `id` and the images with the same base layer. Others share nothing with it: chain IDs
    /// differ above different layers.
    fn sharing_base(&self, id: &ImageId) -> Result<Vec<ImageId>, StoreError> {
        let config = self.images().config(id);
        let mut ids = vec![*id];
        if let Some(base) = config.and_then(|config| config.diff_ids().first().copied()) {
            let index = &self.layers().index;
            let users = index.users(&mut index.open()?, &ChainId::above(None, base))?;
            ids.extend(users.into_iter().filter(|user| user != id));
        }
        Ok(ids)
    }

    /// Returns the records of a stack; `None` if one is missing or cannot be read.
    fn complete(
        &self,
        chains: &[ChainId],
        records: &mut HashMap<ChainId, Option<LayerRecord>>,
    ) -> Option<Vec<LayerRecord>> {
        let read = |chain: &ChainId| self.layers().get(chain).ok().flatten();
        let mut record =
            |chain: &ChainId| records.entry(*chain).or_insert_with(|| read(chain)).clone();
        chains.iter().map(&mut record).collect()
    }

    /// Counts the layers and directories of BuildKit besides the layers of images.
    fn count_others(
        &self,
        not_shown: &mut NotShown,
        of_images: &HashMap<ChainId, Option<LayerRecord>>,
    ) -> Result<(), StoreError> {
        let chains = self.layers().chains()?;
        not_shown.layers = chains.iter().filter(|chain| !of_images.contains_key(chain)).count();
        let known: HashSet<_> =
            of_images.values().flatten().map(|record| &record.cache_id).collect();
        let directories = self.overlay().all()?;
        let others = directories.iter().filter(|id| id.is_of_buildkit() && !known.contains(id));
        not_shown.buildkit_directories = others.count();
        Ok(())
    }

    /// Joins the stacks to one tree, and lists it from the base up.
    fn assemble(
        &self,
        mut stacks: Vec<Stack>,
        not_shown: NotShown,
    ) -> Result<LayerTree, StoreError> {
        // Images without a name come last. Branches are then found in the order of their names.
        stacks.sort_by(|a, b| {
            let key = |it: &Stack| (it.names.is_empty(), it.names.first().cloned(), it.id);
            key(a).cmp(&key(b))
        });
        let (nodes, bases) = joined(&stacks);
        let mut copies: HashMap<DiffId, usize> = HashMap::new();
        nodes.iter().for_each(|node| *copies.entry(node.record.diff_id).or_default() += 1);
        let mut totals: HashMap<ChainId, u64> = HashMap::new();
        let mut order: Vec<usize> =
            (0..stacks.len()).filter(|at| stacks[*at].layers.is_empty()).collect();
        let mut layers = Vec::with_capacity(nodes.len());
        let mut next: Vec<usize> = bases.into_iter().rev().collect();
        while let Some(at) = next.pop() {
            let Node { record, position, children, images, tops } = &nodes[at];
            let below = record.parent.and_then(|parent| totals.get(&parent)).copied();
            let total = below.unwrap_or(0).saturating_add(record.size);
            totals.insert(record.chain, total);
            layers.push(TreeLayer {
                line: self.layer_line(*position, record)?,
                parent: record.parent,
                total,
                copies: copies.get(&record.diff_id).copied().unwrap_or(1),
                images: images.iter().map(|image| stacks[*image].id).collect(),
            });
            order.extend(tops);
            next.extend(children.iter().rev());
        }
        let users: HashMap<ChainId, usize> =
            nodes.iter().map(|node| (node.record.chain, node.images.len())).collect();
        let images = order.into_iter().map(|at| as_image(&stacks[at], &users)).collect();
        Ok(LayerTree { layers, images, not_shown })
    }
}

fn as_image(stack: &Stack, users: &HashMap<ChainId, usize>) -> TreeImage {
    let sum = |layers: &mut dyn Iterator<Item = &LayerRecord>| {
        layers.fold(0, |sum: u64, layer| sum.saturating_add(layer.size))
    };
    let only = |layer: &&LayerRecord| users.get(&layer.chain) == Some(&1);
    TreeImage {
        id: stack.id,
        names: stack.names.clone(),
        top: stack.layers.last().map(|layer| layer.chain),
        layers: stack.layers.len(),
        size: sum(&mut stack.layers.iter()),
        unique: sum(&mut stack.layers.iter().filter(only)),
    }
}

/// Returns the layers of all stacks, each once, and the base layers among them.
fn joined(stacks: &[Stack]) -> (Vec<Node>, Vec<usize>) {
    let mut nodes: Vec<Node> = Vec::new();
    let mut by_chain: HashMap<ChainId, usize> = HashMap::new();
    let mut bases = Vec::new();
    for (image, stack) in stacks.iter().enumerate() {
        let mut below: Option<usize> = None;
        for (depth, record) in stack.layers.iter().enumerate() {
            let at = *by_chain.entry(record.chain).or_insert_with(|| {
                nodes.push(Node {
                    record: record.clone(),
                    position: depth + 1,
                    children: Vec::new(),
                    images: Vec::new(),
                    tops: Vec::new(),
                });
                let new = nodes.len() - 1;
                match below {
                    Some(below) => nodes[below].children.push(new),
                    None => bases.push(new),
                }
                new
            });
            nodes[at].images.push(image);
            below = Some(at);
        }
        if let Some(top) = below {
            nodes[top].tops.push(image);
        }
    }
    (nodes, bases)
}
