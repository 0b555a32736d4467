//! File operations that cannot leave a layer's `diff` directory.
//!
//! The kernel resolves every path relative to the directory's descriptor with openat2(2): a
//! path without symlinks with `RESOLVE_BENEATH`, a parent that is a symlink of the same layer
//! with `RESOLVE_IN_ROOT`, so that an absolute target is relative to the layer's root, as in
//! dockerd, which unpacks in a chroot.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::abilities::{Abilities, USER_OPAQUE, XattrSpace};

/// Open directory descriptors per layer at most.
const CACHED_DIRS: usize = 128;

/// An open directory of the layer.
#[derive(Debug)]
pub struct DirHandle {
    fd: OwnedFd,
    /// The group that owns the directory; new entries may inherit it.
    pub gid: u32,
    /// Whether new directories in it inherit its setgid bit.
    pub setgid: bool,
    /// Whether its path contained a symlink.
    pub through_symlink: bool,
}

impl AsFd for DirHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The `diff` directory of one layer, with a cache of open directories below it: most entries of
/// an archive are in the same directory as a recent one.
#[derive(Debug)]
pub struct DiffDir {
    root: OwnedFd,
    abilities: Arc<Abilities>,
    umask: u32,
    cache: HashMap<Vec<u8>, Arc<DirHandle>>,
    last: Option<(Vec<u8>, Arc<DirHandle>)>,
}

