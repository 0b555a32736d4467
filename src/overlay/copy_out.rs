//! Copies of files of a merged tree in a directory of this machine.
//!
//! The kernel resolves every name in an open directory of the copy and follows no symlink, so nothing is
//! written outside of it, whatever it contains already.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::merged::{Entry, MergedTree, open_in};
use super::split;
use crate::fsutil::{At, FsError};

/// What this process may not set on the copies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotCopied {
    /// Files whose owner is not kept.
    pub owners: u64,
    /// Devices that are left out.
    pub devices: u64,
    /// Extended attributes that are left out.
    pub attributes: u64,
}

/// The metadata of copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyMetadata {
    /// All of it.
    Owners,
    /// All but the owners: copies belong to this process.
    NoOwners,
    /// Modes with which this process can read the copies, and times. Devices are left out. Something else
    /// has the rest, so nothing of it is counted.
    Readable,
}

/// Copies files of a merged tree.
pub struct CopyOut<'a> {
    tree: &'a MergedTree,
    metadata: CopyMetadata,
    /// Returns the modification time of a copy.
    mtime: &'a dyn Fn(&Entry) -> Timespec,
    not_copied: NotCopied,
    /// The paths in the copy of files with several names.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// A directory of the copy.
struct OpenDir {
    /// The path below the directory that is copied to.
    path: Vec<u8>,
    fd: OwnedFd,
    /// The entry whose metadata it gets after its content is there; `None` if it existed before.
    entry: Option<Entry>,
}

impl<'a> CopyOut<'a> {
    /// Copies files of `tree`, with `metadata`, and with the times that `mtime` returns.
    pub fn new(
        tree: &'a MergedTree,
        metadata: CopyMetadata,
        mtime: &'a dyn Fn(&Entry) -> Timespec,
    ) -> Self {
        let (not_copied, links) = (NotCopied::default(), HashMap::new());
        Self { tree, metadata, mtime, not_copied, links }
    }

