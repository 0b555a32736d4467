//! A file or directory of the merged tree.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::fsutil::{At, FsError};

/// The largest value of an attribute (XATTR_SIZE_MAX), and the longest list of names, bytes.
const MAX_XATTR: usize = 64 << 10;

/// Ranges of a sparse file at most. A file with more of them is read with its holes.
const MAX_RANGES: usize = 1 << 14;

/// The directory of one layer, open.
#[derive(Debug)]
pub struct LayerRoot {
    /// The open directory.
    pub fd: OwnedFd,
    /// Its path, for errors.
    pub path: PathBuf,
}

/// The names and values of extended attributes.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// A file or directory of the merged tree. It keeps its parent directory open.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The path below the root: clean, relative, empty for the root itself.
    pub path: Vec<u8>,
    /// Its metadata, which for a directory is that of the topmost layer.
    pub stat: Stat,
    /// The layers that have it, topmost first; one for everything but directories.
    pub(super) layers: Vec<u16>,
    /// The topmost of them.
    pub(super) root: Arc<LayerRoot>,
    /// The directory of that layer that contains it.
    pub(super) parent: Arc<OwnedFd>,
}

impl Entry {
    /// Returns the type of the file.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// Returns whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// Returns the last part of the path, or `.` for the root.
    pub fn name(&self) -> &[u8] {
        match crate::overlay::split(&self.path).1 {
            b"" => b".",
            name => name,
        }
    }

    /// Returns the number of names that it has in its layer.
    #[allow(clippy::useless_conversion, reason = "it has another width on other machines")]
    pub fn links(&self) -> u64 {
        u64::from(self.stat.st_nlink)
    }

    /// Returns the position in the stack of the topmost layer that has it; the topmost layer is 0.
    pub fn layer(&self) -> usize {
        self.layers.first().map_or(0, |&layer| layer.into())
    }

    /// Returns the path of the file in its layer.
    pub fn host_path(&self) -> PathBuf {
        self.root.path.join(PathBuf::from(std::ffi::OsString::from_vec(self.path.clone())))
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// [`FsError`] with the error of openat2(2), which is `PermissionDenied` if this user may not read it.
    pub fn open(&self) -> Result<File, FsError> {
        let path = self.host_path();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = open_in(&*self.parent, self.name(), flags).at("open", &path)?;
        let is_file = FileType::from_raw_mode(fs::fstat(&fd).at("open", &path)?.st_mode)
            == FileType::RegularFile;
        if !is_file {
            let changed = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            return Err(changed).at("open", &path);
        }
        Ok(File::from(fd))
    }

    /// Returns the ranges of `file`, which [`open`](Self::open) returned, that have data; `None` if it has
    /// no holes, or too many of them.
    ///
    /// # Errors
    /// [`FsError`] with the error of lseek(2).
    pub fn data_ranges(&self, file: &File) -> Result<Option<Vec<Range<u64>>>, FsError> {
        let size = u64::try_from(self.stat.st_size).unwrap_or(0);
        // Most files have none, and the number of blocks shows it.
        if u64::try_from(self.stat.st_blocks).unwrap_or(0).saturating_mul(512) >= size {
            return Ok(None);
        }
        data_ranges(file, size).at("read", &self.host_path())
    }

    /// Returns the target of a symlink.
    ///
    /// # Errors
    /// [`FsError`] with the error of readlinkat(2).
    pub fn read_link(&self) -> Result<Vec<u8>, FsError> {
        let target = fs::readlinkat(&*self.parent, self.name(), Vec::new());
        Ok(target.at("read the link", &self.host_path())?.into_bytes())
    }

    /// Returns the extended attributes, sorted, without those that overlayfs uses itself and without the
    /// SELinux label, which belongs to this machine.
    ///
    /// # Errors
    /// [`FsError`] with the error of llistxattr(2) or lgetxattr(2); `Unsupported` for a file of a mount with
    /// `redirect_dir` or `metacopy`, whose content is elsewhere.
    pub fn xattrs(&self) -> Result<Xattrs, FsError> {
        self.read_xattrs().at("read the attributes of", &self.host_path())
    }

    fn read_xattrs(&self) -> io::Result<Xattrs> {
        let mut path = format!("/proc/self/fd/{}/", self.parent.as_raw_fd()).into_bytes();
        path.extend_from_slice(self.name());
        let names = match grow(|buffer| fs::llistxattr(&*path, buffer)) {
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            names => names?,
        };
        let mut found = Vec::new();
        for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            match classify(name) {
                XattrClass::Ordinary => {}
                XattrClass::Dropped => continue,
                XattrClass::Elsewhere => {
                    let why = "its content is elsewhere (redirect_dir or metacopy of overlayfs)";
                    return Err(io::Error::new(io::ErrorKind::Unsupported, why));
                }
            }
            match grow(|buffer| fs::lgetxattr(&*path, name, buffer)) {
                Ok(value) => found.push((name.to_vec(), value)),
                // It was removed meanwhile.
                Err(Errno::NODATA) => {}
                Err(e) => return Err(e.into()),
            }
        }
        found.sort();
        Ok(found)
    }
}

fn data_ranges(file: &File, size: u64) -> io::Result<Option<Vec<Range<u64>>>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < size && found.len() <= MAX_RANGES {
        let start = match fs::seek(file, fs::SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            // The file system does not know holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        if start >= size {
            break;
        }
        at = fs::seek(file, fs::SeekFrom::Hole(start))?.clamp(start + 1, size);
        found.push(start..at);
    }
    fs::seek(file, fs::SeekFrom::Start(0))?;
    let is_whole = matches!(found.as_slice(), [all] if *all == (0..size));
    Ok((!is_whole && found.len() <= MAX_RANGES).then_some(found))
}

/// Calls `read` with a small buffer, which is enough for most files, and then with the largest.
///
/// # Errors
/// The error of `read`.
pub fn grow(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256];
    let length = match read(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.resize(MAX_XATTR, 0);
            read(&mut buffer)?
        }
        length => length?,
    };
    buffer.truncate(length);
    Ok(buffer)
}

enum XattrClass {
    Ordinary,
    Dropped,
    Elsewhere,
}

fn classify(name: &[u8]) -> XattrClass {
    let of_overlay = [&b"trusted.overlay."[..], b"user.overlay."]
        .iter()
        .find_map(|prefix| name.strip_prefix(*prefix));
    match of_overlay {
        Some(b"redirect" | b"metacopy") => XattrClass::Elsewhere,
        Some(_) => XattrClass::Dropped,
        None if name == b"security.selinux" => XattrClass::Dropped,
        None => XattrClass::Ordinary,
    }
}

/// Opens `name`, a single name, in `dir`.
///
/// # Errors
/// The error of openat2(2).
pub fn open_in(dir: impl AsFd, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let how = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    loop {
        match fs::openat2(dir.as_fd(), name, flags, Mode::empty(), how) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}
