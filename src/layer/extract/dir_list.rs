//! The directories of an archive, whose metadata is set after all entries exist.
//!
//! An archive may have millions of directories, so only the last ones are in memory and the
//! others in an unnamed file. Each is a record with its length before and after it, so that the
//! list can be read in both directions.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{Timespec, Timestamps};

use crate::overlay::DiffDir;

/// Bytes of records in memory at most, and one more record.
const IN_MEMORY: usize = 512 << 10;

/// Bytes of a length.
const LENGTH: u64 = 4;

/// Bytes of the mode and the times of a record, before the path.
const METADATA: usize = 4 + 2 * 16;

/// The metadata that is set on a directory after all its entries exist.
#[derive(Debug, Clone)]
pub struct DirMetadata {
    /// Its path with symlinks resolved: a later entry may replace a symlink on the way to it.
    pub path: Vec<u8>,
    /// Its mode.
    pub mode: u32,
    /// Its times.
    pub times: Timestamps,
}

/// The directories in the order of the archive.
#[derive(Default)]
pub struct DirList {
    /// The records before those in memory.
    file: Option<File>,
    /// Bytes in the file.
    in_file: u64,
    memory: Vec<u8>,
}

impl DirList {
    /// Adds a directory. The file is created in `diff`.
    ///
    /// # Errors
    /// The error of writing to the file.
    pub fn push(&mut self, diff: &DiffDir, dir: &DirMetadata) -> io::Result<()> {
        let length = u32::try_from(METADATA + dir.path.len()).map_err(io::Error::other)?;
        self.memory.extend(length.to_le_bytes());
        self.memory.extend(dir.mode.to_le_bytes());
        for time in [&dir.times.last_access, &dir.times.last_modification] {
            self.memory.extend(time.tv_sec.to_le_bytes());
            self.memory.extend(time.tv_nsec.to_le_bytes());
        }
        self.memory.extend(&dir.path);
        self.memory.extend(length.to_le_bytes());
        if self.memory.len() >= IN_MEMORY {
            let file = match &self.file {
                Some(file) => file,
                None => self.file.insert(diff.temp_file()?),
            };
            file.write_all_at(&self.memory, self.in_file)?;
            self.in_file += self.memory.len() as u64;
            self.memory.clear();
        }
        Ok(())
    }

    /// Returns the directories in the order of the archive, or an error of reading the file.
    pub fn forward(&self) -> impl Iterator<Item = io::Result<DirMetadata>> {
        let mut position = 0;
        self.records(move |list| {
            let start = position;
            position = start + list.length(start)? + 2 * LENGTH;
            list.record(start)
        })
    }

    /// Returns the directories in reverse order, or an error of reading the file.
    pub fn backward(&self) -> impl Iterator<Item = io::Result<DirMetadata>> {
        let mut position = self.end();
        self.records(move |list| {
            position -= list.length(position - LENGTH)? + 2 * LENGTH;
            list.record(position)
        })
    }

    fn records(
        &self,
        mut next: impl FnMut(&Self) -> io::Result<DirMetadata>,
    ) -> impl Iterator<Item = io::Result<DirMetadata>> {
        let mut left = self.end();
        std::iter::from_fn(move || {
            let record = (left > 0).then(|| next(self))?;
            left = match &record {
                Ok(dir) => left - (METADATA + dir.path.len()) as u64 - 2 * LENGTH,
                Err(_) => 0,
            };
            Some(record)
        })
    }

    fn end(&self) -> u64 {
        self.in_file + self.memory.len() as u64
    }

    fn length(&self, at: u64) -> io::Result<u64> {
        let mut bytes = [0; LENGTH as usize];
        self.read(at, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes).into())
    }

    fn record(&self, at: u64) -> io::Result<DirMetadata> {
        let length = usize::try_from(self.length(at)?).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.read(at + LENGTH, &mut bytes)?;
        let path = bytes.split_off(METADATA.min(length));
        let mut fields = bytes[4..]
            .chunks_exact(8)
            .map(|bytes| bytes.try_into().map(i64::from_le_bytes).map_err(io::Error::other));
        let mut field = || fields.next().unwrap_or(Ok(0));
        let mut time = || Ok::<_, io::Error>(Timespec { tv_sec: field()?, tv_nsec: field()? });
        let times = Timestamps { last_access: time()?, last_modification: time()? };
        let mode = bytes[..4].try_into().map(u32::from_le_bytes).map_err(io::Error::other)?;
        Ok(DirMetadata { path, mode, times })
    }

    /// Reads bytes of one record, which is in the file or in memory as a whole.
    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        if let (Some(file), true) = (&self.file, at < self.in_file) {
            return file.read_exact_at(out, at);
        }
        let start = usize::try_from(at - self.in_file).map_err(io::Error::other)?;
        let bytes = self.memory.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_of_many_directories_is_read_in_both_directions_from_little_memory() {
        let dir = tempfile::tempdir().unwrap();
        let diff = DiffDir::open(dir.path()).unwrap();
        let directory = |n: usize| {
            let time = |tv_sec| Timespec { tv_sec, tv_nsec: 999_999_999 };
            let n_i64 = i64::try_from(n).unwrap();
            DirMetadata {
                path: vec![b'a' + (n % 26) as u8; n % 300],
                mode: 0o7755,
                times: Timestamps { last_access: time(n_i64), last_modification: time(-n_i64) },
            }
        };
        for count in [0, 1, 10, 20_000] {
            let mut list = DirList::default();
            for n in 0..count {
                list.push(&diff, &directory(n)).unwrap();
                assert!(list.memory.len() < IN_MEMORY);
            }
            assert!(list.memory.capacity() < 3 * IN_MEMORY);
            assert_eq!(list.file.is_some(), count > 10);
            let show = |dir: DirMetadata| format!("{dir:?}");
            let expected: Vec<_> = (0..count).map(directory).map(show).collect();
            let forward: Vec<_> = list.forward().map(Result::unwrap).map(show).collect();
            assert!(forward == expected, "{count} forward");
            let mut backward: Vec<_> = list.backward().map(Result::unwrap).map(show).collect();
            backward.reverse();
            assert!(backward == expected, "{count} backward");
        }
    }
}
