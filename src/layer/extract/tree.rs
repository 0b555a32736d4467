//! The directory tree of a layer while it is unpacked, and what must be known about it.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, Stat};

use super::deferred::DeferredWriter;
use super::dir_list::{DirList, DirMetadata};
use super::metadata::{self, FileMetadata, Owners};
use super::omissions::Omissions;
use crate::layer::LayerError;
use crate::layer::tar::entry::TarEntry;
use crate::layer::tar_split::overwritten::OverwrittenData;
use crate::overlay::{DiffDir, DirHandle};

/// The directory tree of one layer.
pub struct Tree<'a> {
    /// The directory of the files.
    pub diff: &'a mut DiffDir,
    /// Writes small files in another thread.
    pub deferred: DeferredWriter,
    /// Who owns the files.
    pub owners: Owners,
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
    pub fn new(diff: &'a mut DiffDir, owners: Owners, deferred: DeferredWriter) -> Self {
        Self {
            diff,
            deferred,
            owners,
            size: 0,
            dirs: DirList::default(),
            overwritten: OverwrittenData::default(),
            omissions: Omissions::default(),
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
    pub fn file_metadata(&self, open: &OpenFile, entry: &TarEntry) -> FileMetadata {
        let unchanged = entry.mode & (self.diff.umask() | 0o7000) == 0;
        FileMetadata {
            owner: self.owners.of_new(entry, open.parent_gid),
            mode: (!unchanged).then(|| Mode::from_raw_mode(entry.mode)),
            times: metadata::times(entry),
        }
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
