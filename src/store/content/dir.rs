//! Directories of the content store, and operations in them that follow no symbolic link.
//!
//! The archive of a CI cache can come from an untrusted source, and rpull often runs as root.
//! Every name is therefore resolved relative to an open directory, and symbolic links are
//! neither read nor written through.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, Access, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::fsutil::{self, At, FsError};

/// An open directory.
#[derive(Debug, Clone)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    path: PathBuf,
}

impl Dir {
    /// Opens the directory at a path that the user chose; `None` if it does not exist. The path
    /// may contain symbolic links, because it does not come from the cache.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be opened.
    pub fn open(path: &Path) -> Result<Option<Self>, FsError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd: Arc::new(fd), path: path.to_owned() })),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR) => Err(refused(path, "it is not a directory")),
            Err(e) => Err(e).at("open", path),
        }
    }

    /// Opens a directory in this one; `None` if it does not exist.
    ///
    /// # Errors
    /// [`FsError`], also if it is a symbolic link or not a directory.
    pub fn dir(&self, name: &str) -> Result<Option<Self>, FsError> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(&*self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd: Arc::new(fd), path })),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(match self.stat(name) {
                Some(stat) if is(&stat, FileType::Symlink) => refused(&path, LINK),
                _ => refused(&path, "it is not a directory"),
            }),
            Err(e) => Err(e).at("open", &path),
        }
    }

    /// Opens a directory in this one, or creates it with mode 0755.
    ///
    /// # Errors
    /// [`FsError`], also if it is a symbolic link or not a directory.
    pub fn ensure_dir(&self, name: &str) -> Result<Self, FsError> {
        if let Some(dir) = self.dir(name)? {
            return Ok(dir);
        }
        let path = self.path.join(name);
        let mode = Mode::from_raw_mode(0o755);
        let made = match fs::mkdirat(&*self.fd, name, mode) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(e) => return Err(e).at("create directory", &path),
        };
        let Some(dir) = self.dir(name)? else {
            return Err(Errno::NOENT).at("open", &path);
        };
        if made {
            fs::fchmod(&*dir.fd, mode).at("set the mode of", &path)?;
            self.sync()?;
        }
        Ok(dir)
    }

    /// Opens a regular file for reading. Other types of files count as absent.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be opened.
    pub fn file(&self, name: &str) -> Result<Option<File>, FsError> {
        // Only regular files are opened, since opening a device may have side effects.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = fs::statat(&*self.fd, name, AtFlags::SYMLINK_NOFOLLOW).and_then(|stat| {
            let regular = is(&stat, FileType::RegularFile);
            regular.then(|| fs::openat(&*self.fd, name, flags, Mode::empty())).transpose()
        });
        match opened {
            Ok(fd) => Ok(fd.map(File::from)),
            Err(Errno::NOENT | Errno::LOOP) => Ok(None),
            Err(e) => Err(e).at("open", &self.path.join(name)),
        }
    }

    /// Creates a file that must not exist, for writing, with mode 0644.
    ///
    /// # Errors
    /// The error of openat(2) or fchmod(2), for example if the file exists.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let mode = Mode::from_raw_mode(0o644);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&*self.fd, name, flags, mode)?;
        fs::fchmod(&fd, mode)?;
        Ok(File::from(fd))
    }

    /// Opens a regular file for reading and appending, with mode 0644 if it has to be made.
    ///
    /// # Errors
    /// [`FsError`], also if it is a symbolic link or not a regular file.
    pub fn read_write(&self, name: &str) -> Result<File, FsError> {
        let path = self.path.join(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mode = Mode::from_raw_mode(0o644);
        regular(fs::openat(&*self.fd, name, flags | OFlags::CLOEXEC, mode), &path)
    }

    /// Opens a lock file, creating it if it does not exist.
    ///
    /// # Errors
    /// [`FsError`], also if it is a symbolic link or not a regular file.
    pub fn lock_file(&self, name: &str) -> Result<File, FsError> {
        let path = self.path.join(name);
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = |more| fs::openat(&*self.fd, name, flags | more, Mode::from_raw_mode(0o644));
        let opened = match open(OFlags::RDWR | OFlags::CREATE) {
            // A file of another user can be locked when opened read-only.
            Err(Errno::ACCESS) => open(OFlags::RDONLY).map_err(|_| Errno::ACCESS),
            other => other,
        };
        regular(opened, &path)
    }

    /// Moves the file `name` of `from` to `to` in this directory, durably. Replaces an existing
    /// file or directory.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be renamed or synced.
    pub fn rename_from(&self, from: &Self, name: &str, to: &str) -> Result<(), FsError> {
        let path = self.path.join(to);
        let rename = || fs::renameat(&*from.fd, name, &*self.fd, to);
        match rename() {
            Err(Errno::ISDIR) => {
                fsutil::remove(&path)?;
                rename().at("write", &path)?;
            }
            other => other.at("write", &path)?,
        }
        self.sync()
    }

    /// Removes the file `name`, or a directory in its place. Does nothing if it does not exist.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be removed.
    pub fn unlink(&self, name: &str) -> Result<(), FsError> {
        match fs::unlinkat(&*self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => fsutil::remove(&self.path.join(name)),
            Err(e) => Err(e).at("remove", &self.path.join(name)),
        }
    }

    /// Returns the metadata of a name, without following a symbolic link; `None` on an error.
    pub fn stat(&self, name: &str) -> Option<Stat> {
        fs::statat(&*self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()
    }

    /// Returns whether `name` still refers to the open `file`.
    pub fn is_name_of(&self, name: &str, file: &File) -> bool {
        let (Some(named), Ok(open)) = (self.stat(name), fs::fstat(file)) else { return false };
        (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino)
    }

    /// Returns the UTF-8 names in the directory, in no particular order.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be read.
    pub fn list(&self) -> Result<Vec<String>, FsError> {
        let read = || {
            let mut names = Vec::new();
            for entry in fs::Dir::read_from(&*self.fd)? {
                let entry = entry?;
                let name = entry.file_name().to_str().ok();
                names.extend(name.filter(|name| !matches!(*name, "." | "..")).map(str::to_owned));
            }
            Ok::<_, Errno>(names)
        };
        read().at("list", &self.path)
    }

    /// Checks that this user can create names in the directory.
    ///
    /// # Errors
    /// [`FsError`] without the permission, or on a read-only file system.
    pub fn must_be_writable(&self) -> Result<(), FsError> {
        let access = Access::WRITE_OK | Access::EXEC_OK;
        fs::accessat(&*self.fd, ".", access, AtFlags::EACCESS).at("write to", &self.path)
    }

    /// Makes new names durable.
    ///
    /// # Errors
    /// [`FsError`] if fsync(2) fails.
    pub fn sync(&self) -> Result<(), FsError> {
        fs::fsync(&*self.fd).at("sync", &self.path)
    }

    /// Returns the path by which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

const LINK: &str = "it is a symbolic link, which rpull does not follow inside a content directory";

/// Returns whether `stat` is of a file of this type.
pub fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

/// Returns what openat(2) with `O_NOFOLLOW` opened, if it is a regular file.
fn regular(opened: Result<OwnedFd, Errno>, path: &Path) -> Result<File, FsError> {
    let file = match opened {
        Ok(fd) => File::from(fd),
        Err(Errno::LOOP) => return Err(refused(path, LINK)),
        Err(e) => return Err(e).at("open", path),
    };
    match file.metadata().at("look at", path)?.is_file() {
        true => Ok(file),
        false => Err(refused(path, "it is not a regular file")),
    }
}

fn refused(path: &Path, why: &str) -> FsError {
    FsError { op: "use", path: path.to_owned(), source: io::Error::other(why) }
}
