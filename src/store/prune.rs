//! The removal of images that were not used for long.

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
    /// Remove nothing.
    pub dry_run: bool,
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
    /// Removes the images that match `prune`, the least recently used first. An image that a
    /// container or a mount uses, or on which another image was built, stays. The caller holds the
    /// store lock in exclusive mode.
    ///
    /// # Errors
    /// [`StoreError`] if the root cannot be read or changed.
    pub fn prune(&self, prune: &Prune) -> Result<Pruned, StoreError> {
        let stacks = self.stacks()?;
        let mut users = stacks.users();
        let mut total: u64 = users.keys().map(|chain| stacks.size(chain)).sum();
        let mut pruned = Pruned::default();
        for image in &stacks.images {
            if prune.keep_bytes.is_some_and(|most| total <= most) {
                break;
            }
            let names = self.names().load()?.of(image.id);
            if !matches(prune, image, &names) {
                continue;
            }
            let query = image.id.to_string();
            let removed = match prune.dry_run {
                true => self.refuse_if_used(&query, &image.id),
                false => self.remove(&query, true).map(drop),
            };
            match removed {
                Ok(()) => {}
                Err(StoreError::InUse { why, .. }) => {
                    pruned.kept.push((image.id, why));
                    continue;
                }
                Err(e) => return Err(e),
            }
            let bytes = freed(&stacks, &image.chains, &mut users);
            total -= bytes;
            let (id, last_used) = (image.id, image.last_used);
            pruned.removed.push(PrunedImage { id, names, last_used, bytes });
        }
        Ok(pruned)
    }
}

fn matches(prune: &Prune, image: &ImageStack, names: &[Reference]) -> bool {
    let tagged = names.iter().any(|name| name.digest().is_none());
    // A time in the future is that of another clock: the image counts as used now.
    let unused = image.last_used.elapsed().unwrap_or_default();
    !(prune.dangling && tagged) && prune.unused_for.is_none_or(|least| unused >= least)
}

/// Returns the bytes of the layers that no image has after one with `chains` is removed.
fn freed(
    stacks: &Stacks,
    chains: &[ChainId],
    users: &mut std::collections::HashMap<ChainId, usize>,
) -> u64 {
    let mut bytes = 0;
    for chain in chains {
        if let Some(count) = users.get_mut(chain) {
            *count -= 1;
            if *count == 0 {
                users.remove(chain);
                bytes += stacks.size(chain);
            }
        }
    }
    bytes
}
