//! Partial downloads: what arrived of a blob before its pull ended, so that the next pull of any
//! process continues there.
//!
//! ```text
//! <content>/ingest/<digest>.partial    the blob's bytes at their offsets, with holes
//! <content>/ingest/<digest>.ranges     the ranges that are there, one "<start> <end>" per line
//! ```
//!
//! A range is appended after its bytes were written, so a process that is killed never lists bytes
//! that are missing. A power failure can break that order; the reader verifies the
//! digest of the blob, and discards the partial download if it does not match. The lock of the
//! blob in `locks/` allows one process at a time to use a partial download.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use super::dir::Dir;
use super::locks::ContentLock;
use super::{BLOB_LOCK, Content, locks};
use crate::digest::Digest;
use crate::fsutil::{At, FsError};
use crate::store::StoreError;

const DATA: &str = ".partial";
const RANGES: &str = ".ranges";

/// Partial downloads that were not continued for this long are removed.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Bytes of all partial downloads at most; the oldest are removed first.
const MAX_BYTES: u64 = 10 << 30;

/// Bytes of a list of ranges at most: a larger one was not written by rpull.
const MAX_LIST: u64 = 16 << 20;

/// A partial download that this process may read and continue.
#[derive(Debug)]
pub struct Partial {
    data: File,
    list: File,
    ranges: Vec<Range<u64>>,
    ingest: Dir,
    name: String,
    _lock: Option<ContentLock>,
}

impl Content {
    /// Opens the partial download of a blob; `None` if there is none, another process uses it, or
    /// the content directory is read-only. `has_lock` tells that the caller holds the blob's lock.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn partial(
        &self,
        digest: &Digest,
        size: u64,
        has_lock: bool,
    ) -> Result<Option<Partial>, StoreError> {
        let Some(root) = Dir::open(self.path())? else { return Ok(None) };
        let Some(ingest) = root.dir(super::INGEST)? else { return Ok(None) };
        if ingest.stat(&format!("{}{RANGES}", digest.hex())).is_none() {
            return Ok(None);
        }
        self.open_partial(digest, size, has_lock)
    }

    /// Opens the partial download of a blob, or begins one; `None` if another process uses it, or
    /// the content directory is read-only. `has_lock` tells that the caller holds the blob's lock.
    ///
    /// # Errors
    /// [`StoreError::Fs`].
    pub fn open_partial(
        &self,
        digest: &Digest,
        size: u64,
        has_lock: bool,
    ) -> Result<Option<Partial>, StoreError> {
        let Some(dirs) = self.dirs()? else { return Ok(None) };
        let lock = match has_lock {
            true => None,
            false => {
                match locks::try_temporary(&dirs.locks, format!("{BLOB_LOCK}{}", digest.hex()))? {
                    Ok(lock) => Some(lock),
                    Err(_) => return Ok(None),
                }
            }
        };
        Ok(Some(Partial::open(dirs.ingest, digest.hex(), size, lock)?))
    }
}

impl Partial {
    fn open(
        ingest: Dir,
        name: String,
        size: u64,
        lock: Option<ContentLock>,
    ) -> Result<Self, FsError> {
        let open = |end: &str| ingest.read_write(&format!("{name}{end}"));
        let (data, mut list) = (open(DATA)?, open(RANGES)?);
        let path = ingest.path().join(format!("{name}{RANGES}"));
        let length = data.metadata().at("read", &path)?.len();
        let ranges = parse(&read(&mut list).at("read", &path)?, size.min(length));
        Ok(Self { data, list, ranges, ingest, name, _lock: lock })
    }

    /// The ranges that are there, sorted and separate.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// A reader of the bytes.
    ///
    /// # Errors
    /// The kernel's own.
    pub fn reader(&self) -> io::Result<File> {
        self.data.try_clone()
    }

    /// Writes bytes at `offset`, and lists them.
    ///
    /// # Errors
    /// The kernel's own; the bytes are not listed then.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.data.write_all_at(bytes, offset)?;
        // A power failure may have left half a line before this one.
        let line = format!("\n{offset} {}\n", offset + bytes.len() as u64);
        self.list.write_all(line.as_bytes())
    }

    /// Removes the partial download.
    ///
    /// # Errors
    /// [`FsError`].
    pub fn remove(self) -> Result<(), FsError> {
        // The list first: data without it is not used.
        remove(&self.ingest, &self.name)
    }
}

/// Removes the partial download of a blob.
///
/// # Errors
/// [`FsError`] if a file cannot be removed.
pub fn remove(ingest: &Dir, name: &str) -> Result<(), FsError> {
    ingest.unlink(&format!("{name}{RANGES}"))?;
    ingest.unlink(&format!("{name}{DATA}"))
}

