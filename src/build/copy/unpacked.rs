//! Archives that ADD unpacks. Their entries keep modes, owners and times, as in docker.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};

use rustix::fs::FileType;

use super::destination;
use super::error::{CopyError, text};
use super::hashing::HashingReader;
use crate::digest::Digest;
use crate::fsutil::At;
use crate::layer::{
    ArchiveEntry, EntryType, LayerError, NewEntry, TarDataError, TarWriter, is_tar, read_tar,
};
use crate::overlay::{Entry, Follow, MergedTree, split};

/// An archive to unpack.
#[derive(Debug)]
pub struct Unpacked {
    /// The path in the context or stage.
    path: Vec<u8>,
    size: u64,
    pub digest: Digest,
    /// The directory of the image.
    pub to: Vec<u8>,
    /// The directories of the archive, and where they are in the image, which can have symlinks in their
    /// place.
    dirs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Returns whether ADD unpacks the file.
pub fn is_archive(entry: &Entry) -> Result<bool, CopyError> {
    if entry.kind() != FileType::RegularFile || entry.stat.st_size == 0 {
        return Ok(false);
    }
    let file = BufReader::new(entry.open()?);
    is_tar(file).map_err(|source| CopyError::Archive { path: text(&entry.path), source })
}

impl Unpacked {
    /// Reads an archive. Calls `parent` with each directory of the image that must exist.
    pub fn read(
        entry: &Entry,
        to: &[u8],
        base: Option<&MergedTree>,
        mut parent: impl FnMut(&[u8], i64) -> Result<(), CopyError>,
    ) -> Result<Self, CopyError> {
        let mut file = entry.open()?;
        let size = u64::try_from(entry.stat.st_size).unwrap_or(0);
        let digest = Digest::of_reader(&mut file).at("read", &entry.host_path())?;
        let mut dirs = BTreeMap::from([(Vec::new(), to.to_vec())]);
        let file = BufReader::new(entry.open()?);
        let read = read_tar(file, |found, _| {
            let (dir, name) = split(&found.path);
            if !dirs.contains_key(dir) {
                let wanted = [b"/", &place(&dirs, dir)[..], b"/"].concat();
                let resolved = destination::resolve(base, &wanted)?.path;
                parent(&join(&resolved, b"x"), found.mtime.seconds)?;
                dirs.insert(dir.to_vec(), resolved);
            }
            if found.kind == EntryType::Dir && !dirs.contains_key(&found.path) {
                // It is a directory, also if the image has a symlink there.
                let own = join(&place(&dirs, dir), name);
                dirs.insert(found.path, own);
            }
            Ok(())
        });
        read.map_err(|failure: Failure| failure.of(&entry.path))?;
        Ok(Self { path: entry.path.clone(), size, digest, to: to.to_vec(), dirs })
    }

    /// Writes the entries.
    pub fn write(
        &self,
        tree: &MergedTree,
        tar: &mut TarWriter<impl Write>,
    ) -> Result<(), CopyError> {
        let changed = || CopyError::Changed(text(&self.path));
        let entry = tree.lookup(&self.path, Follow::No).map_err(|_| changed())?;
        if u64::try_from(entry.stat.st_size) != Ok(self.size) {
            return Err(changed());
        }
        let file = entry.open().map_err(|_| changed())?;
        let mut reader = HashingReader::new(file);
        let read =
            read_tar(BufReader::new(&mut reader), |found, data| self.entry(&found, data, tar));
        // A changed archive may be invalid for that reason.
        match read.map_err(|failure: Failure| failure.of(&self.path)) {
            Err(e @ CopyError::Write(_)) => Err(e),
            _ if reader.finish() != self.digest => Err(changed()),
            result => result,
        }
    }

    fn entry(
        &self,
        found: &ArchiveEntry,
        mut data: &mut dyn Read,
        tar: &mut TarWriter<impl Write>,
    ) -> Result<(), Failure> {
        let mut name = place(&self.dirs, &found.path);
        if found.kind == EntryType::Dir {
            name.push(b'/');
        }
        let link = match found.kind {
            EntryType::Hardlink => place(&self.dirs, &found.link),
            _ => found.link.clone(),
        };
        let header = NewEntry {
            name: &name,
            link: &link,
            kind: found.kind,
            mode: found.mode,
            uid: found.owner.0,
            gid: found.owner.1,
            mtime: found.mtime,
            device: found.device,
            xattrs: &found.xattrs,
            size: found.sparse.as_ref().map_or(found.size, |sparse| sparse.size),
            extents: found.sparse.as_ref().map(|sparse| &sparse.extents[..]),
        };
        tar.entry(&header).map_err(CopyError::Write)?;
        tar.data(&mut data, found.size).map_err(|error| match error {
            TarDataError::Write(e) => Failure::Copy(CopyError::Write(e)),
            TarDataError::Read(e) => Failure::Archive(LayerError::Source(e)),
        })
    }
}

/// Returns where a path of an archive is in the image, of which `dirs` has the directories.
fn place(dirs: &BTreeMap<Vec<u8>, Vec<u8>>, path: &[u8]) -> Vec<u8> {
    let mut end = path.len();
    while !dirs.contains_key(&path[..end]) && end > 0 {
        end = split(&path[..end]).0.len();
    }
    let dir = dirs.get(&path[..end]).map_or(&[][..], Vec::as_slice);
    let rest = &path[end..];
    join(dir, rest.strip_prefix(b"/").unwrap_or(rest))
}

/// Why an archive was not read.
enum Failure {
    Archive(LayerError),
    Copy(CopyError),
}

impl Failure {
    fn of(self, path: &[u8]) -> CopyError {
        match self {
            Self::Archive(source) => CopyError::Archive { path: text(path), source },
            Self::Copy(error) => error,
        }
    }
}

impl From<LayerError> for Failure {
    fn from(error: LayerError) -> Self {
        Self::Archive(error)
    }
}

impl From<CopyError> for Failure {
    fn from(error: CopyError) -> Self {
        Self::Copy(error)
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match (dir, name) {
        (b"", path) | (path, b"") => path.to_vec(),
        (dir, name) => [dir, b"/", name].concat(),
    }
}
