//! The tar of a merged tree, or of a part of it.

use std::collections::HashMap;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;

use rustix::fs::{self, FileType};

use super::tar::entry::EntryType;
use super::tar::header::Time;
use super::tar::sparse::Extent;
use super::tar::writer::{DataError, NewEntry, TarWriter};
use crate::fsutil::FsError;
use crate::overlay::{Entry, MergedTree};

/// Why a tree cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum TreeTarError {
    /// A file cannot be read, or was truncated meanwhile.
    #[error(transparent)]
    Read(#[from] FsError),
    /// The output cannot be written.
    #[error("cannot write the archive: {0}")]
    Write(#[source] io::Error),
}

/// The limits of modification times, seconds since 1970. Later times become the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatestTimes {
    /// For directories. One that no layer describes has the time at which its layer was unpacked.
    pub of_dirs: i64,
    /// For everything else.
    pub of_files: i64,
}

impl LatestTimes {
    /// Returns the modification time of an entry: seconds since 1970, and nanoseconds.
    pub fn limit(self, entry: &Entry) -> (i64, u32) {
        let latest = if entry.is_dir() { self.of_dirs } else { self.of_files };
        match entry.stat.st_mtime {
            seconds if seconds >= latest => (latest, 0),
            seconds => (seconds, u32::try_from(entry.stat.st_mtime_nsec).unwrap_or(0)),
        }
    }

    /// Changes no time.
    pub const ANY: Self = Self { of_dirs: i64::MAX, of_files: i64::MAX };
}

/// How a tree is written.
#[derive(Debug, Clone, Copy)]
pub struct TreeTarOptions {
    /// Whether the holes of sparse files are left out (PAX format 1.0 of GNU tar).
    pub sparse: bool,
    /// The limits of times.
    pub latest: LatestTimes,
}

/// Writes entries of a merged tree as a tar stream, sorted, with owners, modes, times, extended attributes,
/// hard links and devices. Sockets are left out, because tar has none.
pub struct TreeTar<W> {
    tar: TarWriter<W>,
    options: TreeTarOptions,
    /// Files with several names, of which some may follow.
    links: HashMap<(u64, u64), Linked>,
}

/// A file with several names.
struct Linked {
    /// The name in the archive.
    name: Vec<u8>,
    /// The names that have not been written.
    remaining: u64,
}

impl<W: Write> TreeTar<W> {
    /// Writes to `out`.
    pub fn new(out: W, options: TreeTarOptions) -> Self {
        Self { tar: TarWriter::new(out), options, links: HashMap::new() }
    }

    /// Writes `entry` with the name `name`.
    ///
    /// # Errors
    /// [`TreeTarError`].
    pub fn entry(&mut self, entry: &Entry, name: &[u8]) -> Result<(), TreeTarError> {
        let stat = &entry.stat;
        let Some(kind) = entry_type(entry.kind()) else { return Ok(()) };
        let directory_name;
        let name = if kind == EntryType::Dir {
            directory_name = [name, b"/"].concat();
            &directory_name
        } else {
            name
        };
        let (seconds, nanos) = self.options.latest.limit(entry);
        let mut header = NewEntry {
            name,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time { seconds, nanos },
            ..NewEntry::file()
        };
        if let Some(first) = self.first_name(entry, name) {
            header.kind = EntryType::Hardlink;
            header.link = &first;
            return self.tar.entry(&header).map_err(TreeTarError::Write);
        }
        let xattrs = entry.xattrs()?;
        header.xattrs = &xattrs;
        match kind {
            EntryType::File => return self.file(entry, header),
            EntryType::Char | EntryType::Block => {
                header.device = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
            }
            _ => {}
        }
        let target = if kind == EntryType::Symlink { entry.read_link()? } else { Vec::new() };
        header.link = &target;
        self.tar.entry(&header).map_err(TreeTarError::Write)
    }

    /// Writes everything below the directory `dir`, with names that begin with `prefix`, which is empty
    /// or ends with a slash.
    ///
    /// # Errors
    /// [`TreeTarError`].
    pub fn content(
        &mut self,
        tree: &MergedTree,
        dir: &Entry,
        prefix: &[u8],
    ) -> Result<(), TreeTarError> {
        let skipped = if dir.path.is_empty() { 0 } else { dir.path.len() + 1 };
        for entry in tree.walk(dir) {
            let entry = entry?;
            let name = [prefix, &entry.path[skipped..]].concat();
            self.entry(&entry, &name)?;
        }
        Ok(())
    }

    /// Writes the end of the archive. Returns the output.
    ///
    /// # Errors
    /// [`TreeTarError::Write`].
    pub fn finish(self) -> Result<W, TreeTarError> {
        self.tar.finish().map_err(TreeTarError::Write)
    }

