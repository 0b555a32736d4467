//! Removal of images as in dockerd (moby daemon/images/image_delete.go): first a name; with the
//! last name the image and the layers that no other image needs.

use std::collections::HashSet;

use super::journal::RemovalEntry;
use super::layer_index::IndexView;
use super::{ImageUser, Store, StoreError, containers};
use crate::fsutil;
use crate::oci::{ChainId, ImageId};
use crate::reference::{Query, Reference};

/// A removed object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Removed {
    /// A name.
    Untagged(Reference),
    /// An image.
    Image(ImageId),
    /// A layer.
    Layer(ChainId),
}

impl Store {
    /// Removes a name, or an image by its ID. Returns what was removed in Docker's order.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if a container or mount needs it, [`StoreError::SeveralNames`] if an ID
    /// has several names; the errors of [`find`](Self::find).
    pub fn remove(&self, query: &str, force: bool) -> Result<Vec<Removed>, StoreError> {
        let id = self.find(query)?;
        let mut parent = self.images().parent(&id)?;
        let mut removed = self.remove_alone(query, force)?;
        let mut is_gone = removed.contains(&Removed::Image(id));
        // As docker does: what only the removed image was built on goes with it.
        while let Some(below) = parent.filter(|below| is_gone && self.images().exists(below)) {
            if !self.names().load()?.of(below).is_empty() {
                break;
            }
            parent = self.images().parent(&below)?;
            match self.remove_alone(&below.to_string(), false) {
                Ok(more) => {
                    is_gone = more.contains(&Removed::Image(below));
                    removed.extend(more);
                }
                Err(StoreError::InUse { .. }) => break,
                Err(e) => return Err(e),
            }
        }
        Ok(removed)
    }

    /// Does the same, but keeps the images on which the image was built.
    ///
    /// # Errors
    /// As for [`remove`](Self::remove).
    pub(super) fn remove_alone(
        &self,
        query: &str,
        force: bool,
    ) -> Result<Vec<Removed>, StoreError> {
        let id = self.find(query)?;
        let names = self.names().load()?;
        let of_image = names.of(id);
        let named = match Query::parse(query)? {
            Query::Name { name, .. } => Some(name).filter(|name| names.lookup(name).is_some()),
            _ => None,
        };
        let going = match &named {
            Some(name) => with_orphaned_digests(name, &of_image),
            None => by_id(query, &of_image, force)?,
        };
        let last = of_image.iter().all(|name| going.contains(name));
        let untag = || {
            self.names().update(|names| {
                let gone = going.into_iter().filter(|name| names.remove(name).is_some());
                gone.map(Removed::Untagged).collect::<Vec<_>>()
            })
        };
        if !last {
            return untag();
        }
        let chains = self.chains(&id);
        let mut index = self.layers().index.open()?;
        // They stay the same: the caller holds the store lock in exclusive mode.
        let layers = self.removable_layers(query, &id, &chains, &mut index)?;
        // Announced before the first change: if this process is killed, the next one finishes.
        let removal = RemovalEntry { image: id, chains };
        let journal = self.journal()?;
        journal.add_removal(&removal)?;
        let removed = untag().and_then(|mut removed| {
            let names = removed.iter().filter_map(|it| match it {
                Removed::Untagged(name) => name.digest(),
                Removed::Image(_) | Removed::Layer(_) => None,
            });
            let digests = names.collect();
            removed.push(Removed::Image(id));
            self.remove_image(&removal, &layers, &mut index)?;
            removed.extend(layers.into_iter().map(Removed::Layer));
            self.trim_content_of(&id, digests)?;
            Ok(removed)
        });
        journal.close_entry(removed.is_ok());
        removed
    }

    /// Removes an image without a name, and those of its layers that are unneeded without it.
    fn remove_image(
        &self,
        removal: &RemovalEntry,
        unneeded: &[ChainId],
        index: &mut IndexView,
    ) -> Result<(), StoreError> {
        self.images().remove(&removal.image)?;
        self.layers().index.remove_image(index, removal.image, &removal.chains);
        self.layers().remove(index, unneeded)?;
        match unneeded.last() {
            Some(lowest) => self.unmark_parent(*lowest, &removal.chains, index),
            None => Ok(()),
        }
    }

    /// Finishes the removal that a killed process began, unless it has not removed the names. The
    /// caller holds the store lock and the `commit` lock.
    ///
    /// # Errors
    /// [`StoreError`] if something cannot be read or removed.
    pub(super) fn finish_removal(&self, removal: &RemovalEntry) -> Result<(), StoreError> {
        if self.names().load()?.of(removal.image).is_empty() {
            let mut index = self.layers().index.open_locked()?;
            let unneeded = self.unneeded_layers(&removal.image, &removal.chains, &mut index)?;
            self.remove_image(removal, &unneeded, &mut index)?;
        }
        Ok(())
    }

    /// Returns the layers of an image, base first; none if its config cannot be read.
    fn chains(&self, id: &ImageId) -> Vec<ChainId> {
        let config = self.images().config(id);
        config.map_or_else(Vec::new, |config| ChainId::stack(config.diff_ids()))
    }

