//! Locks between processes. There are three kinds, always taken in this order:
//!
//! 1. `store`: shared by all who read or add; exclusive for a removal.
//! 2. `layer-<digest>`: who fetches that blob. Advice only: it saves a double download.
//!    Held only while fetching and unpacking, never while waiting for a commit, so
//!    that it can have no part in a cycle.
//! 3. `names`: held for the moment in which `repositories.json` is read and replaced.
//!
//! A file is locked with flock(2), which the kernel lets go with its process. A dockerd
//! knows none of these: a root that has a live one is refused (see `live`).

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::StoreError;
use super::layout::Layout;
use crate::fsutil::At;

/// How often a lock that is waited for is tried again.
const POLL: Duration = Duration::from_millis(50);

/// A lock; let go when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    path: PathBuf,
    remove: bool,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Still held: whoever opened the file before this sees that it has no name any more.
        if self.remove {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Shared,
    Exclusive,
}

/// Takes a lock that others may hold too.
///
/// # Errors
/// [`StoreError::Fs`].
pub fn shared(layout: &Layout, name: &str, waiting: &dyn Fn(&str)) -> Result<Lock, StoreError> {
    take(layout.lock(name), Mode::Shared, name, waiting)
}

/// Takes a lock alone.
///
/// # Errors
/// [`StoreError::Fs`].
pub fn exclusive(layout: &Layout, name: &str, waiting: &dyn Fn(&str)) -> Result<Lock, StoreError> {
    take(layout.lock(name), Mode::Exclusive, name, waiting)
}

/// Takes a lock whose file goes with it, if nobody holds it; else says who does.
///
/// # Errors
/// [`StoreError::Fs`].
pub fn try_passing(layout: &Layout, name: &str) -> Result<Result<Lock, String>, StoreError> {
    let path = layout.lock(name);
    match attempt(&path, Mode::Exclusive)? {
        Some(file) => Ok(Ok(Lock { _file: file, path, remove: true })),
        None => Ok(Err(holder(&path))),
    }
}

fn take(path: PathBuf, mode: Mode, name: &str, waiting: &dyn Fn(&str)) -> Result<Lock, StoreError> {
    let mut said = false;
    loop {
        if let Some(file) = attempt(&path, mode)? {
            return Ok(Lock { _file: file, path, remove: false });
        }
        if !said {
            waiting(&format!("the {name} lock, held by {}", holder(&path)));
            said = true;
        }
        std::thread::sleep(POLL);
    }
}

fn attempt(path: &Path, mode: Mode) -> Result<Option<File>, StoreError> {
    loop {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .at("open", path)?;
        let locked = match mode {
            Mode::Shared => file.try_lock_shared(),
            Mode::Exclusive => file.try_lock(),
        };
        match locked {
            Ok(()) if same_file(&file, path) => return Ok(Some(file)),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e).at("lock", path)?,
        }
    }
}

fn same_file(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(named)) = (file.metadata(), path.metadata()) else { return false };
    (ours.dev(), ours.ino()) == (named.dev(), named.ino())
}

/// Who holds the lock, from /proc/locks: `1: FLOCK ADVISORY WRITE 4242 fd:01:1234 0 EOF`.
fn holder(path: &Path) -> String {
    let inode = path.metadata().map(|meta| meta.ino().to_string()).unwrap_or_default();
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = locks.lines().filter(|line| !line.contains("->")).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let of = words.get(5)?.rsplit(':').next()?;
        (*words.get(1)? == "FLOCK" && of == inode).then(|| words.get(4).copied())?
    });
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_and_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path(), None);
        layout.create().unwrap();
        let one = shared(&layout, "store", &|_| {}).unwrap();
        let two = shared(&layout, "store", &|_| panic!("shared locks do not wait")).unwrap();
        assert!(attempt(&layout.lock("store"), Mode::Exclusive).unwrap().is_none());
        drop((one, two));
        let alone = try_passing(&layout, "layer-x").unwrap().unwrap();
        let who = try_passing(&layout, "layer-x").unwrap().unwrap_err();
        assert!(who.starts_with("process "), "{who}");
        drop(alone);
        assert!(!layout.lock("layer-x").exists());
        assert!(try_passing(&layout, "layer-x").unwrap().is_ok());
    }
}
