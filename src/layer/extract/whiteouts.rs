//! Whiteouts and opaque directories.
//!
//! A whiteout hides files of *lower* layers only (OCI image-spec layer.md, "Whiteouts"): files of
//! its own layer stay, and a directory of its own layer becomes opaque, in any order of the
//! entries. A whiteout entry creates the overlay's device if the name is free. The rest is marked
//! after all entries exist.

use rustix::fs::{self, AtFlags, FileType};

use super::metadata;
use super::path_set::PathSet;
use super::tree::{Tree, file_type};
use crate::layer::LayerError;
use crate::layer::tar::entry::TarEntry;
use crate::overlay::{self, DirHandle};

/// The whiteouts and opaque marks of one layer.
#[derive(Default)]
pub struct Whiteouts(Vec<Hidden>);

/// A path that is hidden in lower layers.
struct Hidden {
    /// The path below the layer's root, with symlinks resolved as they were at that entry.
    path: Vec<u8>,
    /// The owner of the whiteout `.wh.NAME`, if the layer has one.
    whiteout: Option<(u32, u32)>,
    /// Whether the layer has `.wh..wh..opq` in the directory.
    opaque: bool,
}

impl Whiteouts {
    /// Hides the path `hidden` of lower layers.
    ///
    /// # Errors
    /// [`LayerError::Refused`] and [`LayerError::Write`].
    pub fn hide(
        &mut self,
        tree: &mut Tree<'_>,
        entry: &TarEntry,
        hidden: &[u8],
    ) -> Result<(), LayerError> {
        metadata::check(entry)?;
        let (parent, last) = overlay::split(hidden);
        let dir = tree.dir(parent)?;
        let owner = metadata::ids(entry);
        if tree.io("look at", hidden, |_| overlay::stat(&dir, last))?.is_none() {
            tree.make_whiteout(&dir, last, hidden, owner)?;
        }
        let path = tree.real_path(&dir, last, hidden)?;
        self.0.push(Hidden { path, whiteout: Some(owner), opaque: false });
        Ok(())
    }

    /// Hides the content of the directory `path` in lower layers.
    ///
    /// # Errors
    /// [`LayerError::Write`].
    pub fn hide_content(&mut self, tree: &mut Tree<'_>, path: &[u8]) -> Result<(), LayerError> {
        let dir = tree.dir(path)?;
        let path = tree.real_path(&dir, b"", path)?;
        self.0.push(Hidden { path, whiteout: None, opaque: true });
        Ok(())
    }

    /// Marks directories of this layer opaque whose path is hidden, after all entries exist.
    ///
    /// # Errors
    /// [`LayerError::Write`].
    pub fn finish(self, tree: &mut Tree<'_>) -> Result<(), LayerError> {
        let all = in_order(self.0);
        let mut named = None;
        let mut hidden_below: Option<&[u8]> = None;
        for hidden in &all {
            let path = hidden.path.as_slice();
            if hidden_below.is_some_and(|above| is_below(path, above)) {
                continue;
            }
            if path.is_empty() {
                tree.set_opaque(path)?;
                continue;
            }
            let (parent, last) = overlay::split(path);
            let Some(dir) = tree.io("look at", path, |tree| tree.diff.real_dir(parent))? else {
                // A later entry replaced the parent, which hides everything below it.
                continue;
            };
            let stat = tree.io("look at", path, |_| overlay::stat(&dir, last))?;
            match (stat, hidden.whiteout) {
                (None, Some(owner)) => tree.make_whiteout(&dir, last, path, owner)?,
                (Some(stat), whiteout) if file_type(&stat) == FileType::Directory => {
                    let Some(owner) = whiteout else {
                        tree.set_opaque(path)?;
                        continue;
                    };
                    hidden_below = Some(path);
                    let named = match &named {
                        Some(named) => named,
                        None => named.insert(tree.named_dirs()?),
                    };
                    if tree.remove_whiteouts(path, named)? {
                        tree.set_opaque(path)?;
                        continue;
                    }
                    // Only whiteout entries created the directory.
                    tree.remove_dir(&dir, last, path)?;
                    tree.make_whiteout(&dir, last, path, owner)?;
                    if hidden.opaque {
                        tree.io("mark opaque", path, |tree| {
                            tree.diff.set_whiteout_opaque(&dir, last)
                        })?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Tree<'_> {
    /// The paths of the directories that have an entry.
    fn named_dirs(&self) -> Result<PathSet, LayerError> {
        let mut named = PathSet::default();
        for dir in self.dirs.forward() {
            let dir = dir.map_err(|e| LayerError::write("read the list of", b"directories", e))?;
            named.insert(&dir.path);
        }
        Ok(named)
    }

    /// Removes whiteouts below the directory `path`, which is going to be opaque: overlayfs would
    /// list them as names that cannot be opened. Removes directories without an entry that have
    /// nothing else. Returns whether the directory has an entry or something in it.
    fn remove_whiteouts(&mut self, path: &[u8], named: &PathSet) -> Result<bool, LayerError> {
        let mut has_content = named.contains(path);
        let open =
            |tree: &mut Self| tree.io("open directory", path, |tree| tree.diff.real_dir(path));
        let Some(dir) = open(self)? else { return Ok(has_content) };
        let names = self.io("list", path, |_| overlay::list(&dir))?;
        // Closed while its children are open: a tree may be deeper than the limit of open files.
        drop(dir);
        for name in names {
            let child = [path, b"/", &name].concat();
            let Some(dir) = open(self)? else { return Ok(has_content) };
            let Some(stat) = self.io("look at", &child, |_| overlay::stat(&dir, &name))? else {
                continue;
            };
            if overlay::is_whiteout(&stat) {
                let unlinked = fs::unlinkat(&*dir, name.as_slice(), AtFlags::empty());
                unlinked.map_err(|e| LayerError::write("remove", &child, e))?;
            } else if file_type(&stat) != FileType::Directory {
                has_content = true;
            } else {
                drop(dir);
                if self.remove_whiteouts(&child, named)? {
                    has_content = true;
                } else if let Some(dir) = open(self)? {
                    self.remove_dir(&dir, &name, &child)?;
                }
            }
        }
        Ok(has_content)
    }

    fn remove_dir(&mut self, dir: &DirHandle, last: &[u8], path: &[u8]) -> Result<(), LayerError> {
        let removed = fs::unlinkat(dir, last, AtFlags::REMOVEDIR);
        removed.map_err(|e| LayerError::write("remove", path, e))?;
        self.diff.clear_cache();
        Ok(())
    }

    fn set_opaque(&mut self, path: &[u8]) -> Result<(), LayerError> {
        self.io("mark opaque", path, |tree| match tree.diff.real_dir(path)? {
            Some(dir) => {
                tree.omissions.mark();
                tree.diff.set_opaque(&dir)
            }
            None => Ok(()),
        })
    }

    fn make_whiteout(
        &mut self,
        dir: &DirHandle,
        last: &[u8],
        path: &[u8],
        (uid, gid): (u32, u32),
    ) -> Result<(), LayerError> {
        self.io("create whiteout", path, |_| overlay::make_whiteout(dir, last))?;
        let owner = self.owners().to_set(uid, gid);
        self.io("set the owner of", path, |_| metadata::set_owner(dir, last, owner))
    }
}

/// Sorts by path, so that everything below a path follows it, and merges equal paths.
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
