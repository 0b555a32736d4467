//! Entries to files, below one directory that cannot be left.
//!
//! The order of a file's metadata is dockerd's (moby pkg/archive `createTarFile`): data,
//! owner, extended attributes, mode, times; times of directories come last of all.

mod create;
pub mod deferred;
pub mod metadata;
mod omissions;
mod whiteouts;

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, Mode, Stat};
use rustix::io::Errno;

use self::create::Spot;
use self::deferred::{Behind, Task};
use self::metadata::{FileMeta, Owners};
use self::omissions::Omissions;
use self::whiteouts::Whiteouts;
use crate::layer::LayerError;
use crate::layer::stream::chunks::ChunkSlice;
use crate::layer::tar::path::{self, CleanName, Mark};
use crate::layer::tar::reader::{Entry, Kind};
use crate::layer::tar_split::overwritten::Spool;
use crate::overlay::{self, DiffDir, DirHandle};

/// Makes the files of one layer.
pub struct Extractor<'a> {
    pub(super) diff: &'a mut DiffDir,
    pub(super) behind: Behind,
    pub(super) owners: Owners,
    /// The sum of the sizes of all non-directories, as layerdb's `size` counts it.
    pub(super) size: u64,
    pub(super) dirs: Vec<DirMeta>,
    pub(super) spool: Spool,
    pub(super) whiteouts: Whiteouts,
    pub(super) omissions: Omissions,
}

/// What is set on a directory after all entries are there.
pub struct DirMeta {
    /// Its path, symlinks resolved: a symlink on the way to it may be replaced later.
    pub(super) path: Vec<u8>,
    pub(super) mode: u32,
    pub(super) times: fs::Timestamps,
}

/// What [`Extractor::place`] made of an entry.
pub struct Placed {
    /// Takes the entry's data.
    pub file: Option<OpenFile>,
    /// Whether the data must be recorded raw: a file's line could not give it back.
    pub held: bool,
}

/// A new file that waits for its data.
pub struct OpenFile {
    /// Where the data goes.
    pub file: File,
    pub(super) parent_gid: u32,
}

impl OpenFile {
    /// Writes `bytes`, which stand at `offset` of the entry's data.
    ///
    /// # Errors
    /// What writing says.
    pub fn write(&mut self, entry: &Entry, bytes: &[u8], offset: u64) -> io::Result<()> {
        match &entry.sparse {
            None => self.file.write_all(bytes),
            Some(map) => map.each_run(offset, bytes, |at, run| self.file.write_all_at(run, at)),
        }
    }
}

