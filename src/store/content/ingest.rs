//! Files on their way into the content store.
//!
//! A file is written in `ingest/` under a name that no other process uses, synced, and
//! renamed to where it belongs. Its writer holds it locked (flock) all the while, so that
//! the file of a killed process can be told from one that is being written.

use std::fs::{File, TryLockError};
use std::io::{self, Write};

use super::dir::Dir;
use crate::digest::Digest;
use crate::fsutil::{self, At, FsError};

/// A file that is being written; removed when dropped before it is committed.
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
    /// Begins the file that is to become `target` in `to`.
    ///
    /// # Errors
    /// [`FsError`].
    pub fn new(ingest: &Dir, to: &Dir, target: String) -> Result<Self, FsError> {
        loop {
            let random = fsutil::random_hex::<8>().at("write", to.path())?;
            let name = format!("{target}-{random}");
            let path = ingest.path().join(&name);
            let file = ingest.create(&name).at("create", &path)?;
            match file.try_lock() {
                // A sweeper may have seen the file before it was locked, and removed it.
                Ok(()) if ingest.names(&name, &file) => {
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

    /// Makes the bytes durable and gives them their name.
    ///
    /// # Errors
    /// [`FsError`]; the file is removed.
    pub fn commit(mut self) -> Result<(), FsError> {
        self.file.sync_all().at("sync", &self.ingest.path().join(&self.name))?;
        self.to.take(&self.ingest, &self.name, &self.target)?;
        self.done = true;
        Ok(())
    }

    /// Writes all of `bytes` and commits them.
    ///
    /// # Errors
    /// [`FsError`]; the file is removed.
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

/// Removes what killed processes left: their files in `ingest`, and lock files that no process
/// holds. What does not have the form of a name that rpull gives is left alone, and so is
/// what cannot be removed.
pub fn sweep(ingest: &Dir, locks: &Dir) {
    for (dir, is_ours) in [(ingest, is_ingest as fn(&str) -> bool), (locks, is_blob_lock)] {
        let names = dir.list().unwrap_or_default();
        names.iter().filter(|name| is_ours(name)).for_each(|name| remove_if_dead(dir, name));
    }
}

fn remove_if_dead(dir: &Dir, name: &str) {
    let Ok(Some(file)) = dir.file(name) else { return };
    if file.try_lock().is_ok() && dir.names(name, &file) {
        let _ = dir.unlink(name);
    }
}

/// `<target>-<16 hex digits>`, or the bare digest that earlier versions used.
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
    fn sweep_removes_files_of_the_dead_and_leaves_all_others() {
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
    fn file_that_is_dropped_uncommitted_leaves_nothing() {
        let (temp, ingest, _locks) = dir();
        let root = Dir::open(temp.path()).unwrap().unwrap();
        let mut file = Ingest::new(&ingest, &root, "target".to_owned()).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert!(!temp.path().join("target").exists());
        assert_eq!(std::fs::read_dir(temp.path().join("ingest")).unwrap().count(), 0);
    }
}
