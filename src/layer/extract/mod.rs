//! From entries to files, below one directory that no path can leave.
//!
//! The metadata of a file is set in dockerd's order (moby pkg/archive `createTarFile`): data,
//! owner, extended attributes, mode, times. The times of directories are set last of all.

mod create;
pub mod deferred;
mod dir_list;
pub mod metadata;
pub mod omissions;
mod path_set;
mod tree;
mod whiteouts;

use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::{self, AtFlags, FileType, Mode};
use rustix::io::Errno;

use self::create::Destination;
use self::deferred::{DeferredWrite, DeferredWriter};
use self::dir_list::DirMetadata;
use self::omissions::OmissionReport;
use self::path_set::PathSet;
pub use self::tree::OpenFile;
use self::tree::{Tree, file_type};
use self::whiteouts::Whiteouts;
use crate::layer::LayerError;
use crate::layer::stream::chunks::ChunkSlice;
use crate::layer::tar::entry::{EntryType, TarEntry};
use crate::layer::tar::path::{self, CleanPath, NameClass};
use crate::layer::tar_split::overwritten::OverwrittenData;
use crate::overlay::{self, DiffDir, DirHandle};

/// Creates the files of one layer.
pub struct Extractor<'a> {
    tree: Tree<'a>,
    whiteouts: Whiteouts,
}

/// What [`Extractor::place`] created for an entry.
pub struct Placed {
    /// The file for the entry's data.
    pub file: Option<OpenFile>,
    /// Whether the data must be stored raw in the metadata, because no line can describe it.
    pub stored_raw: bool,
}

impl OpenFile {
    /// Writes `bytes`, which start at `offset` of the entry's data.
    ///
    /// # Errors
    /// The error of write(2).
    pub fn write(&mut self, entry: &TarEntry, bytes: &[u8], offset: u64) -> io::Result<()> {
        match &entry.sparse {
            None => self.file.write_all(bytes),
            Some(map) => {
                map.each_extent(offset, bytes, |at, bytes| self.file.write_all_at(bytes, at))
            }
        }
    }

    /// Writes `bytes`, which start at `offset` of the file, but not the blocks that have only zeros.
    /// The caller sets the size at the end.
    ///
    /// # Errors
    /// The error of write(2).
    pub fn write_with_holes(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut at = offset;
        for block in bytes.chunks(ZEROS.len()) {
            if block != &ZEROS[..block.len()] {
                self.file.write_all_at(block, at)?;
            }
            at += block.len() as u64;
        }
        Ok(())
    }
}

/// A block that becomes a hole.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The result of an extraction.
pub struct Extracted {
    /// Docker's size of the layer, bytes.
    pub size: u64,
    /// The data of files that later entries replaced.
    pub overwritten: OverwrittenData,
    /// What this process could not create.
    pub omissions: OmissionReport,
}

impl<'a> Extractor<'a> {
    /// Creates an extractor into the empty directory `diff`. Small files are written by
    /// `deferred`.
    pub fn new(diff: &'a mut DiffDir, deferred: DeferredWriter) -> Self {
        Self { tree: Tree::new(diff, deferred), whiteouts: Whiteouts::default() }
    }

    /// Creates what `entry` describes. `position` is the position of its line in the metadata.
    ///
    /// # Errors
    /// [`LayerError::Refused`] and [`LayerError::Write`].
    pub fn place(
        &mut self,
        entry: &TarEntry,
        path: &CleanPath,
        position: u64,
    ) -> Result<Placed, LayerError> {
        let has_data = entry.data_size > 0;
        // A line has a name and a size. It cannot describe a header whose size exceeds the data,
        // a sparse map, or a name with `..`.
        let stored_raw =
            path.has_dot_dot || entry.sparse.is_some() || (entry.header_size > 0 && !has_data);
        let no_file = |stored_raw| Ok(Placed { file: None, stored_raw });
        if entry.kind == EntryType::Global {
            return no_file(stored_raw);
        }
        if path.path.is_empty() {
            if path.relative_root {
                return no_file(stored_raw || has_data);
            }
            self.place_root(entry)?;
            return no_file(stored_raw);
        }
        match path::classify(&path.path)? {
            NameClass::Opaque => {
                self.whiteouts.hide_content(&mut self.tree, overlay::split(&path.path).0)?;
                return no_file(stored_raw || has_data);
            }
            NameClass::Whiteout(hidden) => {
                self.whiteouts.hide(&mut self.tree, entry, &hidden)?;
                return no_file(stored_raw || has_data);
            }
            NameClass::Ordinary => {}
        }
        let (parent, name) = overlay::split(&path.path);
        let dir = self.tree.dir(parent)?;
        let stored_raw = stored_raw || (dir.through_symlink && has_data);
        let at = Destination { entry, dir: &dir, name, path: &path.path, position };
        let file = self.tree.create(&at)?;
        Ok(Placed { file, stored_raw })
    }

