//! Creation of entries, one function per type.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::dir_list::DirMetadata;
use super::metadata;
use super::tree::{OpenFile, Tree, file_type};
use crate::layer::LayerError;
use crate::layer::tar::entry::{EntryType, TarEntry};
use crate::layer::tar::path;
use crate::overlay::{self, DirHandle};

/// An entry and where it is created.
pub struct Destination<'a> {
    /// The entry.
    pub entry: &'a TarEntry,
    /// Its directory.
    pub dir: &'a Arc<DirHandle>,
    /// Its name in that directory.
    pub name: &'a [u8],
    /// Its clean path below the layer's root.
    pub path: &'a [u8],
    /// The position of its line in the metadata.
    pub position: u64,
}

impl Tree<'_> {
    /// Creates the entry. Returns a regular file, whose data is still missing.
    ///
    /// # Errors
    /// [`LayerError::Refused`] and [`LayerError::Write`].
    pub fn create(&mut self, at: &Destination<'_>) -> Result<Option<OpenFile>, LayerError> {
        metadata::check(at.entry)?;
        match at.entry.kind {
            EntryType::File => return self.create_file(at).map(Some),
            EntryType::Dir => self.create_dir(at)?,
            EntryType::Symlink => self.create_symlink(at)?,
            EntryType::Hardlink => self.create_hardlink(at)?,
            EntryType::Char | EntryType::Block | EntryType::Fifo => self.create_node(at)?,
            EntryType::Global => {}
        }
        Ok(None)
    }

    fn create_file(&mut self, at: &Destination<'_>) -> Result<OpenFile, LayerError> {
        let new = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | new;
        let mode = Mode::from_raw_mode(self.mode_of_new_file(at.entry));
        let open = || fs::openat(&**at.dir, at.name, flags, mode);
        let fd = self.replacing("create", at, &open)?;
        Ok(OpenFile { file: File::from(fd), parent_gid: at.dir.gid })
    }

    fn create_dir(&mut self, at: &Destination<'_>) -> Result<(), LayerError> {
        let (entry, dir, umask) = (at.entry, at.dir, self.diff.umask());
        let mode = if self.defers_modes() { entry.mode | 0o700 } else { entry.mode };
        let make = || overlay::make_dir(&**dir, at.name, mode, umask);
        let cannot = |e| LayerError::write("create directory", at.path, e);
        let found = match make() {
            Ok(()) => None,
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(cannot(e)),
            Err(_) => self.io("look at", at.path, |_| overlay::stat(dir, at.name))?,
        };
        let merge = found.as_ref().is_some_and(|stat| file_type(stat) == FileType::Directory);
        if found.is_some() && !merge {
            self.remove(at)?;
            make().map_err(cannot)?;
        }
        self.set_owner(at, merge)?;
        self.set_xattrs(at)?;
        // chown(2) clears setuid and setgid; mkdir(2) inherits setgid.
        if merge || dir.setgid || entry.mode & 0o6000 != 0 {
            chmod(at, mode)?;
        }
        if merge {
            // The cached handle has the old group.
            self.diff.clear_cache();
        }
        let (path, times) = (self.real_path(at.dir, at.name, at.path)?, metadata::times(entry));
        self.add_dir(&DirMetadata { path, mode: entry.mode, times })?;
        Ok(())
    }

    fn create_symlink(&mut self, at: &Destination<'_>) -> Result<(), LayerError> {
        let target = at.entry.link.as_slice();
        let link = || fs::symlinkat(target, &**at.dir, at.name);
        self.replacing("create symlink", at, &link)?;
        self.size = self.size.saturating_add(target.len() as u64);
        self.set_owner(at, false)?;
        self.set_xattrs(at)?;
        set_times(at)
    }

    fn create_hardlink(&mut self, at: &Destination<'_>) -> Result<(), LayerError> {
        let entry = at.entry;
        let refused = |why: &str| LayerError::refused(&entry.name, why);
        let target = path::clean(&entry.link, usize::MAX)
            .map_err(|_| refused("a hardlink to a file outside the layer"))?;
        if target.path == at.path {
            return Err(refused("a hardlink to itself"));
        }
        let shown = crate::layer::error::show(&entry.link);
        let missing = || refused(&format!("a hardlink to '{shown}', which is not in this layer"));
        // The metadata below must be set after the target's own.
        self.deferred.flush()?;
        let (parent, last) = overlay::split(&target.path);
        let dir = self.diff.existing_dir(parent).map_err(|_| missing())?;
        let stat = overlay::stat(&dir, last).ok().flatten().ok_or_else(missing)?;
        if overlay::is_whiteout(&stat) || file_type(&stat) == FileType::Directory {
            return Err(missing());
        }
        let link = || fs::linkat(&dir, last, &**at.dir, at.name, AtFlags::empty());
        self.replacing("link", at, &link)?;
        // dockerd gives the file the link's metadata. Setting an owner drops capabilities,
        // so only what differs is set.
        let owner = metadata::owner_to_change(self.owners(), &stat, entry);
        self.io("set the owner of", at.path, |_| metadata::set_owner(at.dir, at.name, owner))?;
        let same_mode = owner.is_none() && stat.st_mode & 0o7777 == entry.mode;
        if !same_mode && file_type(&stat) != FileType::Symlink {
            chmod(at, entry.mode)?;
        }
        self.set_xattrs(at)?;
        set_times(at)
    }

    fn create_node(&mut self, at: &Destination<'_>) -> Result<(), LayerError> {
        let (kind, device) = metadata::device(at.entry)?;
        let is_device = kind != FileType::Fifo;
        if is_device && !self.diff.abilities().devices {
            self.omissions.device(at.path);
            return Ok(());
        }
        let mode = Mode::from_raw_mode(at.entry.mode);
        let refused = Cell::new(false);
        let make = || match fs::mknodat(&**at.dir, at.name, kind, mode, device) {
            // The devices that a container may create can be limited one by one (cgroups).
            Err(Errno::PERM) if is_device => {
                refused.set(true);
                Ok(())
            }
            other => other,
        };
        self.replacing("create device", at, &make)?;
        if refused.get() {
            self.omissions.refused_device(at.path);
            return Ok(());
        }
        self.set_owner(at, false)?;
        self.set_xattrs(at)?;
        chmod(at, at.entry.mode)?;
        set_times(at)
    }

    /// Calls `make`. If something else has the name, removes that and calls `make` again.
    fn replacing<T>(
        &mut self,
        op: &'static str,
        at: &Destination<'_>,
        make: &dyn Fn() -> Result<T, Errno>,
    ) -> Result<T, LayerError> {
        match make() {
            Err(Errno::EXIST) => {}
            other => return other.map_err(|e| LayerError::write(op, at.path, e)),
        }
        self.remove(at)?;
        make().map_err(|e| LayerError::write(op, at.path, e))
    }

    /// Removes what has the name now, and saves the data that the metadata refers to.
    fn remove(&mut self, at: &Destination<'_>) -> Result<(), LayerError> {
        let Destination { dir, name, path, position, .. } = *at;
        // The write of that data may be deferred.
        self.deferred.flush()?;
        let Some(stat) = self.io("look at", path, |_| overlay::stat(dir, name))? else {
            return Ok(());
        };
        let real = self.real_path(at.dir, at.name, at.path)?;
        let freed = self.overwritten.remove(self.diff, dir, name, &real, position, &stat)?;
        self.size -= freed;
        if matches!(file_type(&stat), FileType::Directory | FileType::Symlink) {
            // A cached path may pass through it.
            self.diff.clear_cache();
        }
        Ok(())
    }

    fn set_owner(&mut self, at: &Destination<'_>, existing: bool) -> Result<(), LayerError> {
        let Destination { entry, dir, name, path, .. } = *at;
        let (uid, gid) = metadata::ids(entry);
        let new = self.owner_of_new(entry, dir.gid);
        let owner = if existing { self.owners().to_set(uid, gid) } else { new };
        self.io("set the owner of", path, |_| metadata::set_owner(dir, name, owner))
    }

    fn set_xattrs(&mut self, at: &Destination<'_>) -> Result<(), LayerError> {
        if at.entry.xattrs.is_empty() {
            return Ok(());
        }
        let path = overlay::proc_path(at.dir, at.name);
        metadata::set_xattrs(at.entry, &mut self.omissions, |name, value| {
            fs::lsetxattr(path.as_slice(), name, value, fs::XattrFlags::empty())
        })
    }
}

fn chmod(at: &Destination<'_>, mode: u32) -> Result<(), LayerError> {
    fs::chmodat(&**at.dir, at.name, Mode::from_raw_mode(mode), AtFlags::empty())
        .map_err(|e| LayerError::write("set the mode of", at.path, e))
}

fn set_times(at: &Destination<'_>) -> Result<(), LayerError> {
    let times = metadata::times(at.entry);
    fs::utimensat(&**at.dir, at.name, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| LayerError::write("set the times of", at.path, e))
}