    fn file(&mut self, entry: &Entry, header: NewEntry<'_>) -> Result<(), TreeTarError> {
        let size = u64::try_from(entry.stat.st_size).unwrap_or(0);
        let header = NewEntry { size, ..header };
        // An empty file can be written without the right to read it.
        if size == 0 {
            return self.tar.entry(&header).map_err(TreeTarError::Write);
        }
        let mut file = entry.open()?;
        let ranges = if self.options.sparse { entry.data_ranges(&file)? } else { None };
        let extents = ranges.map(|ranges| ranges.into_iter().map(extent).collect::<Vec<_>>());
        let extents = extents.filter(|extents| is_in_blocks(extents));
        let header = NewEntry { extents: extents.as_deref(), ..header };
        self.tar.entry(&header).map_err(TreeTarError::Write)?;
        let data = match &extents {
            None => self.tar.data(&mut file, size),
            Some(extents) => extents.iter().try_for_each(|extent| {
                file.seek(SeekFrom::Start(extent.offset.unsigned_abs()))
                    .map_err(DataError::Read)?;
                self.tar.data(&mut file, extent.length.unsigned_abs())
            }),
        };
        data.map_err(|error| match error {
            DataError::Write(e) => TreeTarError::Write(e),
            DataError::Read(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                let changed = io::Error::new(e.kind(), "the file was truncated meanwhile");
                FsError { op: "read", path: entry.host_path(), source: changed }.into()
            }
            DataError::Read(e) => FsError { op: "read", path: entry.host_path(), source: e }.into(),
        })
    }

    /// Returns the name with which the same file was written; notes a file with several names.
    fn first_name(&mut self, entry: &Entry, name: &[u8]) -> Option<Vec<u8>> {
        let (stat, links) = (&entry.stat, entry.links());
        if entry.is_dir() || links < 2 {
            return None;
        }
        let key = (stat.st_dev, stat.st_ino);
        let Some(linked) = self.links.get_mut(&key) else {
            self.links.insert(key, Linked { name: name.to_vec(), remaining: links - 1 });
            return None;
        };
        linked.remaining -= 1;
        let first = linked.name.clone();
        if linked.remaining == 0 {
            self.links.remove(&key);
        }
        Some(first)
    }
}

fn entry_type(kind: FileType) -> Option<EntryType> {
    Some(match kind {
        FileType::RegularFile => EntryType::File,
        FileType::Directory => EntryType::Dir,
        FileType::Symlink => EntryType::Symlink,
        FileType::CharacterDevice => EntryType::Char,
        FileType::BlockDevice => EntryType::Block,
        FileType::Fifo => EntryType::Fifo,
        _ => return None,
    })
}

/// Returns whether GNU tar can read the ranges: all but the last are whole blocks.
fn is_in_blocks(extents: &[Extent]) -> bool {
    let but_last = extents.split_last().map_or(&[][..], |(_, rest)| rest);
    but_last.iter().all(|extent| extent.length % 512 == 0)
}

fn extent(range: Range<u64>) -> Extent {
    let length = range.end - range.start;
    Extent { offset: range.start.cast_signed(), length: length.cast_signed() }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::overlay::{MergedLayer, OpaqueDirs};

    fn extracted(dir: &std::path::Path, sparse: bool) -> std::path::PathBuf {
        let layer = MergedLayer::open(&dir.join("layer"), OpaqueDirs::Marked(Vec::new())).unwrap();
        let tree = MergedTree::new(vec![layer]);
        let options = TreeTarOptions { sparse, latest: LatestTimes::ANY };
        let mut tar = TreeTar::new(Vec::new(), options);
        tar.content(&tree, &tree.root().unwrap(), b"").unwrap();
        let out = dir.join(format!("out-{sparse}"));
        std::fs::create_dir(&out).unwrap();
        std::fs::write(dir.join("tar"), tar.finish().unwrap()).unwrap();
        let mut command = Command::new("tar");
        let status = command.arg("-C").arg(&out).arg("-xf").arg(dir.join("tar")).status().unwrap();
        assert!(status.success());
        out
    }

    #[test]
    fn sparse_file_keeps_its_content_with_and_without_holes() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("layer")).unwrap();
        type Case<'a> = (&'a str, u64, &'a [(u64, &'a [u8])]);
        let cases: [Case<'_>; 5] = [
            ("middle", 4 << 20, &[(1 << 20, b"abc")]),
            ("start", 4 << 20, &[(0, b"abc")]),
            ("end", (4 << 20) + 3, &[(4 << 20, b"abc")]),
            ("several", 4 << 20, &[(0, b"a"), (1 << 20, b"b"), (3 << 20, b"c")]),
            ("empty", 4 << 20, &[]),
        ];
        for (name, size, parts) in cases {
            let file = std::fs::File::create(dir.path().join("layer").join(name)).unwrap();
            for (at, bytes) in parts {
                std::os::unix::fs::FileExt::write_all_at(&file, bytes, *at).unwrap();
            }
            file.set_len(size).unwrap();
        }
        for sparse in [true, false] {
            let out = extracted(dir.path(), sparse);
            for (name, ..) in cases {
                let read = |dir: &std::path::Path| std::fs::read(dir.join(name)).unwrap();
                assert!(read(&out) == read(&dir.path().join("layer")), "{name} {sparse}");
            }
        }
    }
}
