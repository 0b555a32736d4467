//! The changes in the upper directory of an overlay mount, with overlayfs's marks translated
//! (Documentation/filesystems/overlayfs.rst): what a layer of them has.
//!
//! The mount can be in use meanwhile. Each name is resolved in one open directory, and a file that changes
//! while it is read is an error.

mod walk;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::abilities::{Abilities, XattrSpace};
use super::diff_dir::is_whiteout;
use super::merged::{Xattrs, grow, open_in};
use crate::fsutil::{At, FsError};

pub use walk::ChangeWalk;

/// Flags to open a directory.
const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What a whiteout begins with in a tar.
const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// Why changes cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangesError {
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// A layer cannot express a change.
    #[error("cannot commit '{}': {why}", path.display())]
    Unsupported {
        /// The file or directory, below the mount's root.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// A file changed while it was read.
    #[error("'{}' changed while it was read", path.display())]
    Changed {
        /// The file or directory, below the mount's root.
        path: PathBuf,
    },
    /// This process cannot see which directories are opaque.
    #[error("cannot read the marks of overlayfs in {}: {why}", upper.display())]
    Marks {
        /// The directory of changes.
        upper: PathBuf,
        /// The capability that is missing.
        why: String,
    },
}

/// What a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// A name of lower layers is deleted.
    Whiteout,
    /// A new or changed directory.
    Dir {
        /// Whether its content in lower layers is hidden.
        opaque: bool,
    },
    /// A new or changed file of another type.
    Other(FileType),
}

/// The directory of changes of one mount.
#[derive(Debug)]
pub struct Changes {
    root: Arc<OwnedFd>,
    path: PathBuf,
    space: XattrSpace,
}

/// A change. It keeps its parent directory open.
#[derive(Debug)]
pub struct Change {
    /// The path below the mount's root: clean and relative.
    pub path: Vec<u8>,
    /// The metadata.
    pub stat: Stat,
    /// What it is.
    pub kind: ChangeKind,
    /// The extended attributes, sorted, without those of overlayfs and without the SELinux label, which
    /// belongs to this machine.
    pub xattrs: Xattrs,
    parent: Arc<OwnedFd>,
}

impl Changes {
    /// Opens the changes in `upper`, where overlayfs's marks are in `space`.
    ///
    /// # Errors
    /// [`ChangesError::Marks`] if a process with `abilities` cannot read such marks, [`ChangesError::Fs`] if
    /// the directory cannot be opened.
    pub fn open(
        upper: &Path,
        space: XattrSpace,
        abilities: &Abilities,
    ) -> Result<Self, ChangesError> {
        if space == XattrSpace::Trusted && abilities.space == XattrSpace::User {
            let why = super::Capability::SysAdmin.lack();
            return Err(ChangesError::Marks { upper: upper.to_owned(), why });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(upper, flags, Mode::empty()).at("open", upper)?;
        Ok(Self { root: Arc::new(root), path: upper.to_owned(), space })
    }

    /// Opens the directory at `path`.
    fn open_dir(&self, path: &[u8]) -> Result<Arc<OwnedFd>, ChangesError> {
        let mut fd = self.root.clone();
        for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            fd = Arc::new(self.check(path, open_in(&*fd, name, DIRECTORY))?);
        }
        Ok(fd)
    }

    /// Returns the names in a directory, sorted.
    fn names(&self, dir: &OwnedFd, path: &[u8]) -> Result<Vec<Vec<u8>>, ChangesError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let list = self.check(path, fs::openat(dir, ".", flags, Mode::empty()))?;
        let mut names = Vec::new();
        for found in self.check(path, Dir::read_from(&list))? {
            let found = self.check(path, found)?;
            let name = found.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort();
        Ok(names)
    }

    fn change(&self, dir: &Arc<OwnedFd>, path: Vec<u8>) -> Result<Change, ChangesError> {
        let (_, name) = super::split(&path);
        if name.starts_with(WHITEOUT_PREFIX) {
            return Err(unsupported(
                &path,
                "a name that begins with .wh. is a whiteout in a layer",
            ));
        }
        let stat = self.check(&path, fs::statat(&**dir, name, AtFlags::SYMLINK_NOFOLLOW))?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let (xattrs, marks) = if is_whiteout(&stat) {
            (Vec::new(), Marks::default())
        } else {
            let all = self.check(&path, all_xattrs(dir, name));
            self.sort_xattrs(all?, &path)?
        };
        let kind = match file_type {
            _ if is_whiteout(&stat) => ChangeKind::Whiteout,
            FileType::RegularFile if marks.whiteout && stat.st_size == 0 => ChangeKind::Whiteout,
            FileType::Directory => ChangeKind::Dir { opaque: marks.opaque },
            other => ChangeKind::Other(other),
        };
        Ok(Change { path, stat, kind, xattrs, parent: dir.clone() })
    }

