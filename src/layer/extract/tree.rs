//! The directory tree of a layer while it is unpacked, and what must be known about it.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, Stat};

use super::deferred::DeferredWriter;
use super::dir_list::{DirList, DirMetadata};
use super::metadata::{self, FileMetadata};
use super::omissions::Omissions;
use crate::layer::LayerError;
use crate::layer::tar::entry::TarEntry;
use crate::layer::tar_split::overwritten::OverwrittenData;
use crate::overlay::{DiffDir, DirHandle, NewOwner, Owners};

/// The directory tree of one layer.
pub struct Tree<'a> {
    /// The directory of the files.
    pub diff: &'a mut DiffDir,
    /// Writes small files in another thread.
    pub deferred: DeferredWriter,
    /// The sum of the sizes of all files that are not directories, as `size` in the layerdb
    /// counts it, bytes.
    pub size: u64,
    /// The directories of the archive.
    pub dirs: DirList,
    /// The data of files that later entries replaced.
    pub overwritten: OverwrittenData,
    /// What this process cannot create.
    pub omissions: Omissions,
}

/// A new file without its data.
pub struct OpenFile {
    /// The file.
    pub file: File,
    /// The group of its directory.
    pub parent_gid: u32,
}

impl<'a> Tree<'a> {
    /// Creates the tree in the empty directory `diff`.
    pub fn new(diff: &'a mut DiffDir, deferred: DeferredWriter) -> Self {
        let omissions = Omissions::new(diff.abilities());
        Self {
            diff,
            deferred,
            size: 0,
            dirs: DirList::default(),
            overwritten: OverwrittenData::default(),
            omissions,
        }
    }

    /// Opens the directory `path`, and creates it if it does not exist.
    ///
    /// # Errors
    /// [`LayerError::Write`].
    pub fn dir(&mut self, path: &[u8]) -> Result<Arc<DirHandle>, LayerError> {
        self.io("open directory", path, |tree| tree.diff.dir(path))
    }

    /// Returns the path of `name` in `dir` below the layer's root, with symlinks resolved. `path`
    /// is its path in the archive.
    ///
    /// # Errors
    /// [`LayerError::Write`].
    pub fn real_path(
        &mut self,
        dir: &DirHandle,
        name: &[u8],
        path: &[u8],
    ) -> Result<Vec<u8>, LayerError> {
        if !dir.through_symlink {
            return Ok(path.to_vec());
        }
        let mut real = self.io("look at", path, |tree| tree.diff.real_path(dir))?;
        if !real.is_empty() && !name.is_empty() {
            real.push(b'/');
        }
        real.extend_from_slice(name);
        Ok(real)
    }

    /// Notes a directory whose metadata is set after all entries exist.
    ///
    /// # Errors
    /// [`LayerError::Write`].
    pub fn add_dir(&mut self, dir: &DirMetadata) -> Result<(), LayerError> {
        self.io("note", &dir.path, |tree| tree.dirs.push(tree.diff, dir))
    }

    /// The metadata that the new file `open` of `entry` needs.
    pub fn file_metadata(&mut self, open: &OpenFile, entry: &TarEntry) -> FileMetadata {
        let created = self.mode_of_new_file(entry);
        let unchanged = entry.mode & (self.diff.umask() | 0o7000) == 0 && created == entry.mode;
        FileMetadata {
            owner: self.owner_of_new(entry, open.parent_gid),
            mode: (!unchanged).then(|| Mode::from_raw_mode(entry.mode)),
            times: metadata::times(entry),
        }
    }

    /// The mode with which the regular file of `entry` is created. Without capabilities, only the
    /// mode allows this process to set attributes of its files.
    pub fn mode_of_new_file(&self, entry: &TarEntry) -> u32 {
        let late = if self.defers_modes() && !entry.xattrs.is_empty() { 0o600 } else { 0 };
        entry.mode & 0o777 | late
    }

    /// The owner to set on a new file of `entry` in a directory of the group `parent_gid`. Notes an
    /// owner that cannot be set.
    pub fn owner_of_new(&mut self, entry: &TarEntry, parent_gid: u32) -> Option<NewOwner> {
        let (uid, gid) = metadata::ids(entry);
        self.note_owner(entry);
        self.owners().to_set_on_new(uid, gid, parent_gid)
    }

    /// Notes an owner that cannot be set.
    pub fn note_owner(&mut self, entry: &TarEntry) {
        let (uid, gid) = metadata::ids(entry);
        if !self.owners().can_be(uid, gid) {
            self.omissions.owner();
        }
    }

    /// The owners that this process may set.
    pub fn owners(&self) -> &Owners {
        &self.diff.abilities().owners
    }

    /// Whether modes are set only after everything else: this process may need the owner's rights.
    pub fn defers_modes(&self) -> bool {
        !self.owners().are_kept()
    }

    /// Calls `act` and names its error with the operation `op` and `path`.
    ///
    /// # Errors
    /// [`LayerError::Write`].
    pub fn io<T>(
        &mut self,
        op: &'static str,
        path: &[u8],
        act: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> Result<T, LayerError> {
        act(self).map_err(|e| LayerError::write(op, path, e))
    }
}

/// Returns the file type in the mode of `stat`.
pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}
