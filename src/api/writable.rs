//! Writable mounts: looking them up, mounting them again, unmounting and removing them.

use std::path::{Path, PathBuf};

use super::image::Image;
use super::marks;
use super::mount::MountPlan;
use super::store::Store;
use crate::error::Error;
use crate::fsutil::At;
use crate::overlay;
use crate::store::{self, Elsewhere, KeptDir, StoreError, WritableMount};

/// What a name means that can be that of a writable mount or of an image.
#[derive(Debug)]
#[non_exhaustive]
pub enum Source {
    /// A writable mount.
    Writable(WritableMount),
    /// An image.
    Image(Image),
}

/// What was unmounted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unmounted {
    /// The name of the writable mount, if it is one of the store and is kept.
    pub name: Option<String>,
    /// The mount point; `None` if a writable mount was not mounted and its changes were removed.
    pub target: Option<PathBuf>,
    /// The directory of changes that are kept.
    pub upper: Option<PathBuf>,
}

impl Store {
    /// Returns the writable mount with a name. While the result exists, no other program removes it or
    /// mounts it again.
    ///
    /// # Errors
    /// There is no such mount, its record is damaged, or a layer that it is based on is missing.
    pub fn writable_mount(&self, name: &str) -> Result<WritableMount, Error> {
        self.read(|store| store.writable_mount(name))
    }

    /// Finds a writable mount by its name, or else an image as [`image`](Self::image) does. To name an
    /// image that has the same name, add its tag.
    ///
    /// # Errors
    /// There is neither; as for [`writable_mount`](Self::writable_mount) and [`image`](Self::image).
    pub fn find_source(&self, text: &str) -> Result<Source, Error> {
        Ok(match self.read(|store| store.find_source(text))? {
            store::Source::Writable(mount) => Source::Writable(mount),
            store::Source::Image(id) => {
                Source::Image(Image::new(self.clone(), id, text.to_owned()))
            }
        })
    }

    /// Returns what the writable mount `name` consists of, to mount it again with its changes.
    ///
    /// # Errors
    /// As for [`writable_mount`](Self::writable_mount); it is mounted, or another program uses it; or a
    /// mount by this process would show deleted files ([`Error::Marks`]).
    pub fn mount_again(&self, name: &str) -> Result<MountPlan, Error> {
        let read = self.read_and_keep(|store| {
            let mount = store.mount_again(name)?;
            store.record_use(&mount.0.record().id);
            Ok(mount)
        });
        let ((dir, mut stack, layers), lock) = read?;
        let (image, changes) = (&dir.record().image, dir.record().userxattr);
        stack.userxattr = marks::needs_userxattr(&self.begin(), image, &layers, Some(changes))?;
        Ok(MountPlan::again(self.clone(), stack, dir, lock))
    }

    /// Unmounts `place`: a writable mount by its name, or the image that is mounted at a directory. The
    /// changes of a writable mount are kept; a mount without changes is removed, unless its name was chosen.
    /// Mounts that are not images of this store stay.
    ///
    /// # Errors
    /// Nothing is mounted there, it is not an image of this store, or the mount is in use.
    pub fn unmount(&self, place: impl AsRef<Path>) -> Result<Unmounted, Error> {
        let store = self.begin();
        let (target, upper, kept) = unmount(&store, place.as_ref())?;
        let kept = match kept {
            Some(kept) if kept.remove_if_unneeded()? => {
                return Ok(Unmounted { name: None, target: Some(target), upper: None });
            }
            kept => kept,
        };
        let name = kept.as_ref().map(KeptDir::name);
        Ok(Unmounted { name, target: Some(target), upper })
    }

