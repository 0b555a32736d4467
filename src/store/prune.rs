//! The removal of images that were not used for long.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use super::usage::{ImageStack, Stacks};
use super::{Store, StoreError};
use crate::oci::{ChainId, ImageId};
use crate::reference::Reference;

/// Which images to remove: those that match all settings.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Prune {
    /// Only images without a tag.
    pub dangling: bool,
    /// Only images that were not used for this long.
    pub unused_for: Option<Duration>,
    /// Only as many as it takes until all layers have at most this many bytes.
    pub keep_bytes: Option<u64>,
}

/// A removed image.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PrunedImage {
    /// The image ID.
    pub id: ImageId,
    /// The names that it had.
    pub names: Vec<Reference>,
    /// When it was pulled or mounted last.
    pub last_used: SystemTime,
    /// The sizes of the layers that no other image has now, bytes.
    pub bytes: u64,
}

/// The result of a prune.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Pruned {
    /// The removed images, the least recently used first.
    pub removed: Vec<PrunedImage>,
    /// Images that match and are in use, with the reason.
    pub kept: Vec<(ImageId, String)>,
}

impl Store {
    /// Removes the images that match `prune`, the least recently used first, or only returns them
    /// with `dry_run`. An image that a container or a mount uses, or on which another image was built,
    /// stays. The caller holds the store lock, in exclusive mode unless it is a dry run.
    ///
    /// # Errors
    /// [`StoreError`] if the root cannot be read or changed.
    pub fn prune(&self, prune: &Prune, dry_run: bool) -> Result<Pruned, StoreError> {
        let stacks = self.stacks()?;
        let mut names = self.names().load()?.by_image();
        let mut state = State::new(&stacks, dry_run);
        for image in &stacks.images {
            if let Some(parent) = self.images().parent(&image.id)? {
                state.children.entry(parent).or_default().push(image.id);
            }
        }
        // An image on which others were built can be removed after them.
        loop {
            let before = state.gone.len();
            for image in &stacks.images {
                if prune.keep_bytes.is_some_and(|most| state.total <= most) {
                    break;
                }
                if !state.gone.contains(&image.id) && !state.has_child(&image.id) {
                    self.prune_one(prune, image, &mut names, &mut state)?;
                }
            }
            if state.gone.len() == before {
                return Ok(state.pruned);
            }
        }
    }

    fn prune_one(
        &self,
        prune: &Prune,
        image: &ImageStack,
        names: &mut HashMap<ImageId, Vec<Reference>>,
        state: &mut State<'_>,
    ) -> Result<(), StoreError> {
        let of_image = names.get(&image.id).map_or(&[][..], Vec::as_slice);
        if !matches(prune, image, of_image) || state.is_kept(&image.id) {
            return Ok(());
        }
        let query = image.id.to_string();
        let removed = match state.dry_run {
            // Its children would be gone by then.
            true if state.children.contains_key(&image.id) => Ok(()),
            true => self.refuse_if_used(&query, &image.id),
            false => self.remove_alone(&query, true).map(drop),
        };
        match removed {
            Ok(()) => state.remove(image, names.remove(&image.id).unwrap_or_default()),
            Err(StoreError::InUse { by, .. }) => {
                state.pruned.kept.push((image.id, by.to_string()));
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

/// What a prune has removed so far.
struct State<'a> {
    stacks: &'a Stacks,
    /// The number of remaining images that have each layer.
    users: HashMap<ChainId, usize>,
    /// The sizes of the layers of the remaining images, bytes.
    total: u64,
    /// The images that were built on each image.
    children: HashMap<ImageId, Vec<ImageId>>,
    gone: HashSet<ImageId>,
    pruned: Pruned,
    dry_run: bool,
}

impl<'a> State<'a> {
    fn new(stacks: &'a Stacks, dry_run: bool) -> Self {
        let users = stacks.users();
        let total = users.keys().map(|chain| stacks.size(chain)).sum();
        let (children, gone, pruned) = Default::default();
        Self { stacks, users, total, children, gone, pruned, dry_run }
    }

    fn has_child(&self, id: &ImageId) -> bool {
        let children = self.children.get(id).into_iter().flatten();
        children.into_iter().any(|child| !self.gone.contains(child))
    }

    fn is_kept(&self, id: &ImageId) -> bool {
        self.pruned.kept.iter().any(|(kept, _)| kept == id)
    }

    fn remove(&mut self, image: &ImageStack, names: Vec<Reference>) {
        let mut bytes = 0;
        for chain in &image.chains {
            if let Some(count) = self.users.get_mut(chain) {
                *count -= 1;
                if *count == 0 {
                    self.users.remove(chain);
                    bytes += self.stacks.size(chain);
                }
            }
        }
        self.total -= bytes;
        self.gone.insert(image.id);
        let (id, last_used) = (image.id, image.last_used);
        self.pruned.removed.push(PrunedImage { id, names, last_used, bytes });
    }
}

fn matches(prune: &Prune, image: &ImageStack, names: &[Reference]) -> bool {
    let tagged = names.iter().any(|name| name.digest().is_none());
    // A time in the future is that of another clock: the image counts as used now.
    let unused = image.last_used.elapsed().unwrap_or_default();
    !(prune.dangling && tagged) && prune.unused_for.is_none_or(|least| unused >= least)
}