/// What is left when all entries are placed.
pub struct Extracted {
    /// Docker's size of the layer, bytes.
    pub size: u64,
    /// Data that later entries took from the tree.
    pub spool: Spool,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl<'a> Extractor<'a> {
    /// An extractor into the empty directory `diff`; small files are written `behind`.
    pub fn new(diff: &'a mut DiffDir, owners: Owners, behind: Behind) -> Self {
        Self {
            diff,
            behind,
            owners,
            size: 0,
            dirs: Vec::new(),
            spool: Spool::default(),
            whiteouts: Whiteouts::default(),
            omissions: Omissions::default(),
        }
    }

    /// Makes what `entry` names. `position` is where its line will stand in the record.
    ///
    /// # Errors
    /// [`LayerError::Refused`] and [`LayerError::Write`].
    pub fn place(
        &mut self,
        entry: &Entry,
        name: &CleanName,
        position: u64,
    ) -> Result<Placed, LayerError> {
        let has_data = entry.data > 0;
        // Neither a header that states more data than follows, nor a sparse map, nor a
        // name with `..` can be given back from the tree by its name and size.
        let held = name.dotted || entry.sparse.is_some() || (entry.stated > 0 && !has_data);
        let nothing = Placed { file: None, held };
        if entry.kind == Kind::Global {
            return Ok(nothing);
        }
        if name.path.is_empty() {
            if name.dot {
                return Ok(Placed { file: None, held: held || has_data });
            }
            return self.root(entry).map(|()| nothing);
        }
        match path::mark(&name.path)? {
            Mark::Opaque => {
                self.opaque(overlay::split(&name.path).0)?;
                return Ok(Placed { file: None, held: held || has_data });
            }
            Mark::Whiteout(hidden) => {
                self.whiteout(entry, &hidden)?;
                return Ok(Placed { file: None, held: held || has_data });
            }
            Mark::None => {}
        }
        let (parent, last) = overlay::split(&name.path);
        let dir = self.dir(parent)?;
        let held = held || (dir.through_symlink && has_data);
        let spot = Spot { entry, dir: &dir, last, path: &name.path, position };
        let file = self.make(&spot)?;
        Ok(Placed { file, held })
    }

    /// Sets the metadata of a file whose data is written.
    ///
    /// # Errors
    /// [`LayerError::Write`].
    pub fn finish(&mut self, open: OpenFile, entry: &Entry, path: &[u8]) -> Result<(), LayerError> {
        self.size += entry.sparse.as_ref().map_or(entry.data, |map| map.size);
        let (file, meta) = (&open.file, self.file_meta(&open, entry));
        let omissions = &mut self.omissions;
        meta.set(file, path, || {
            metadata::set_xattrs(entry, omissions, |name, value| {
                fs::fsetxattr(file, name, value, fs::XattrFlags::empty())
            })
        })
    }

    /// Has a file's whole data and its metadata written by the other thread.
    ///
    /// # Errors
    /// [`LayerError::Cancelled`] if that failed.
    pub fn finish_behind(
        &mut self,
        open: OpenFile,
        entry: &Entry,
        data: ChunkSlice,
        path: Vec<u8>,
    ) -> Result<(), LayerError> {
        self.size += entry.data;
        let meta = self.file_meta(&open, entry);
        self.behind.add(Task { file: open.file, data, meta, path })
    }

    fn file_meta(&self, open: &OpenFile, entry: &Entry) -> FileMeta {
        let stays = entry.mode & (self.diff.umask() | 0o7000) == 0;
        FileMeta {
            owner: self.owners.of_new(entry, open.parent_gid),
            mode: (!stays).then(|| Mode::from_raw_mode(entry.mode)),
            times: metadata::times(entry),
        }
    }

    /// Sets what could not be set on directories while entries were made in them.
    ///
    /// # Errors
    /// [`LayerError::Write`].
    pub fn close(mut self) -> Result<Extracted, LayerError> {
        self.behind.settle()?;
        self.hide_lower_layers()?;
        let dirs = std::mem::take(&mut self.dirs);
        for dir in &dirs {
            self.with_dir(dir, |parent, last| {
                fs::utimensat(parent, last, &dir.times, AtFlags::SYMLINK_NOFOLLOW)
            })?;
        }
        if self.owners.late_modes() {
            // Deepest first: a parent may become unreadable to us. The last header of a
            // directory wins.
            let mut seen = std::collections::HashSet::new();
            for dir in dirs.iter().rev().filter(|dir| seen.insert(&dir.path)) {
                let mode = Mode::from_raw_mode(dir.mode);
                self.with_dir(dir, |parent, last| {
                    fs::chmodat(parent, last, mode, AtFlags::empty())
                })?;
                self.diff.forget();
            }
        }
        let warnings = self.omissions.into_warnings();
        Ok(Extracted { size: self.size, spool: self.spool, warnings })
    }

    fn with_dir(
        &mut self,
        dir: &DirMeta,
        act: impl FnOnce(&DirHandle, &[u8]) -> Result<(), Errno>,
    ) -> Result<(), LayerError> {
        let (parent, last) = overlay::split(&dir.path);
        let last: &[u8] = if dir.path.is_empty() { b"." } else { last };
        // A later entry may have put something else in its place, or in that of a parent,
        // which must not come back.
        let Ok(Some(parent)) = self.diff.real_dir(parent) else { return Ok(()) };
        match overlay::stat(&parent, last) {
            Ok(Some(stat)) if file_type(&stat) == FileType::Directory => {}
            _ => return Ok(()),
        }
        act(&parent, last).map_err(|e| LayerError::write("set the times of", &dir.path, e))
    }

    /// An entry named `/`: dockerd sets the root's metadata, and can make nothing else of it.
    fn root(&mut self, entry: &Entry) -> Result<(), LayerError> {
        if entry.kind != Kind::Dir {
            return Err(LayerError::refused(&entry.name, "it would replace the layer's root"));
        }
        metadata::check(entry)?;
        let dir = self.dir(b"")?;
        self.io("set the owner of", b"/", |s| s.owners.own(&dir, b".", entry, true, dir.gid))?;
        let late = if self.owners.late_modes() { 0o700 } else { 0 };
        let mode = Mode::from_raw_mode(entry.mode | late);
        self.io("set the mode of", b"/", |_| Ok(fs::chmodat(&*dir, ".", mode, AtFlags::empty())?))?;
        self.diff.forget();
        self.dirs.push(DirMeta {
            path: Vec::new(),
            mode: entry.mode,
            times: metadata::times(entry),
        });
        Ok(())
    }

    pub(super) fn dir(&mut self, path: &[u8]) -> Result<Arc<DirHandle>, LayerError> {
        self.io("open directory", path, |s| s.diff.dir(path))
    }

    /// Where `last` in `dir` is below the layer's root, symlinks resolved; `path` is what
    /// the archive calls it.
    pub(super) fn real_path_in(
        &mut self,
        dir: &DirHandle,
        last: &[u8],
        path: &[u8],
    ) -> Result<Vec<u8>, LayerError> {
        if !dir.through_symlink {
            return Ok(path.to_vec());
        }
        let mut real = self.io("look at", path, |s| s.diff.real_path(dir))?;
        if !real.is_empty() && !last.is_empty() {
            real.push(b'/');
        }
        real.extend_from_slice(last);
        Ok(real)
    }

    pub(super) fn io<T>(
        &mut self,
        op: &'static str,
        path: &[u8],
        act: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> Result<T, LayerError> {
        act(self).map_err(|e| LayerError::write(op, path, e))
    }
}

/// The type in a stat's mode.
pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}