    /// Does the same, and removes the writable mount with its changes if they are in this store. `place`
    /// can also be the name or the directory of changes of one that is not mounted. A directory of changes
    /// outside of this store is kept.
    ///
    /// # Errors
    /// As for [`unmount`](Self::unmount), or the changes cannot be removed.
    pub fn unmount_and_discard(&self, place: impl AsRef<Path>) -> Result<Unmounted, Error> {
        let (store, place) = (self.begin(), place.as_ref());
        let named =
            named(&store, place)?.filter(|kept| kept.targets().is_ok_and(|at| at.is_empty()));
        if let Some(kept) = named.map_or_else(|| store.changes_at(place), |kept| Ok(Some(kept)))? {
            kept.discard(Elsewhere::Counts)?;
            return Ok(Unmounted { name: None, target: None, upper: None });
        }
        let (target, upper, kept) = unmount(&store, place)?;
        let upper = match kept {
            Some(kept) => {
                kept.discard(Elsewhere::Ignored)?;
                None
            }
            None => upper,
        };
        Ok(Unmounted { name: None, target: Some(target), upper })
    }

    /// Returns the names of all writable mounts, mounted or not. Like [`names`](Self::names), it never waits
    /// for another process.
    ///
    /// # Errors
    /// The names cannot be read.
    pub fn mount_names(&self) -> Result<Vec<String>, Error> {
        Ok(self.begin().mount_names()?)
    }

    /// Removes the writable mount `name` if it has no changes and no chosen name, and nothing uses it.
    pub(super) fn remove_unneeded_mount(&self, name: &str) -> Result<(), Error> {
        if let Some(kept) = self.begin().changes_of(name)? {
            kept.remove_if_unneeded()?;
        }
        Ok(())
    }

    /// Removes the writable mount `name`, which is not mounted, with its changes. With `force`, a mounted one
    /// is unmounted first, and a mount in another mount namespace does not count.
    ///
    /// # Errors
    /// There is no such mount, it is mounted, another program uses it, or it cannot be removed.
    pub fn remove_mount(&self, name: &str, force: bool) -> Result<(), Error> {
        let store = self.begin();
        store.must_exist()?;
        let kept = store.changes_of(name)?;
        let kept = kept.ok_or_else(|| StoreError::NoSuchMount(name.to_owned()))?;
        if force && !kept.targets()?.is_empty() {
            unmount(&store, Path::new(name))?;
        }
        let elsewhere = if force { Elsewhere::Ignored } else { Elsewhere::Counts };
        Ok(kept.discard(elsewhere)?)
    }
}

/// Returns the writable mount with the name `place`, if there is one.
fn named(store: &store::Store, place: &Path) -> Result<Option<KeptDir>, Error> {
    Ok(match place.to_str() {
        Some(name) => store.changes_of(name)?,
        None => None,
    })
}

/// Unmounts an image of `store`. Returns where it was mounted, the directory of changes, and what the
/// store knows of it.
fn unmount(
    store: &store::Store,
    place: &Path,
) -> Result<(PathBuf, Option<PathBuf>, Option<KeptDir>), Error> {
    let mut targets = vec![place.to_owned()];
    let named = named(store, place)?;
    if let Some(kept) = &named {
        // The newest first: it can be on top of another one.
        targets = kept.targets()?;
        targets.reverse();
    }
    let mut unmounted = None;
    for target in targets {
        let upper = match store.upper_of_mount(&target) {
            // A mount that is shared with other directories disappears from all of them at once.
            Err(StoreError::NotMounted(_)) if unmounted.is_some() => continue,
            other => other?,
        };
        if let Some(kept) = named.as_ref().filter(|kept| !kept.is_among(upper.as_slice())) {
            let why = format!("another image is mounted on top of it at {}", target.display());
            return Err(StoreError::MountInUse { act: "unmount", name: kept.name(), why }.into());
        }
        // umount(2) does not follow a symlink.
        let at = std::fs::canonicalize(&target).at("unmount", &target)?;
        overlay::unmount(&at)
            .map_err(|source| Error::Unmount { target: target.display().to_string(), source })?;
        let kept = upper.as_deref().and_then(|upper| store.changes_in(upper));
        unmounted = Some((target, kept.as_ref().map(KeptDir::upper).or(upper), kept));
    }
    Ok(unmounted.ok_or_else(|| StoreError::NotMounted(place.to_owned()))?)
}
