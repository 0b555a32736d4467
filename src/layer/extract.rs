//! Entries to files, below one directory that cannot be left.
//!
//! The order of a file's metadata is dockerd's (moby pkg/archive `createTarFile`): data,
//! owner, extended attributes, mode, times; times of directories come last of all.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::LayerError;
use super::meta::{self, Owners};
use super::names::{self, CleanName, Mark};
use super::spool::Spool;
use super::tar_reader::{Entry, Kind};
use crate::overlay::{self, DiffDir, DirHandle};

/// Makes the files of one layer.
pub struct Extractor<'a> {
    diff: &'a mut DiffDir,
    owners: Owners,
    /// The sum of the sizes of all non-directories, as layerdb's `size` counts it.
    size: u64,
    dirs: Vec<DirMeta>,
    spool: Spool,
    warnings: Vec<String>,
}

/// What is set on a directory after all entries are there.
struct DirMeta {
    path: Vec<u8>,
    mode: u32,
    times: fs::Timestamps,
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
    parent_gid: u32,
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
    /// An extractor into the empty directory `diff`.
    pub fn new(diff: &'a mut DiffDir, owners: Owners) -> Self {
        let spool = Spool::default();
        Self { diff, owners, size: 0, dirs: Vec::new(), spool, warnings: Vec::new() }
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
        match names::mark(&name.path)? {
            Mark::Opaque => {
                let (parent, _) = overlay::split(&name.path);
                let dir = self.dir(parent)?;
                self.io("mark opaque", parent, |s| s.diff.set_opaque(&dir))?;
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
        let file = self.make(entry, &dir, last, &name.path, position)?;
        Ok(Placed { file, held })
    }

    /// Sets the metadata of a file whose data is written.
    ///
    /// # Errors
    /// [`LayerError::Write`].
    pub fn finish(&mut self, open: OpenFile, entry: &Entry, path: &[u8]) -> Result<(), LayerError> {
        let written = entry.sparse.as_ref().map_or(entry.data, |map| map.size);
        self.size += written;
        let file = open.file;
        self.io("set the owner of", path, |s| s.owners.own_file(&file, entry, open.parent_gid))?;
        meta::set_xattrs(entry, &mut self.warnings, |name, value| {
            fs::fsetxattr(&file, name, value, fs::XattrFlags::empty())
        })?;
        if entry.mode & (self.diff.umask() | 0o7000) != 0 {
            let mode = Mode::from_raw_mode(entry.mode);
            fs::fchmod(&file, mode).map_err(|e| LayerError::write("set the mode of", path, e))?;
        }
        fs::futimens(&file, &meta::times(entry))
            .map_err(|e| LayerError::write("set the times of", path, e))
    }

    /// Sets what could not be set on directories while entries were made in them.
    ///
    /// # Errors
    /// [`LayerError::Write`].
    pub fn close(mut self) -> Result<Extracted, LayerError> {
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
        Ok(Extracted { size: self.size, spool: self.spool, warnings: self.warnings })
    }

    fn with_dir(
        &mut self,
        dir: &DirMeta,
        act: impl FnOnce(&DirHandle, &[u8]) -> Result<(), Errno>,
    ) -> Result<(), LayerError> {
        let (parent, last) = overlay::split(&dir.path);
        let last: &[u8] = if dir.path.is_empty() { b"." } else { last };
        // A later entry may have put something else in its place.
        let Ok(parent) = self.diff.dir(parent) else { return Ok(()) };
        match overlay::stat(&parent, last) {
            Ok(Some(stat)) if file_type(&stat) == FileType::Directory => {}
            _ => return Ok(()),
        }
        act(&parent, last).map_err(|e| LayerError::write("set the times of", &dir.path, e))
    }

    fn make(
        &mut self,
        entry: &Entry,
        dir: &Arc<DirHandle>,
        last: &[u8],
        path: &[u8],
        position: u64,
    ) -> Result<Option<OpenFile>, LayerError> {
        meta::check(entry)?;
        match entry.kind {
            Kind::File => return self.create(entry, dir, last, path, position).map(Some),
            Kind::Dir => self.make_dir(entry, dir, last, path, position)?,
            Kind::Symlink => self.symlink(entry, dir, last, path, position)?,
            Kind::Hardlink => self.hardlink(entry, dir, last, path, position)?,
            Kind::Char | Kind::Block | Kind::Fifo => self.node(entry, dir, last, path, position)?,
            Kind::Global => {}
        }
        Ok(None)
    }

    fn create(
        &mut self,
        entry: &Entry,
        dir: &Arc<DirHandle>,
        last: &[u8],
        path: &[u8],
        position: u64,
    ) -> Result<OpenFile, LayerError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let mut open = || fs::openat(&**dir, last, flags, mode);
        let fd = self.replacing("create", dir, last, path, position, &mut open)?;
        Ok(OpenFile { file: File::from(fd), parent_gid: dir.gid })
    }

    fn make_dir(
        &mut self,
        entry: &Entry,
        dir: &Arc<DirHandle>,
        last: &[u8],
        path: &[u8],
        position: u64,
    ) -> Result<(), LayerError> {
        let umask = self.diff.umask();
        let mode = if self.owners.late_modes() { entry.mode | 0o700 } else { entry.mode };
        let found = self.io("look at", path, |_| overlay::stat(dir, last))?;
        let merge = found.as_ref().is_some_and(|stat| file_type(stat) == FileType::Directory);
        if !merge {
            if let Some(stat) = &found {
                self.remove(dir, last, path, position, stat)?;
            }
            self.io("create directory", path, |_| overlay::make_dir(&**dir, last, mode, umask))?;
        }
        if found.as_ref().is_some_and(overlay::is_whiteout) {
            // The layer deleted the directory and made it anew: what was in it stays gone.
            self.opaque(path)?;
        }
        self.io("set the owner of", path, |s| s.owners.own(dir, last, entry, merge, dir.gid))?;
        self.xattrs_at(entry, dir, last)?;
        // chown(2) takes setuid and setgid off; mkdir(2) hands setgid down.
        if merge || dir.setgid || entry.mode & 0o6000 != 0 {
            let mode = Mode::from_raw_mode(mode);
            self.io("set the mode of", path, |_| {
                Ok(fs::chmodat(&**dir, last, mode, AtFlags::empty())?)
            })?;
        }
        if merge {
            // The cached descriptor knows the old group.
            self.diff.forget();
        }
        self.dirs.push(DirMeta {
            path: path.to_vec(),
            mode: entry.mode,
            times: meta::times(entry),
        });
        Ok(())
    }

    fn symlink(
        &mut self,
        entry: &Entry,
        dir: &Arc<DirHandle>,
        last: &[u8],
        path: &[u8],
        position: u64,
    ) -> Result<(), LayerError> {
        let target = entry.link.as_slice();
        let mut link = || fs::symlinkat(target, &**dir, last);
        self.replacing("create symlink", dir, last, path, position, &mut link)?;
        self.size += target.len() as u64;
        self.io("set the owner of", path, |s| s.owners.own(dir, last, entry, false, dir.gid))?;
        self.xattrs_at(entry, dir, last)?;
        self.times_at(entry, dir, last, path)
    }

    fn hardlink(
        &mut self,
        entry: &Entry,
        dir: &Arc<DirHandle>,
        last: &[u8],
        path: &[u8],
        position: u64,
    ) -> Result<(), LayerError> {
        let target = names::clean(&entry.link, usize::MAX).map_err(|_| {
            LayerError::refused(&entry.name, "a hardlink to a file outside the layer")
        })?;
        let shown = super::error::show(&entry.link);
        let missing = || {
            LayerError::refused(
                &entry.name,
                format!("a hardlink to '{shown}', which is not in this layer"),
            )
        };
        if target.path == path {
            return Err(LayerError::refused(&entry.name, "a hardlink to itself"));
        }
        let (target_parent, target_last) = overlay::split(&target.path);
        let target_dir = self.diff.existing_dir(target_parent).map_err(|_| missing())?;
        let stat = overlay::stat(&target_dir, target_last).ok().flatten().ok_or_else(missing)?;
        if overlay::is_whiteout(&stat) || file_type(&stat) == FileType::Directory {
            return Err(missing());
        }
        let mut link = || fs::linkat(&target_dir, target_last, &**dir, last, AtFlags::empty());
        self.replacing("link", dir, last, path, position, &mut link)?;
        // dockerd gives the file the link's metadata. Setting an owner drops capabilities,
        // so only what differs is set.
        if meta::same_owner(&stat, entry) || self.owners.ignored() {
            if file_type(&stat) != FileType::Symlink && stat.st_mode & 0o7777 != entry.mode {
                let mode = Mode::from_raw_mode(entry.mode);
                self.io("set the mode of", path, |_| {
                    Ok(fs::chmodat(&**dir, last, mode, AtFlags::empty())?)
                })?;
            }
        } else {
            self.io("set the owner of", path, |s| s.owners.own(dir, last, entry, true, dir.gid))?;
            if file_type(&stat) != FileType::Symlink {
                let mode = Mode::from_raw_mode(entry.mode);
                self.io("set the mode of", path, |_| {
                    Ok(fs::chmodat(&**dir, last, mode, AtFlags::empty())?)
                })?;
            }
        }
        self.xattrs_at(entry, dir, last)?;
        self.times_at(entry, dir, last, path)
    }

    fn node(
        &mut self,
        entry: &Entry,
        dir: &Arc<DirHandle>,
        last: &[u8],
        path: &[u8],
        position: u64,
    ) -> Result<(), LayerError> {
        let (kind, device) = meta::device(entry)?;
        if self.owners.ignored() && kind != FileType::Fifo {
            let shown = super::error::show(path);
            self.warnings.push(format!("device '{shown}' is left out: making devices needs root"));
            return Ok(());
        }
        let mode = Mode::from_raw_mode(entry.mode);
        let mut make = || fs::mknodat(&**dir, last, kind, mode, device);
        self.replacing("make device", dir, last, path, position, &mut make)?;
        self.io("set the owner of", path, |s| s.owners.own(dir, last, entry, false, dir.gid))?;
        self.xattrs_at(entry, dir, last)?;
        self.io("set the mode of", path, |_| {
            Ok(fs::chmodat(&**dir, last, mode, AtFlags::empty())?)
        })?;
        self.times_at(entry, dir, last, path)
    }

    /// A whiteout hides what *lower* layers have (OCI image-spec layer.md "Whiteouts"): what
    /// this layer has there stays, and a directory of this layer becomes opaque.
    fn whiteout(&mut self, entry: &Entry, hidden: &[u8]) -> Result<(), LayerError> {
        let (parent, last) = overlay::split(hidden);
        let dir = self.dir(parent)?;
        match self.io("look at", hidden, |_| overlay::stat(&dir, last))? {
            Some(stat) if file_type(&stat) == FileType::Directory => self.opaque(hidden),
            Some(_) => Ok(()),
            None => {
                meta::check(entry)?;
                self.io("make whiteout", hidden, |_| overlay::make_whiteout(&dir, last))?;
                self.io("set the owner of", hidden, |s| {
                    s.owners.own(&dir, last, entry, false, dir.gid)
                })
            }
        }
    }

    /// An entry named `/`: dockerd sets the root's metadata, and can make nothing else of it.
    fn root(&mut self, entry: &Entry) -> Result<(), LayerError> {
        if entry.kind != Kind::Dir {
            return Err(LayerError::refused(&entry.name, "it would replace the layer's root"));
        }
        meta::check(entry)?;
        let dir = self.dir(b"")?;
        self.io("set the owner of", b"/", |s| s.owners.own(&dir, b".", entry, true, dir.gid))?;
        let mode = Mode::from_raw_mode(entry.mode);
        self.io("set the mode of", b"/", |_| Ok(fs::chmodat(&*dir, ".", mode, AtFlags::empty())?))?;
        self.diff.forget();
        self.dirs.push(DirMeta { path: Vec::new(), mode: entry.mode, times: meta::times(entry) });
        Ok(())
    }

    /// Calls `make`; if something stands in its way, removes that and calls it again.
    fn replacing<T>(
        &mut self,
        op: &'static str,
        dir: &Arc<DirHandle>,
        last: &[u8],
        path: &[u8],
        position: u64,
        make: &mut dyn FnMut() -> Result<T, Errno>,
    ) -> Result<T, LayerError> {
        match make() {
            Err(Errno::EXIST) => {}
            other => return other.map_err(|e| LayerError::write(op, path, e)),
        }
        if let Some(stat) = self.io("look at", path, |_| overlay::stat(dir, last))? {
            self.remove(dir, last, path, position, &stat)?;
        }
        make().map_err(|e| LayerError::write(op, path, e))
    }

    /// Removes what stands at `path`, keeping the data that the record refers to.
    fn remove(
        &mut self,
        dir: &Arc<DirHandle>,
        last: &[u8],
        path: &[u8],
        position: u64,
        stat: &Stat,
    ) -> Result<(), LayerError> {
        let real = match dir.through_symlink {
            false => path.to_vec(),
            true => {
                let parent = self.io("look at", path, |s| s.diff.real_path(dir))?;
                if parent.is_empty() { last.to_vec() } else { [&parent, &b"/"[..], last].concat() }
            }
        };
        let freed = self.spool.remove(self.diff, dir, last, &real, position, stat)?;
        self.size -= freed;
        if file_type(stat) == FileType::Directory {
            self.diff.forget();
        }
        Ok(())
    }

    fn dir(&mut self, path: &[u8]) -> Result<Arc<DirHandle>, LayerError> {
        self.io("open directory", path, |s| s.diff.dir(path))
    }

    fn opaque(&mut self, path: &[u8]) -> Result<(), LayerError> {
        let dir = self.dir(path)?;
        self.io("mark opaque", path, |s| s.diff.set_opaque(&dir))
    }

    fn xattrs_at(&mut self, entry: &Entry, dir: &DirHandle, last: &[u8]) -> Result<(), LayerError> {
        if entry.xattrs.is_empty() {
            return Ok(());
        }
        let path = overlay::proc_path(dir, last);
        meta::set_xattrs(entry, &mut self.warnings, |name, value| {
            fs::lsetxattr(path.as_slice(), name, value, fs::XattrFlags::empty())
        })
    }

    fn times_at(
        &mut self,
        entry: &Entry,
        dir: &DirHandle,
        last: &[u8],
        path: &[u8],
    ) -> Result<(), LayerError> {
        fs::utimensat(dir, last, &meta::times(entry), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| LayerError::write("set the times of", path, e))
    }

    fn io<T>(
        &mut self,
        op: &'static str,
        path: &[u8],
        act: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> Result<T, LayerError> {
        act(self).map_err(|e| LayerError::write(op, path, e))
    }
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}
