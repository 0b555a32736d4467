//! One entry of each kind, made at its place.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::metadata;
use super::{DirMeta, Extractor, OpenFile, file_type};
use crate::layer::LayerError;
use crate::layer::tar::path;
use crate::layer::tar::reader::{Entry, Kind};
use crate::overlay::{self, DirHandle};

/// An entry, and the place where it is made.
pub struct Spot<'a> {
    /// The entry.
    pub entry: &'a Entry,
    /// The directory it stands in.
    pub dir: &'a Arc<DirHandle>,
    /// Its name there.
    pub last: &'a [u8],
    /// Its clean path below the layer's root.
    pub path: &'a [u8],
    /// Where its line will stand in the record.
    pub position: u64,
}

impl Extractor<'_> {
    /// Makes what the entry says; a regular file waits for its data.
    ///
    /// # Errors
    /// [`LayerError::Refused`] and [`LayerError::Write`].
    pub(super) fn make(&mut self, spot: &Spot<'_>) -> Result<Option<OpenFile>, LayerError> {
        metadata::check(spot.entry)?;
        match spot.entry.kind {
            Kind::File => return self.create(spot).map(Some),
            Kind::Dir => self.make_dir(spot)?,
            Kind::Symlink => self.symlink(spot)?,
            Kind::Hardlink => self.hardlink(spot)?,
            Kind::Char | Kind::Block | Kind::Fifo => self.node(spot)?,
            Kind::Global => {}
        }
        Ok(None)
    }

    fn create(&mut self, spot: &Spot<'_>) -> Result<OpenFile, LayerError> {
        let new = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | new;
        let mode = Mode::from_raw_mode(spot.entry.mode & 0o777);
        let open = || fs::openat(&**spot.dir, spot.last, flags, mode);
        let fd = self.replacing("create", spot, &open)?;
        Ok(OpenFile { file: File::from(fd), parent_gid: spot.dir.gid })
    }

    fn make_dir(&mut self, spot: &Spot<'_>) -> Result<(), LayerError> {
        let (entry, dir, umask) = (spot.entry, spot.dir, self.diff.umask());
        let mode = if self.owners.late_modes() { entry.mode | 0o700 } else { entry.mode };
        let make = || overlay::make_dir(&**dir, spot.last, mode, umask);
        let cannot = |e| LayerError::write("create directory", spot.path, e);
        let found = match make() {
            Ok(()) => None,
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(cannot(e)),
            Err(_) => self.io("look at", spot.path, |_| overlay::stat(dir, spot.last))?,
        };
        let merge = found.as_ref().is_some_and(|stat| file_type(stat) == FileType::Directory);
        if found.is_some() && !merge {
            self.remove(spot)?;
            make().map_err(cannot)?;
        }
        self.own(spot, merge)?;
        self.xattrs(spot)?;
        // chown(2) takes setuid and setgid off; mkdir(2) hands setgid down.
        if merge || dir.setgid || entry.mode & 0o6000 != 0 {
            chmod(spot, mode)?;
        }
        if merge {
            // The cached descriptor knows the old group.
            self.diff.forget();
        }
        let (path, times) = (self.real_path(spot)?, metadata::times(entry));
        self.dirs.push(DirMeta { path, mode: entry.mode, times });
        Ok(())
    }

    fn symlink(&mut self, spot: &Spot<'_>) -> Result<(), LayerError> {
        let target = spot.entry.link.as_slice();
        let link = || fs::symlinkat(target, &**spot.dir, spot.last);
        self.replacing("create symlink", spot, &link)?;
        self.size += target.len() as u64;
        self.own(spot, false)?;
        self.xattrs(spot)?;
        set_times(spot)
    }

    fn hardlink(&mut self, spot: &Spot<'_>) -> Result<(), LayerError> {
        let entry = spot.entry;
        let refused = |why: &str| LayerError::refused(&entry.name, why);
        let target = path::clean(&entry.link, usize::MAX)
            .map_err(|_| refused("a hardlink to a file outside the layer"))?;
        if target.path == spot.path {
            return Err(refused("a hardlink to itself"));
        }
        let shown = crate::layer::error::show(&entry.link);
        let missing = || refused(&format!("a hardlink to '{shown}', which is not in this layer"));
        // What is set below must come after what is set on the target itself.
        self.behind.settle()?;
        let (parent, last) = overlay::split(&target.path);
        let dir = self.diff.existing_dir(parent).map_err(|_| missing())?;
        let stat = overlay::stat(&dir, last).ok().flatten().ok_or_else(missing)?;
        if overlay::is_whiteout(&stat) || file_type(&stat) == FileType::Directory {
            return Err(missing());
        }
        let link = || fs::linkat(&dir, last, &**spot.dir, spot.last, AtFlags::empty());
        self.replacing("link", spot, &link)?;
        // dockerd gives the file the link's metadata. Setting an owner drops capabilities,
        // so only what differs is set.
        let same_owner = metadata::same_owner(&stat, entry) || self.owners.ignored();
        if !same_owner {
            self.own(spot, true)?;
        }
        let same_mode = same_owner && stat.st_mode & 0o7777 == entry.mode;
        if !same_mode && file_type(&stat) != FileType::Symlink {
            chmod(spot, entry.mode)?;
        }
        self.xattrs(spot)?;
        set_times(spot)
    }

    fn node(&mut self, spot: &Spot<'_>) -> Result<(), LayerError> {
        let (kind, device) = metadata::device(spot.entry)?;
        if self.owners.ignored() && kind != FileType::Fifo {
            self.omissions.device(spot.path);
            return Ok(());
        }
        let mode = Mode::from_raw_mode(spot.entry.mode);
        let make = || fs::mknodat(&**spot.dir, spot.last, kind, mode, device);
        self.replacing("make device", spot, &make)?;
        self.own(spot, false)?;
        self.xattrs(spot)?;
        chmod(spot, spot.entry.mode)?;
        set_times(spot)
    }

    /// Calls `make`; if something stands in its way, removes that and calls it again.
    fn replacing<T>(
        &mut self,
        op: &'static str,
        spot: &Spot<'_>,
        make: &dyn Fn() -> Result<T, Errno>,
    ) -> Result<T, LayerError> {
        match make() {
            Err(Errno::EXIST) => {}
            other => return other.map_err(|e| LayerError::write(op, spot.path, e)),
        }
        self.remove(spot)?;
        make().map_err(|e| LayerError::write(op, spot.path, e))
    }

    /// Removes what stands at the spot, keeping the data that the record refers to.
    fn remove(&mut self, spot: &Spot<'_>) -> Result<(), LayerError> {
        let Spot { dir, last, path, position, .. } = *spot;
        // That data may still be on its way.
        self.behind.settle()?;
        let Some(stat) = self.io("look at", path, |_| overlay::stat(dir, last))? else {
            return Ok(());
        };
        let real = self.real_path(spot)?;
        let freed = self.spool.remove(self.diff, dir, last, &real, position, &stat)?;
        self.size -= freed;
        if matches!(file_type(&stat), FileType::Directory | FileType::Symlink) {
            // A cached path may lead through it.
            self.diff.forget();
        }
        Ok(())
    }

    fn real_path(&mut self, spot: &Spot<'_>) -> Result<Vec<u8>, LayerError> {
        self.real_path_in(spot.dir, spot.last, spot.path)
    }

    fn own(&mut self, spot: &Spot<'_>, old: bool) -> Result<(), LayerError> {
        let Spot { entry, dir, last, path, .. } = *spot;
        self.io("set the owner of", path, |s| s.owners.own(dir, last, entry, old, dir.gid))
    }

    fn xattrs(&mut self, spot: &Spot<'_>) -> Result<(), LayerError> {
        if spot.entry.xattrs.is_empty() {
            return Ok(());
        }
        let path = overlay::proc_path(spot.dir, spot.last);
        metadata::set_xattrs(spot.entry, &mut self.omissions, |name, value| {
            fs::lsetxattr(path.as_slice(), name, value, fs::XattrFlags::empty())
        })
    }
}

fn chmod(spot: &Spot<'_>, mode: u32) -> Result<(), LayerError> {
    fs::chmodat(&**spot.dir, spot.last, Mode::from_raw_mode(mode), AtFlags::empty())
        .map_err(|e| LayerError::write("set the mode of", spot.path, e))
}

fn set_times(spot: &Spot<'_>) -> Result<(), LayerError> {
    let times = metadata::times(spot.entry);
    fs::utimensat(&**spot.dir, spot.last, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| LayerError::write("set the times of", spot.path, e))
}