    /// Copies `entry`, a directory with its content, to `name` in the directory `to`. A file there is
    /// replaced, and a directory is filled.
    ///
    /// # Errors
    /// [`FsError`] if a file cannot be read or written; `AlreadyExists` if a directory is in place of a file,
    /// or a file in place of a directory.
    pub fn copy(
        mut self,
        entry: &Entry,
        to: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<NotCopied, FsError> {
        if !entry.is_dir() {
            self.file(entry, to, to, name, name)?;
            return Ok(self.not_copied);
        }
        let top = self.dir(entry, to, name, Vec::new())?;
        self.content(entry, top)
    }

    /// Copies the content of the directory `dir` to the directory `to`, and its metadata if `with_metadata`.
    ///
    /// # Errors
    /// As for [`copy`](Self::copy).
    pub fn copy_content(
        mut self,
        dir: &Entry,
        to: OwnedFd,
        with_metadata: bool,
    ) -> Result<NotCopied, FsError> {
        let entry = with_metadata.then(|| dir.clone());
        self.content(dir, OpenDir { path: Vec::new(), fd: to, entry })
    }

    fn content(&mut self, dir: &Entry, top: OpenDir) -> Result<NotCopied, FsError> {
        let skipped = if dir.path.is_empty() { 0 } else { dir.path.len() + 1 };
        let mut open = vec![top];
        for entry in self.tree.walk(dir) {
            let entry = entry?;
            let path = entry.path[skipped..].to_vec();
            let (parent, name) = split(&path);
            while open.len() > 1 && open.last().is_some_and(|dir| dir.path != parent) {
                self.finish(open.pop())?;
            }
            let (Some(top), Some(last)) = (open.first(), open.last()) else { break };
            if entry.is_dir() {
                let made = self.dir(&entry, last.fd.as_fd(), name, path.clone())?;
                open.push(made);
            } else {
                self.file(&entry, top.fd.as_fd(), last.fd.as_fd(), name, &path)?;
            }
        }
        while !open.is_empty() {
            self.finish(open.pop())?;
        }
        Ok(self.not_copied)
    }

    /// Creates a directory, or opens the one that exists.
    fn dir(
        &mut self,
        entry: &Entry,
        to: BorrowedFd<'_>,
        name: &[u8],
        path: Vec<u8>,
    ) -> Result<OpenDir, FsError> {
        let created = match fs::mkdirat(to, name, Mode::RWXU) {
            Ok(()) => Some(entry.clone()),
            Err(Errno::EXIST) => None,
            Err(e) => return Err(e).at("create the copy of", &entry.host_path()),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match open_in(to, name, flags) {
            Ok(fd) => Ok(OpenDir { path, fd, entry: created }),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                Err(in_the_way("a file is in place of the directory"))
                    .at("create the copy of", &entry.host_path())
            }
            Err(e) => Err(e).at("create the copy of", &entry.host_path()),
        }
    }

    /// Sets the metadata of a directory whose content is complete.
    fn finish(&mut self, dir: Option<OpenDir>) -> Result<(), FsError> {
        let Some(OpenDir { fd, entry: Some(entry), .. }) = dir else { return Ok(()) };
        self.set_metadata(&entry, fd.as_fd(), b".")
    }

    /// Copies what is not a directory to `name` in `to`, which is `path` below `top`.
    fn file(
        &mut self,
        entry: &Entry,
        top: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> Result<(), FsError> {
        let at = || entry.host_path();
        match fs::unlinkat(to, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) if is_dir(to, name) => {
                let error = in_the_way("a directory is in place of the file");
                return Err(error).at("create the copy of", &at());
            }
            Err(e) => return Err(e).at("create the copy of", &at()),
        }
        let is_device = matches!(entry.kind(), FileType::CharacterDevice | FileType::BlockDevice);
        if is_device && self.metadata == CopyMetadata::Readable {
            return Ok(());
        }
        let key = (entry.stat.st_dev, entry.stat.st_ino);
        if entry.links() > 1 {
            if let Some(first) = self.links.get(&key) {
                return link(top, first, to, name).at("create the copy of", &at());
            }
            self.links.insert(key, path.to_vec());
        }
        match entry.kind() {
            FileType::RegularFile => return self.regular(entry, to, name),
            FileType::Symlink => {
                fs::symlinkat(entry.read_link()?, to, name).at("create the copy of", &at())?;
            }
            kind @ (FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo) => {
                match fs::mknodat(to, name, kind, Mode::RUSR | Mode::WUSR, entry.stat.st_rdev) {
                    Err(Errno::PERM) if kind != FileType::Fifo => {
                        self.not_copied.devices += 1;
                        self.links.remove(&key);
                        return Ok(());
                    }
                    other => other.at("create the copy of", &at())?,
                }
            }
            // A socket belongs to the process that listens on it.
            _ => {
                self.links.remove(&key);
                return Ok(());
            }
        }
        self.set_metadata(entry, to, name)
    }

    fn regular(&mut self, entry: &Entry, to: BorrowedFd<'_>, name: &[u8]) -> Result<(), FsError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = fs::openat(to, name, flags | OFlags::NOFOLLOW, Mode::RUSR | Mode::WUSR);
        let mut copy = File::from(fd.at("create the copy of", &entry.host_path())?);
        if entry.stat.st_size > 0 {
            let mut file = entry.open()?;
            let ranges = entry.data_ranges(&file)?;
            copy_data(&mut file, &mut copy, ranges, entry.stat.st_size)
                .at("copy", &entry.host_path())?;
        }
        drop(copy);
        self.set_metadata(entry, to, name)
    }

    /// Sets owner, attributes, mode and times, in this order, because a change of the owner clears bits of
    /// the mode and file capabilities.
    fn set_metadata(
        &mut self,
        entry: &Entry,
        to: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), FsError> {
        let at = || entry.host_path();
        let stat = &entry.stat;
        if self.metadata == CopyMetadata::Owners {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            match fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::PERM | Errno::INVAL) => self.not_copied.owners += 1,
                other => other.at("set the owner of the copy of", &at())?,
            }
        }
        let is_readable = self.metadata == CopyMetadata::Readable;
        let xattrs = if is_readable { Vec::new() } else { entry.xattrs()? };
        let mut path = format!("/proc/self/fd/{}/", to.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        for (attribute, value) in xattrs {
            match fs::lsetxattr(&*path, &*attribute, &value, XattrFlags::empty()) {
                Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => {
                    self.not_copied.attributes += 1;
                }
                other => other.at("set an attribute of the copy of", &at())?,
            }
        }
        if entry.kind() != FileType::Symlink {
            let readable = match entry.is_dir() {
                _ if !is_readable => 0,
                true => 0o700,
                false => 0o600,
            };
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777 | readable);
            fs::chmodat(to, name, mode, AtFlags::empty())
                .at("set the mode of the copy of", &at())?;
        }
        let mtime = (self.mtime)(entry);
        let times = Timestamps { last_access: mtime, last_modification: mtime };
        fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .at("set the times of the copy of", &at())
    }
}

/// Copies the ranges that have data, or all of it.
fn copy_data(
    from: &mut File,
    to: &mut File,
    ranges: Option<Vec<Range<u64>>>,
    size: i64,
) -> io::Result<()> {
    let Some(ranges) = ranges else { return io::copy(from, to).map(drop) };
    for range in ranges {
        from.seek(SeekFrom::Start(range.start))?;
        to.seek(SeekFrom::Start(range.start))?;
        io::copy(&mut from.take(range.end - range.start), to)?;
    }
    to.set_len(u64::try_from(size).unwrap_or(0))
}

fn in_the_way(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, what.to_owned())
}

fn is_dir(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Links the file at `first` below `top` to `name` in `to`, without following a symlink.
fn link(top: BorrowedFd<'_>, first: &[u8], to: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (parent, last) = split(first);
    let parent = if parent.is_empty() { b"." } else { parent };
    let parent = open_in(top, parent, flags | OFlags::DIRECTORY)?;
    fs::linkat(&parent, last, to, name, AtFlags::empty())
}
