//! Ingests: files that are being written to the content store.
//!
//! A file is written in `ingest/` under a unique name, synced and renamed to its target. Its
//! writer keeps it locked (flock), which distinguishes it from the file of a killed process.

use std::fs::{File, TryLockError};
use std::io::{self, Write};

use super::dir::Dir;
use crate::digest::Digest;
use crate::fsutil::{self, At, FsError};

/// A file that is being written; removed if it is dropped before the commit.
#[derive(Debug)]
pub struct Ingest {
    file: File,
    ingest: Dir,
    name: String,
    to: Dir,
    target: String,
    done: bool,
}

impl Ingest {
    /// Creates a file that will become `target` in `to`.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be created or locked.
    pub fn new(ingest: &Dir, to: &Dir, target: String) -> Result<Self, FsError> {
        loop {
            let random = fsutil::random_hex::<8>().at("write", to.path())?;
            let name = format!("{target}-{random}");
            let path = ingest.path().join(&name);
            let file = ingest.create(&name).at("create", &path)?;
            match file.try_lock() {
                // A sweep may have removed the file before it was locked.
                Ok(()) if ingest.is_name_of(&name, &file) => {
                    let (ingest, to) = (ingest.clone(), to.clone());
                    return Ok(Self { file, ingest, name, to, target, done: false });
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => {
                    ingest.unlink(&name)?;
                    return Err(e).at("lock", &path);
                }
            }
        }
    }

    /// Makes the bytes durable and renames the file to its target.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be synced or renamed; the file is removed.
    pub fn commit(mut self) -> Result<(), FsError> {
        self.file.sync_all().at("sync", &self.ingest.path().join(&self.name))?;
        self.to.rename_from(&self.ingest, &self.name, &self.target)?;
        self.done = true;
        Ok(())
    }

    /// Writes `bytes` and commits the file.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be written or committed; the file is removed.
    pub fn write_and_commit(mut self, bytes: &[u8]) -> Result<(), FsError> {
        self.write_all(bytes).at("write", &self.ingest.path().join(&self.name))?;
        self.commit()
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.done {
            let _ = self.ingest.unlink(&self.name);
        }
    }
}

/// Removes what killed processes left: unlocked files in `ingest` and `locks`. Files with
/// other names than rpull's are kept, and errors ignored.
pub fn sweep(ingest: &Dir, locks: &Dir) {
    for (dir, is_ours) in [(ingest, is_ingest as fn(&str) -> bool), (locks, is_blob_lock)] {
        let names = dir.list().unwrap_or_default();
        names.iter().filter(|name| is_ours(name)).for_each(|name| remove_if_unlocked(dir, name));
    }
}

fn remove_if_unlocked(dir: &Dir, name: &str) {
    let Ok(Some(file)) = dir.file(name) else { return };
    if file.try_lock().is_ok() && dir.is_name_of(name, &file) {
        let _ = dir.unlink(name);
    }
}

/// Returns whether `name` is `<target>-<16 hex digits>`, or the bare digest of earlier versions.
fn is_ingest(name: &str) -> bool {
    let Some((target, random)) = name.rsplit_once('-') else {
        return Digest::from_hex(name).is_ok();
    };
    let known = Digest::from_hex(target).is_ok() || super::FILES.contains(&target);
    known && random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_blob_lock(name: &str) -> bool {
    name.strip_prefix(super::BLOB_LOCK).is_some_and(|hex| Digest::from_hex(hex).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, Dir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        let root = Dir::open(temp.path()).unwrap().unwrap();
        let (ingest, locks) =
            (root.ensure_dir("ingest").unwrap(), root.ensure_dir("locks").unwrap());
        (temp, ingest, locks)
    }

    #[test]
    fn sweep_removes_only_files_of_killed_processes() {
        let (temp, ingest, locks) = dir();
        let hex = Digest::of(b"x").hex();
        let root = Dir::open(temp.path()).unwrap().unwrap();
        let target = temp.path().join("target");
        std::fs::write(&target, "kept").unwrap();
        let live = Ingest::new(&ingest, &root, hex.clone()).unwrap();
        let link = format!("{hex}-fedcba9876543210");
        std::os::unix::fs::symlink(&target, ingest.path().join(&link)).unwrap();
        let dead =
            [hex.clone(), format!("{hex}-0123456789abcdef"), "shared-0123456789abcdef".into()];
        let foreign = ["note.txt".to_owned(), format!("{hex}-short"), link, live.name.clone()];
        for name in dead.iter().chain(&foreign[..2]) {
            ingest.create(name).unwrap();
        }
        locks.create(&format!("blob-{hex}")).unwrap();
        locks.create("index").unwrap();
        sweep(&ingest, &locks);
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        assert_eq!(sorted(ingest.list().unwrap()), sorted(foreign.to_vec()));
        assert_eq!(locks.list().unwrap(), ["index"]);
        assert_eq!(std::fs::read(&target).unwrap(), b"kept");
    }

    #[test]
    fn ingest_dropped_before_the_commit_leaves_no_file() {
        let (temp, ingest, _locks) = dir();
        let root = Dir::open(temp.path()).unwrap().unwrap();
        let mut file = Ingest::new(&ingest, &root, "target".to_owned()).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert!(!temp.path().join("target").exists());
        assert_eq!(std::fs::read_dir(temp.path().join("ingest")).unwrap().count(), 0);
    }
}