    /// Separates overlayfs's marks from the other attributes.
    fn sort_xattrs(&self, all: Xattrs, path: &[u8]) -> Result<(Xattrs, Marks), ChangesError> {
        let (mut ordinary, mut marks) = (Vec::new(), Marks::default());
        for (name, value) in all {
            let trusted = name.strip_prefix(b"trusted.overlay.");
            let user = name.strip_prefix(b"user.overlay.");
            let mark = match self.space {
                XattrSpace::Trusted => trusted,
                XattrSpace::User => user,
            };
            match mark {
                Some(b"opaque") => marks.opaque |= value == b"y",
                Some(b"whiteout") => marks.whiteout = true,
                Some(b"redirect") => {
                    let why =
                        "it was renamed by a mount with redirect_dir, so its content is elsewhere";
                    return Err(unsupported(path, why));
                }
                Some(b"metacopy") => {
                    let why =
                        "it was changed by a mount with metacopy, so its content is elsewhere";
                    return Err(unsupported(path, why));
                }
                Some(_) => {}
                None if trusted.or(user).is_some() || name == b"security.selinux" => {}
                None => ordinary.push((name, value)),
            }
        }
        ordinary.sort();
        Ok((ordinary, marks))
    }

    /// Adds the path to the error of a system call.
    fn check<T>(
        &self,
        path: &[u8],
        result: Result<T, impl Into<io::Error>>,
    ) -> Result<T, ChangesError> {
        result.map_err(|error| match error.into() {
            // It was there a moment ago.
            e if is_change(&e) => ChangesError::Changed { path: below_root(path) },
            e => FsError { op: "read", path: self.host_path(path), source: e }.into(),
        })
    }

    fn host_path(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }

    /// Opens the regular file of `change` for reading.
    ///
    /// # Errors
    /// [`ChangesError::Changed`] if there is another file now.
    pub fn open_file(&self, change: &Change) -> Result<File, ChangesError> {
        let (_, name) = super::split(&change.path);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = self.check(&change.path, open_in(&*change.parent, name, flags))?;
        self.must_be_same(change, &fd)?;
        Ok(fd.into())
    }

    /// Checks that `file` is that of `change`, with the same size and times.
    ///
    /// # Errors
    /// [`ChangesError::Changed`] if not.
    pub fn must_be_same(
        &self,
        change: &Change,
        file: impl std::os::fd::AsFd,
    ) -> Result<(), ChangesError> {
        let now = self.check(&change.path, fs::fstat(file))?;
        let key = |stat: &Stat| {
            let modified = (stat.st_mtime, stat.st_mtime_nsec);
            (stat.st_dev, stat.st_ino, stat.st_size, modified, stat.st_ctime, stat.st_ctime_nsec)
        };
        if key(&now) == key(&change.stat) { Ok(()) } else { Err(change.changed()) }
    }

    /// Returns the target of a symlink.
    ///
    /// # Errors
    /// [`ChangesError`] if it cannot be read.
    pub fn read_link(&self, change: &Change) -> Result<Vec<u8>, ChangesError> {
        let (_, name) = super::split(&change.path);
        let target = fs::readlinkat(&*change.parent, name, Vec::new());
        Ok(self.check(&change.path, target)?.into_bytes())
    }

    /// Adds the path of `change` to an error of reading its file.
    pub fn read_error(&self, change: &Change, source: io::Error) -> ChangesError {
        FsError { op: "read", path: self.host_path(&change.path), source }.into()
    }
}

impl Change {
    /// Returns how many names its file has.
    #[allow(clippy::useless_conversion, reason = "the type differs between architectures")]
    pub fn links(&self) -> u64 {
        u64::from(self.stat.st_nlink)
    }

    /// Returns the error for a file that changed while it was read.
    pub fn changed(&self) -> ChangesError {
        ChangesError::Changed { path: below_root(&self.path) }
    }
}

/// The marks of a file or directory.
#[derive(Default)]
struct Marks {
    opaque: bool,
    whiteout: bool,
}

fn is_change(error: &io::Error) -> bool {
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::INVAL, Errno::STALE]
        .iter()
        .any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

fn below_root(path: &[u8]) -> PathBuf {
    Path::new("/").join(OsStr::from_bytes(path))
}

fn unsupported(path: &[u8], why: &'static str) -> ChangesError {
    ChangesError::Unsupported { path: below_root(path), why }
}

fn all_xattrs(dir: &OwnedFd, name: &[u8]) -> io::Result<Xattrs> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let names = match grow(|buffer| fs::llistxattr(&*path, buffer)) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut found = Vec::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        match grow(|buffer| fs::lgetxattr(&*path, name, buffer)) {
            Ok(value) => found.push((name.to_vec(), value)),
            // It was removed meanwhile, or a security module makes it up.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
