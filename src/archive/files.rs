//! The files of an archive: in a tar that can be read at any position, or in a directory. Everything in
//! it is hostile: names that climb, links, duplicates, files that are not regular.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::error::ArchiveError;
use crate::layer::{IndexedKind, index_tar};

/// Entries of a tar at most; one image has at most a few hundred.
const MAX_ENTRIES: u64 = 1 << 17;

/// Bytes of all names, link targets and extended headers of a tar at most.
const MAX_NAMES: u64 = 32 << 20;

/// Bytes of a document at most. Those of real images have a few KiB.
pub const MAX_DOCUMENT: u64 = 8 << 20;

/// Links that are followed to a file at most.
const MAX_LINKS: usize = 8;

/// The files of an archive.
pub enum Files {
    /// In a tar: where each path is.
    Tar(HashMap<String, Place>),
    /// In a directory.
    Dir(OwnedFd),
}

/// What a path of a tar is.
pub enum Place {
    /// A file.
    File(FileRange),
    /// A link to a path in the tar.
    Link(String),
}

/// A file, or a part of one.
#[derive(Debug, Clone)]
pub struct FileRange {
    file: Arc<File>,
    offset: u64,
    size: u64,
}

impl Files {
    /// Lists the files of a tar.
    ///
    /// # Errors
    /// [`ArchiveError::Tar`] if it is not a tar, or is too large.
    pub fn of_tar(tar: File) -> Result<Self, ArchiveError> {
        let entries = index_tar(&tar, MAX_ENTRIES, MAX_NAMES).map_err(ArchiveError::Tar)?;
        let file = Arc::new(tar);
        let mut places = HashMap::new();
        for entry in entries {
            let Some(path) = std::str::from_utf8(&entry.name).ok().and_then(|it| clean("", it))
            else {
                continue;
            };
            let target = |target: &[u8], base: &str| clean(base, std::str::from_utf8(target).ok()?);
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            let place = match entry.kind {
                IndexedKind::File { offset, size } => {
                    Some(Place::File(FileRange { file: file.clone(), offset, size }))
                }
                IndexedKind::Symlink(link) => target(&link, directory).map(Place::Link),
                IndexedKind::Hardlink(link) => target(&link, "").map(Place::Link),
                IndexedKind::Other => None,
            };
            // The last entry of a name counts, as when the archive is unpacked.
            match place {
                Some(place) => drop(places.insert(path, place)),
                None => drop(places.remove(&path)),
            }
        }
        Ok(Self::Tar(places))
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// [`ArchiveError::Open`] if it cannot be opened.
    pub fn of_dir(path: &Path) -> Result<Self, ArchiveError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = rustix::fs::open(path, flags, Mode::empty());
        Ok(Self::Dir(open.map_err(|e| ArchiveError::open(path, e.into()))?))
    }

    /// Finds the file at `path`; `None` if there is no regular file, or a link leads out of the archive.
    ///
    /// # Errors
    /// [`ArchiveError::Read`] if it cannot be opened.
    pub fn find(&self, path: &str) -> Result<Option<FileRange>, ArchiveError> {
        let Some(mut path) = clean("", path) else { return Ok(None) };
        let places = match self {
            Self::Tar(places) => places,
            Self::Dir(dir) => return open_below(dir, &path),
        };
        for _ in 0..MAX_LINKS {
            match places.get(&path) {
                Some(Place::File(range)) => return Ok(Some(range.clone())),
                Some(Place::Link(target)) => path.clone_from(target),
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Returns the bytes of the document at `path`; `None` if there is no regular file.
    ///
    /// # Errors
    /// [`ArchiveError::Invalid`] if it has more than 8 MiB, [`ArchiveError::Read`] if it cannot be read.
    pub fn document(&self, path: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        let Some(range) = self.find(path)? else { return Ok(None) };
        if range.size > MAX_DOCUMENT {
            let size = range.size;
            let why = format!("{path} has {size} bytes, the limit is {MAX_DOCUMENT}");
            return Err(ArchiveError::Invalid(why));
        }
        let mut bytes = Vec::new();
        range.reader().read_to_end(&mut bytes).map_err(ArchiveError::Read)?;
        Ok(Some(bytes))
    }
}

impl FileRange {
    /// Returns its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns a reader of its bytes, from the first one on.
    pub fn reader(&self) -> RangeReader {
        RangeReader(self.clone())
    }
}

/// Reads a [`FileRange`]. Several can read one file at the same time.
pub struct RangeReader(FileRange);

impl Read for RangeReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let range = &mut self.0;
        let most = out.len().min(usize::try_from(range.size).unwrap_or(usize::MAX));
        let n = range.file.read_at(&mut out[..most], range.offset)?;
        range.offset += n as u64;
        range.size -= n as u64;
        Ok(n)
    }
}

/// Opens a regular file below `dir`, which no link can leave.
fn open_below(dir: &OwnedFd, path: &str) -> Result<Option<FileRange>, ArchiveError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(dir, path, flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP | Errno::NXIO) => {
            return Ok(None);
        }
        Err(e) => return Err(ArchiveError::Read(e.into())),
    };
    let meta = file.metadata().map_err(ArchiveError::Read)?;
    let range = || FileRange { file: Arc::new(file), offset: 0, size: meta.len() };
    Ok(meta.is_file().then(range))
}

/// Returns the path that `path` is below `base`, without `.` and `..`; `None` if it leads out of the
/// archive, or is empty.
fn clean(base: &str, path: &str) -> Option<String> {
    let base = if path.starts_with('/') { "" } else { base };
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_that_leads_out_of_the_archive_is_none() {
        for (base, path, expected) in [
            ("", "a/./b//c", Some("a/b/c")),
            ("", "/a", Some("a")),
            ("x", "../y/layer.tar", Some("y/layer.tar")),
            ("x", "/y", Some("y")),
            ("", "..", None),
            ("x", "../../etc/passwd", None),
            ("", "a/../../b", None),
            ("", ".", None),
        ] {
            assert_eq!(clean(base, path).as_deref(), expected, "{base} {path}");
        }
    }
}
