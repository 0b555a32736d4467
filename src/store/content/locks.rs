//! Locks in the content directory itself, since roots that share it share nothing else.
//! `store/lock` says who takes them, and in which order.

use std::fs::{File, TryLockError};

use super::dir::Dir;
use crate::fsutil::At;
use crate::store::{StoreError, lock};

/// A lock of a content directory; released when dropped.
#[derive(Debug)]
pub struct ContentLock {
    file: File,
    locks: Dir,
    name: String,
    remove: bool,
}

impl Drop for ContentLock {
    fn drop(&mut self) {
        // It is still locked: a process that opened the file before sees that its name is gone.
        if self.remove && self.locks.names(&self.name, &self.file) {
            let _ = self.locks.unlink(&self.name);
        }
    }
}

/// Waits for a lock whose file stays, and that is held for moments.
///
/// # Errors
/// [`StoreError::Fs`] if the lock file cannot be opened or locked.
pub fn exclusive(locks: &Dir, name: &str) -> Result<ContentLock, StoreError> {
    let file = lock::wait(&|_| {}, || attempt(locks, name))?;
    Ok(ContentLock { file, locks: locks.clone(), name: name.to_owned(), remove: false })
}

/// Tries once to take a lock whose file is removed with it; the holder's description if
/// another process has it.
///
/// # Errors
/// [`StoreError::Fs`] if the lock file cannot be opened or locked.
pub fn try_passing(locks: &Dir, name: String) -> Result<Result<ContentLock, String>, StoreError> {
    let file = attempt(locks, &name)?;
    Ok(file.map(|file| ContentLock { file, locks: locks.clone(), name, remove: true }))
}

fn attempt(locks: &Dir, name: &str) -> Result<Result<File, String>, StoreError> {
    loop {
        let file = locks.lock_file(name)?;
        match file.try_lock() {
            Ok(()) if locks.names(name, &file) => return Ok(Ok(file)),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Ok(Err(lock::holder(&locks.path().join(name))));
            }
            Err(TryLockError::Error(e)) => return Err(e).at("lock", &locks.path().join(name))?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_through_a_symbolic_link_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let target = temp.path().join("target");
        std::os::unix::fs::symlink(&target, temp.path().join("index")).unwrap();
        let locks = Dir::open(temp.path()).unwrap().unwrap();
        let error = exclusive(&locks, "index").unwrap_err().to_string();
        assert!(error.contains("index: it is a symbolic link"), "{error}");
        assert!(!target.exists());
    }

    #[test]
    fn passing_lock_excludes_and_removes_its_file() {
        let temp = tempfile::tempdir().unwrap();
        let locks = || Dir::open(temp.path()).unwrap().unwrap();
        let held = try_passing(&locks(), "blob-x".to_owned()).unwrap().unwrap();
        let holder = try_passing(&locks(), "blob-x".to_owned()).unwrap().unwrap_err();
        assert!(holder.starts_with("process "), "{holder}");
        drop(held);
        assert_eq!(locks().list().unwrap(), [""; 0]);
        // A process that another test starts has a copy of our descriptors for a moment.
        lock::wait(&|_| {}, || try_passing(&locks(), "blob-x".to_owned())).unwrap();
    }
}