    /// Sets the metadata of a file whose data is written.
    ///
    /// # Errors
    /// [`LayerError::Refused`] and [`LayerError::Write`].
    pub fn finish(
        &mut self,
        open: OpenFile,
        entry: &TarEntry,
        path: &[u8],
    ) -> Result<(), LayerError> {
        // A sparse file can have any size.
        let size = entry.sparse.as_ref().map_or(entry.data_size, |map| map.size);
        self.tree.size = self.tree.size.saturating_add(size);
        let (file, metadata) = (&open.file, self.tree.file_metadata(&open, entry));
        let omissions = &mut self.tree.omissions;
        metadata.set(file, path, || {
            metadata::set_xattrs(entry, omissions, |name, value| {
                fs::fsetxattr(file, name, value, fs::XattrFlags::empty())
            })
        })
    }

    /// Defers writing a file's whole data and its metadata.
    ///
    /// # Errors
    /// [`LayerError::Cancelled`] if an earlier deferred write failed.
    pub fn finish_deferred(
        &mut self,
        open: OpenFile,
        entry: &TarEntry,
        data: ChunkSlice,
        path: Vec<u8>,
    ) -> Result<(), LayerError> {
        self.tree.size = self.tree.size.saturating_add(entry.data_size);
        let metadata = self.tree.file_metadata(&open, entry);
        self.tree.deferred.add(DeferredWrite { file: open.file, data, metadata, path })
    }

    /// Sets everything that can be set only after all entries exist.
    ///
    /// # Errors
    /// [`LayerError::Write`].
    pub fn close(mut self) -> Result<Extracted, LayerError> {
        self.tree.deferred.flush()?;
        self.whiteouts.finish(&mut self.tree)?;
        let mut tree = self.tree;
        let dirs = std::mem::take(&mut tree.dirs);
        let read = |dir: io::Result<DirMetadata>| {
            dir.map_err(|e| LayerError::write("read the list of", b"directories", e))
        };
        for dir in dirs.forward() {
            let dir = read(dir)?;
            tree.with_dir(&dir, |parent, name| {
                fs::utimensat(parent, name, &dir.times, AtFlags::SYMLINK_NOFOLLOW)
            })?;
        }
        if tree.defers_modes() {
            // Deepest first: this process may be unable to read a parent afterwards. The last
            // header of a directory wins.
            let mut seen = PathSet::default();
            for dir in dirs.backward() {
                let dir = read(dir)?;
                if !seen.insert(&dir.path) {
                    continue;
                }
                let mode = Mode::from_raw_mode(dir.mode);
                tree.with_dir(&dir, |parent, name| {
                    fs::chmodat(parent, name, mode, AtFlags::empty())
                })?;
                tree.diff.clear_cache();
            }
        }
        let omissions = tree.omissions.report();
        Ok(Extracted { size: tree.size, overwritten: tree.overwritten, omissions })
    }

    /// Applies an entry named `/`: dockerd sets the metadata of the root and creates nothing.
    fn place_root(&mut self, entry: &TarEntry) -> Result<(), LayerError> {
        if entry.kind != EntryType::Dir {
            return Err(LayerError::refused(&entry.name, "it would replace the layer's root"));
        }
        metadata::check(entry)?;
        let tree = &mut self.tree;
        let dir = tree.dir(b"")?;
        let (uid, gid) = metadata::ids(entry);
        tree.note_owner(entry);
        let owner = tree.owners().to_set(uid, gid);
        tree.io("set the owner of", b"/", |_| metadata::set_owner(&dir, b".", owner))?;
        let late = if tree.defers_modes() { 0o700 } else { 0 };
        let mode = Mode::from_raw_mode(entry.mode | late);
        tree.io("set the mode of", b"/", |_| Ok(fs::chmodat(&*dir, ".", mode, AtFlags::empty())?))?;
        tree.diff.clear_cache();
        let times = metadata::times(entry);
        tree.add_dir(&DirMetadata { path: Vec::new(), mode: entry.mode, times })?;
        Ok(())
    }
}

impl Tree<'_> {
    /// Calls `act` with the parent and the name of `dir`, if it still exists.
    fn with_dir(
        &mut self,
        dir: &DirMetadata,
        act: impl FnOnce(&DirHandle, &[u8]) -> Result<(), Errno>,
    ) -> Result<(), LayerError> {
        let (parent, name) = overlay::split(&dir.path);
        let name: &[u8] = if dir.path.is_empty() { b"." } else { name };
        // A later entry may have replaced the directory or one of its parents, which must not be
        // created again.
        let Ok(Some(parent)) = self.diff.real_dir(parent) else { return Ok(()) };
        match overlay::stat(&parent, name) {
            Ok(Some(stat)) if file_type(&stat) == FileType::Directory => {}
            _ => return Ok(()),
        }
        act(&parent, name).map_err(|e| LayerError::write("set the times of", &dir.path, e))
    }
}