fn read(list: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    list.take(MAX_LIST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_LIST {
        bytes.clear();
        list.set_len(0)?;
        list.rewind()?;
    }
    Ok(bytes)
}

/// Parses a list of ranges. Lines that are not ranges below `size` are ignored.
fn parse(list: &[u8], size: u64) -> Vec<Range<u64>> {
    let parse = |line: &str| {
        let (start, end) = line.split_once(' ')?;
        let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
        (start < end && end <= size).then_some(start..end)
    };
    let mut ranges: Vec<_> = String::from_utf8_lossy(list).lines().filter_map(parse).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.into_iter().fold(Vec::new(), |mut joined: Vec<Range<u64>>, range| {
        match joined.last_mut().filter(|last| range.start <= last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => joined.push(range),
        }
        joined
    })
}

/// Removes partial downloads that are too old, and the oldest ones beyond the limit of bytes. One
/// that a process uses stays, and so does what cannot be removed.
pub fn sweep(ingest: &Dir, locks: &Dir) {
    let names = ingest.list().unwrap_or_default();
    let mut all: Vec<(SystemTime, u64, &str)> = Vec::new();
    for name in &names {
        let Some(digest) = name.strip_suffix(DATA).or_else(|| name.strip_suffix(RANGES)) else {
            continue;
        };
        let seen = all.iter().any(|(_, _, other)| *other == digest);
        if seen || Digest::from_hex(digest).is_err() {
            continue;
        }
        all.push((changed(ingest, digest), size(ingest, digest), digest));
    }
    // The youngest come first, so that they are kept.
    all.sort_unstable_by_key(|(changed, ..)| std::cmp::Reverse(*changed));
    let mut sum = 0;
    for (changed, size, digest) in all {
        sum += size;
        let old = changed.elapsed().is_ok_and(|age| age > MAX_AGE);
        if old || sum > MAX_BYTES {
            let lock = locks::try_temporary(locks, format!("{BLOB_LOCK}{digest}"));
            if let Ok(Ok(_lock)) = lock {
                let _ = remove(ingest, digest);
            }
        }
    }
}

/// Returns the files with the bytes of all partial downloads, and the bytes that each takes on the disk.
///
/// # Errors
/// [`FsError`] if the directory cannot be read.
pub fn list(ingest: &Dir) -> Result<Vec<(String, u64)>, FsError> {
    let mut found = Vec::new();
    for name in ingest.list()? {
        let digest = name.strip_suffix(DATA).filter(|digest| Digest::from_hex(digest).is_ok());
        if let Some(bytes) = digest.map(|digest| size(ingest, digest)) {
            found.push((name, bytes));
        }
    }
    Ok(found)
}

/// When a partial download was last continued.
fn changed(ingest: &Dir, digest: &str) -> SystemTime {
    let changed = |end: &str| {
        ingest.file(&format!("{digest}{end}")).ok().flatten()?.metadata().ok()?.modified().ok()
    };
    [DATA, RANGES].into_iter().filter_map(changed).max().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Bytes that it takes on the disk: holes take none.
fn size(ingest: &Dir, digest: &str) -> u64 {
    let stat = ingest.stat(&format!("{digest}{DATA}"));
    stat.map_or(0, |stat| u64::try_from(stat.st_blocks).unwrap_or(0) * 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_with_overlaps_and_foreign_lines_gives_separate_ranges() {
        let list = b"10 20\n0 5\n5 8\n15 30\nx y\n7 3\n90 101\n40 50";
        assert_eq!(parse(list, 100), [0..8, 10..30, 40..50]);
        assert_eq!(parse(&[0; 100], 100), []);
    }

    fn content() -> (tempfile::TempDir, Content) {
        let (dir, layout) = crate::store::layout::Layout::scratch();
        (dir, Content::new(layout))
    }

    #[test]
    fn partial_is_continued_where_it_stood_by_one_process_at_a_time() {
        let (_dir, content) = content();
        let digest = Digest::of(b"blob");
        assert!(content.partial(&digest, 100, false).unwrap().is_none());
        let mut partial = content.open_partial(&digest, 100, false).unwrap().unwrap();
        partial.write(10, b"abc").unwrap();
        assert!(content.open_partial(&digest, 100, false).unwrap().is_none(), "it is in use");
        drop(partial);
        let mut partial = content.partial(&digest, 100, false).unwrap().unwrap();
        assert_eq!(partial.ranges(), std::slice::from_ref(&(10..13)));
        partial.write(0, b"0123456789").unwrap();
        drop(partial);
        let partial = content.partial(&digest, 100, false).unwrap().unwrap();
        assert_eq!(partial.ranges(), std::slice::from_ref(&(0..13)));
        let mut bytes = [0; 13];
        partial.reader().unwrap().read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"0123456789abc");
        partial.remove().unwrap();
        assert!(content.partial(&digest, 100, false).unwrap().is_none());
    }

    #[test]
    fn sweep_removes_old_partials_that_no_process_uses() {
        let (dir, content) = content();
        let ends = |ages: [u64; 3]| {
            for (n, days) in ages.into_iter().enumerate() {
                let digest = Digest::of(&[n as u8]);
                let mut partial = content.open_partial(&digest, 100, false).unwrap().unwrap();
                partial.write(0, b"abc").unwrap();
                let then = SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
                partial.data.set_modified(then).unwrap();
                partial.list.set_modified(then).unwrap();
            }
        };
        ends([1, 8, 9]);
        let used = content.open_partial(&Digest::of(&[2]), 100, false).unwrap().unwrap();
        let root = Dir::open(&dir.path().join("rpull/content")).unwrap().unwrap();
        let (ingest, locks) =
            (root.ensure_dir("ingest").unwrap(), root.ensure_dir("locks").unwrap());
        sweep(&ingest, &locks);
        drop(used);
        let left = |n: u8| content.partial(&Digest::of(&[n]), 100, false).unwrap().is_some();
        assert_eq!([0, 1, 2].map(left), [true, false, true]);
    }
}