impl DiffDir {
    /// Opens the directory at `path`, which must exist, to read its files.
    ///
    /// # Errors
    /// The error of open(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_to_fill(path, Arc::new(Abilities::none()))
    }

    /// Opens the empty directory at `path` to unpack a layer into it with `abilities`.
    ///
    /// # Errors
    /// The error of open(2).
    pub fn open_to_fill(path: &Path, abilities: Arc<Abilities>) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(path, flags, Mode::empty())?;
        Ok(Self { root, abilities, umask: umask(), cache: HashMap::new(), last: None })
    }

    /// Returns what this process may do with the files.
    pub fn abilities(&self) -> &Arc<Abilities> {
        &self.abilities
    }

    /// Returns the mode bits that the kernel clears on files that this process creates.
    pub fn umask(&self) -> u32 {
        self.umask
    }

    /// Returns the directory at `path` (clean, relative, empty for the root). Creates it and its
    /// parents with mode 0755 if missing, as dockerd does for implied parents.
    ///
    /// # Errors
    /// `NotADirectory` if a part of the path is a file, and the errors of the system calls.
    pub fn dir(&mut self, path: &[u8]) -> io::Result<Arc<DirHandle>> {
        if let Some(handle) = self.cached(path) {
            return Ok(handle);
        }
        let made = self.open_or_make(path)?;
        Ok(self.insert(path, made))
    }

    /// Returns the directory at `path` if it exists and no part of the path is a symlink.
    ///
    /// # Errors
    /// The errors of openat2(2), except those for a missing directory.
    pub fn real_dir(&mut self, path: &[u8]) -> io::Result<Option<Arc<DirHandle>>> {
        if let Some(handle) = self.cached(path) {
            return Ok(Some(handle).filter(|handle| !handle.through_symlink));
        }
        match self.resolve(path, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
            Ok(fd) => {
                let opened = handle(fd, false)?;
                Ok(Some(self.insert(path, opened)))
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn cached(&mut self, path: &[u8]) -> Option<Arc<DirHandle>> {
        if let Some((last, handle)) = &self.last
            && last == path
        {
            return Some(handle.clone());
        }
        let handle = self.cache.get(path)?.clone();
        self.last = Some((path.to_vec(), handle.clone()));
        Some(handle)
    }

    fn insert(&mut self, path: &[u8], opened: DirHandle) -> Arc<DirHandle> {
        let handle = Arc::new(opened);
        if self.cache.len() >= CACHED_DIRS {
            self.cache.clear();
        }
        self.cache.insert(path.to_vec(), handle.clone());
        self.last = Some((path.to_vec(), handle.clone()));
        handle
    }

    /// Opens the existing directory at `path`.
    ///
    /// # Errors
    /// The error of openat2(2).
    pub fn existing_dir(&self, path: &[u8]) -> io::Result<DirHandle> {
        match self.resolve(path, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
            Ok(fd) => handle(fd, false),
            Err(Errno::LOOP) => handle(self.resolve(path, ResolveFlags::IN_ROOT)?, true),
            Err(e) => Err(e.into()),
        }
    }

    /// Opens the regular file at `path` for reading. Its parents may be symlinks inside the layer;
    /// the file itself must not be one.
    ///
    /// # Errors
    /// The error of openat2(2); `InvalidInput` if it is not a regular file.
    pub fn open_file(&self, path: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let fd = retry(|| fs::openat2(&self.root, path, flags, Mode::empty(), how))?;
        if FileType::from_raw_mode(fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(File::from(fd))
    }

    /// Marks the directory opaque, which hides its content in lower layers.
    ///
    /// # Errors
    /// The error of fsetxattr(2).
    pub fn set_opaque(&self, dir: &DirHandle) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::openat(dir, ".", flags, Mode::empty())?;
        Ok(fs::fsetxattr(&fd, self.abilities.space.opaque(), b"y", XattrFlags::empty())?)
    }

    /// Returns whether the directory is marked opaque for mounts with `userxattr`.
    ///
    /// # Errors
    /// The error of fgetxattr(2).
    pub fn is_marked_for_users(&self, dir: &DirHandle) -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::openat(dir, ".", flags, Mode::empty())?;
        let mut value = [0; 1];
        match fs::fgetxattr(&fd, USER_OPAQUE, &mut value) {
            Ok(1) => Ok(value == *b"y"),
            Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Marks the whiteout `name` opaque as dockerd does, although this hides nothing more. Does
    /// nothing without the privilege for it.
    ///
    /// # Errors
    /// The error of lsetxattr(2).
    pub fn set_whiteout_opaque(&self, dir: &DirHandle, name: &[u8]) -> io::Result<()> {
        if self.abilities.space == XattrSpace::User {
            // A device cannot have an attribute of that namespace.
            return Ok(());
        }
        let path = proc_path(dir, name);
        Ok(fs::lsetxattr(path, self.abilities.space.opaque(), b"y", XattrFlags::empty())?)
    }

    /// Creates an unnamed file on the file system of the layer; it is removed when it is closed.
    ///
    /// # Errors
    /// The error of openat(2) with `O_TMPFILE`.
    pub fn temp_file(&self) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        Ok(File::from(fs::openat(&self.root, ".", flags, Mode::from_raw_mode(0o600))?))
    }

    /// Returns the path of `dir` relative to the root, with symlinks resolved.
    ///
    /// # Errors
    /// An error if /proc is not mounted.
    pub fn real_path(&self, dir: &DirHandle) -> io::Result<Vec<u8>> {
        let of = |fd: BorrowedFd<'_>| {
            let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
            std::fs::read_link(link).map(|path| path.into_os_string().into_vec())
        };
        let (root, dir) = (of(self.root.as_fd())?, of(dir.as_fd())?);
        let below = dir.strip_prefix(root.as_slice()).unwrap_or(b"");
        Ok(below.strip_prefix(b"/").unwrap_or(below).to_vec())
    }

    /// Closes the cached directories. Must be called after the removal of a directory or symlink,
    /// which may be part of any cached path, and after a change of a directory's group or setgid
    /// bit. Creating a name invalidates no cached path, since no path through it existed.
    pub fn clear_cache(&mut self) {
        self.cache.clear();
        self.last = None;
    }

    fn resolve(&self, path: &[u8], how: ResolveFlags) -> Result<OwnedFd, Errno> {
        let path: &[u8] = if path.is_empty() { b"." } else { path };
        let how = how | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        retry(|| fs::openat2(&self.root, path, flags, Mode::empty(), how))
    }

    fn open_or_make(&mut self, path: &[u8]) -> io::Result<DirHandle> {
        let error = match self.existing_dir(path) {
            Ok(handle) => return Ok(handle),
            Err(e) => e,
        };
        let missing = error.kind() == io::ErrorKind::NotFound;
        if path.is_empty() || !(missing || error.kind() == io::ErrorKind::NotADirectory) {
            return Err(error);
        }
        let (parent, name) = split(path);
        let parent = self.dir(parent)?;
        match stat(&parent, name)? {
            None => {}
            Some(stat) if is_whiteout(&stat) => {
                fs::unlinkat(&*parent, name, AtFlags::empty())?;
            }
            Some(_) => return Err(error),
        }
        make_dir(&*parent, name, 0o755, self.umask)?;
        // It may have inherited the group; in dockerd, implied parents belong to root.
        if let Some((uid, gid)) = self.abilities.owners.to_set_on_new(0, 0, parent.gid) {
            fs::chownat(&*parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        handle(fs::openat(&*parent, name, flags, Mode::empty())?, parent.through_symlink)
    }
}

/// Returns the metadata of `name` without following a symlink; `None` if it does not exist.
///
/// # Errors
/// The error of fstatat(2).
pub fn stat(dir: &DirHandle, name: &[u8]) -> io::Result<Option<Stat>> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Returns the names in `dir`, in no particular order.
///
/// # Errors
/// The error of openat(2) or getdents(2).
pub fn list(dir: &DirHandle) -> io::Result<Vec<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = fs::openat(dir, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&fd)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Returns whether this is an overlayfs whiteout: a character device 0:0.
pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Creates the directory `name` with exactly `mode`.
///
/// # Errors
/// The error of mkdirat(2) or fchmodat(2).
pub fn make_dir(dir: impl AsFd, name: &[u8], mode: u32, umask: u32) -> io::Result<()> {
    fs::mkdirat(&dir, name, Mode::from_raw_mode(mode))?;
    // The kernel applies the umask, and mkdir never sets setuid or setgid.
    if mode & (umask | 0o6000) != 0 {
        fs::chmodat(&dir, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
    }
    Ok(())
}

/// Creates an overlayfs whiteout at `name`.
///
/// # Errors
/// The error of mknodat(2).
pub fn make_whiteout(dir: &DirHandle, name: &[u8]) -> io::Result<()> {
    Ok(fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)?)
}

/// Returns a path to `name` in `dir` for system calls that take no descriptor, like lsetxattr(2).
pub fn proc_path(dir: &DirHandle, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// Splits a clean relative path into parent and last name.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn handle(fd: OwnedFd, through_symlink: bool) -> io::Result<DirHandle> {
    let stat = fs::fstat(&fd)?;
    let setgid = stat.st_mode & 0o2000 != 0;
    Ok(DirHandle { fd, gid: stat.st_gid, setgid, through_symlink })
}

/// Repeats openat2(2), which fails with EAGAIN with a `RESOLVE_` flag during a concurrent rename.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Reads the umask from /proc, because umask(2) would change it for all threads.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    // If it is unknown, every bit has to be set explicitly.
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o777)
}
