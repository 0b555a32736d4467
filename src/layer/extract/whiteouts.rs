//! What a layer hides of the layers below it.
//!
//! A whiteout hides what *lower* layers have (OCI image-spec layer.md, "Whiteouts"): what its
//! own layer has stays, and a directory of its own layer becomes opaque, in whatever order
//! the entries come. While entries come, a device stands for the whiteout unless something
//! else does; what remains to be marked is found when all entries are placed.

use std::collections::HashSet;

use rustix::fs::{self, AtFlags, FileType, Gid, Uid};

use super::metadata;
use super::{Extractor, file_type};
use crate::layer::LayerError;
use crate::layer::tar::reader::Entry;
use crate::layer::tar_split::overwritten;
use crate::overlay::{self, DirHandle};

/// The whiteouts and opaque marks of one layer.
#[derive(Default)]
pub struct Whiteouts(Vec<Hidden>);

/// A path whose lower layers' content is hidden.
struct Hidden {
    /// The path below the layer's root, symlinks resolved when the entry came.
    path: Vec<u8>,
    /// The owner of the whiteout `.wh.NAME`, if there is one.
    whiteout: Option<(Uid, Gid)>,
    /// Whether there is a `.wh..wh..opq`.
    opaque: bool,
}

impl Extractor<'_> {
    /// Hides what lower layers have at the path `hidden`.
    ///
    /// # Errors
    /// [`LayerError::Refused`] and [`LayerError::Write`].
    pub(super) fn whiteout(&mut self, entry: &Entry, hidden: &[u8]) -> Result<(), LayerError> {
        metadata::check(entry)?;
        let (parent, last) = overlay::split(hidden);
        let dir = self.dir(parent)?;
        let owner = metadata::ids(entry);
        if self.io("look at", hidden, |_| overlay::stat(&dir, last))?.is_none() {
            self.make_whiteout(&dir, last, hidden, owner)?;
        }
        let path = self.real_path_in(&dir, last, hidden)?;
        self.whiteouts.0.push(Hidden { path, whiteout: Some(owner), opaque: false });
        Ok(())
    }

    /// Hides what lower layers have in the directory `path`.
    ///
    /// # Errors
    /// [`LayerError::Write`].
    pub(super) fn opaque(&mut self, path: &[u8]) -> Result<(), LayerError> {
        let dir = self.dir(path)?;
        let path = self.real_path_in(&dir, b"", path)?;
        self.whiteouts.0.push(Hidden { path, whiteout: None, opaque: true });
        Ok(())
    }

    /// Marks directories that this layer has opaque where a whiteout hides them below.
    ///
    /// # Errors
    /// [`LayerError::Write`].
    pub(super) fn hide_lower_layers(&mut self) -> Result<(), LayerError> {
        let all = in_order(std::mem::take(&mut self.whiteouts.0));
        let mut named = None;
        let mut hidden_below: Option<&[u8]> = None;
        for hidden in &all {
            let path = hidden.path.as_slice();
            if hidden_below.is_some_and(|above| is_below(path, above)) {
                continue;
            }
            if path.is_empty() {
                self.set_opaque(path)?;
                continue;
            }
            let (parent, last) = overlay::split(path);
            let Some(dir) = self.io("look at", path, |s| s.diff.real_dir(parent))? else {
                // A later entry replaced the parent, and that hides all below it.
                continue;
            };
            let stat = self.io("look at", path, |_| overlay::stat(&dir, last))?;
            match (stat, hidden.whiteout) {
                (None, Some(owner)) => self.make_whiteout(&dir, last, path, owner)?,
                (Some(stat), whiteout) if file_type(&stat) == FileType::Directory => {
                    let Some(owner) = whiteout else {
                        self.set_opaque(path)?;
                        continue;
                    };
                    hidden_below = Some(path);
                    let named = named.get_or_insert_with(|| self.named_dirs());
                    if self.prune(path, named)? {
                        self.set_opaque(path)?;
                        continue;
                    }
                    // Only whiteouts implied the directory.
                    self.remove_dir(&dir, last, path)?;
                    self.make_whiteout(&dir, last, path, owner)?;
                    if hidden.opaque {
                        self.io("mark opaque", path, |s| s.diff.set_whiteout_opaque(&dir, last))?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The directories that have an entry of their own.
    fn named_dirs(&self) -> HashSet<Vec<u8>> {
        self.dirs.iter().map(|dir| dir.path.clone()).collect()
    }

    /// Removes whiteouts from the directory `path`, which hides all of the lower layers
    /// itself: overlayfs would list them as names that cannot be opened. Removes directories
    /// that only whiteouts implied. Returns whether the directory is or holds something that
    /// the layer has.
    fn prune(&mut self, path: &[u8], named: &HashSet<Vec<u8>>) -> Result<bool, LayerError> {
        let mut holds = named.contains(path);
        let open = |s: &mut Self| s.io("open directory", path, |s| s.diff.real_dir(path));
        let Some(dir) = open(self)? else { return Ok(holds) };
        let names = self.io("list", path, |_| overwritten::entries(&dir))?;
        // Not held open while its children are: a tree may be deeper than files may be open.
        drop(dir);
        for name in names {
            let child = [path, b"/", &name].concat();
            let Some(dir) = open(self)? else { return Ok(holds) };
            let Some(stat) = self.io("look at", &child, |_| overlay::stat(&dir, &name))? else {
                continue;
            };
            if overlay::is_whiteout(&stat) {
                let unlinked = fs::unlinkat(&*dir, name.as_slice(), AtFlags::empty());
                unlinked.map_err(|e| LayerError::write("remove", &child, e))?;
            } else if file_type(&stat) != FileType::Directory {
                holds = true;
            } else {
                drop(dir);
                if self.prune(&child, named)? {
                    holds = true;
                } else if let Some(dir) = open(self)? {
                    self.remove_dir(&dir, &name, &child)?;
                }
            }
        }
        Ok(holds)
    }

    fn remove_dir(&mut self, dir: &DirHandle, last: &[u8], path: &[u8]) -> Result<(), LayerError> {
        let removed = fs::unlinkat(dir, last, AtFlags::REMOVEDIR);
        removed.map_err(|e| LayerError::write("remove", path, e))?;
        self.diff.forget();
        Ok(())
    }

    fn set_opaque(&mut self, path: &[u8]) -> Result<(), LayerError> {
        self.io("mark opaque", path, |s| match s.diff.real_dir(path)? {
            Some(dir) => s.diff.set_opaque(&dir),
            None => Ok(()),
        })
    }

    fn make_whiteout(
        &mut self,
        dir: &DirHandle,
        last: &[u8],
        path: &[u8],
        (uid, gid): (Uid, Gid),
    ) -> Result<(), LayerError> {
        self.io("make whiteout", path, |_| overlay::make_whiteout(dir, last))?;
        if self.owners.ignored() {
            return Ok(());
        }
        let owned = fs::chownat(dir, last, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
        owned.map_err(|e| LayerError::write("set the owner of", path, e))
    }
}

/// Sorted so that what is below a path follows it, and each path once.
fn in_order(mut all: Vec<Hidden>) -> Vec<Hidden> {
    let parts =
        |path: &[u8]| path.iter().map(|&b| if b == b'/' { 0 } else { b }).collect::<Vec<_>>();
    all.sort_by_cached_key(|hidden| parts(&hidden.path));
    all.dedup_by(|later, first| {
        let same = later.path == first.path;
        if same {
            first.whiteout = first.whiteout.or(later.whiteout);
            first.opaque |= later.opaque;
        }
        same
    });
    all
}

fn is_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with(b"/"))
}