    /// Returns the layers of a stack to remove with the image `id`, topmost first. A layer stays
    /// if another image, a container or a writable mount needs it, or if it is the parent of any layer, even of one
    /// without an image: a killed pull left that one, and the next pull will use it.
    fn unneeded_layers(
        &self,
        id: &ImageId,
        chains: &[ChainId],
        index: &mut IndexView,
    ) -> Result<Vec<ChainId>, StoreError> {
        let needed = self.needed_without_images()?;
        let mut going: Vec<ChainId> = Vec::new();
        for chain in chains.iter().rev() {
            let users = self.layers().index.users(index, chain)?;
            if needed.contains(chain)
                || users.iter().any(|user| user != id)
                || self.layers().has_child(index, chain, &going)?
            {
                break;
            }
            if self.layout.layer(chain).exists() {
                going.push(*chain);
            }
        }
        Ok(going)
    }

    /// Removes the mark of having a child from the layer below `lowest`, if that was its only one.
    fn unmark_parent(
        &self,
        lowest: ChainId,
        chains: &[ChainId],
        index: &mut IndexView,
    ) -> Result<(), StoreError> {
        let below = chains.iter().position(|chain| *chain == lowest).and_then(|n| n.checked_sub(1));
        let Some(parent) = below.map(|below| chains[below]) else { return Ok(()) };
        let lonely = !self.layers().has_child(index, &parent, &[])?
            && !containers::parents(&self.layout)?.contains(&parent);
        match self.layers().get(&parent)?.filter(|_| lonely) {
            // The build cache can have children of its own directories.
            Some(parent) if !parent.cache_id.is_of_buildkit() => {
                Ok(self.overlay().uncommit(&parent.cache_id)?)
            }
            _ => Ok(()),
        }
    }

    /// Returns the layers that containers, writable mounts and the build cache need.
    fn needed_without_images(&self) -> Result<HashSet<ChainId>, StoreError> {
        let mut needed = HashSet::new();
        let mut users = containers::parents(&self.layout)?;
        users.extend(self.build_cache()?);
        users.extend(self.mount_users()?.into_iter().filter_map(|mount| mount.base));
        for mut chain in users {
            while needed.insert(chain) {
                let Some(parent) = self.layers().get(&chain)?.and_then(|record| record.parent)
                else {
                    break;
                };
                chain = parent;
            }
        }
        Ok(needed)
    }

    /// Fails if a container, a mount or an image that was built on it uses the image.
    pub(super) fn refuse_if_used(&self, query: &str, id: &ImageId) -> Result<(), StoreError> {
        let mut index = self.layers().index.open()?;
        self.removable_layers(query, id, &self.chains(id), &mut index).map(drop)
    }

    /// Returns the layers to remove with an image, topmost first, unless something uses it.
    fn removable_layers(
        &self,
        query: &str,
        id: &ImageId,
        chains: &[ChainId],
        index: &mut IndexView,
    ) -> Result<Vec<ChainId>, StoreError> {
        let in_use = |by| Err(StoreError::InUse { image: query.to_owned(), by });
        let containers = self.layout.containers();
        for name in fsutil::names_in(&containers)? {
            if containers::image(&containers.join(&name)) == Some(*id) {
                return in_use(ImageUser::Container(name[..name.len().min(12)].to_owned()));
            }
        }
        if let Some(child) = self.images().child(id)? {
            return in_use(ImageUser::Image(child.short()));
        }
        if let Some(mount) = self.mount_users()?.into_iter().find(|mount| mount.image == *id) {
            return in_use(ImageUser::Writable(mount.name));
        }
        let going = self.unneeded_layers(id, chains, index)?;
        match self.mounted_layer(&going.iter().copied().collect())? {
            Some(at) => in_use(ImageUser::Mount(at)),
            None => Ok(going),
        }
    }
}

/// Returns the names to remove with `name`: with the last tag of a repository its digests of the
/// same image.
fn with_orphaned_digests(name: &Reference, all: &[Reference]) -> Vec<Reference> {
    let name = name.clone().with_default_tag().0;
    let name = name.digest().map_or(name.clone(), |digest| name.with_digest(digest));
    let same = |other: &&Reference| other.repository() == name.repository() && **other != name;
    let other_tag = all.iter().filter(same).any(|other| other.digest().is_none());
    let mut going = vec![name.clone()];
    if name.digest().is_none() && !other_tag {
        going.extend(all.iter().filter(same).cloned());
    }
    going
}

fn by_id(query: &str, all: &[Reference], force: bool) -> Result<Vec<Reference>, StoreError> {
    let repositories: HashSet<_> = all.iter().map(Reference::repository).collect();
    let tags = all.iter().filter(|name| name.digest().is_none()).count();
    if !force && (repositories.len() > 1 || tags > 1) {
        let names: Vec<String> =
            all.iter().filter(|name| name.digest().is_none()).map(Reference::to_string).collect();
        return Err(StoreError::SeveralNames { image: query.to_owned(), names });
    }
    Ok(all.to_vec())
}
