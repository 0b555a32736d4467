//! Locks in the content directory, for all roots that share it. The table in `store/lock` has
//! their users and their order.

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
        // Removed while locked: a process that opened the file before notices it.
        if self.remove && self.locks.is_name_of(&self.name, &self.file) {
            let _ = self.locks.unlink(&self.name);
        }
    }
}

/// Waits for a lock that is held only briefly. Its file is kept.
///
/// # Errors
/// [`StoreError::Fs`] if the lock file cannot be opened or locked.
pub fn exclusive(locks: &Dir, name: &str) -> Result<ContentLock, StoreError> {
    let file = lock::wait(&|_| {}, || attempt(locks, name))?;
    Ok(ContentLock { file, locks: locks.clone(), name: name.to_owned(), remove: false })
}

/// Tries once to take a lock whose file is removed with it. Returns a description of the holder
/// if another process has it.
///
/// # Errors
/// [`StoreError::Fs`] if the lock file cannot be opened or locked.
pub fn try_temporary(locks: &Dir, name: String) -> Result<Result<ContentLock, String>, StoreError> {
    let file = attempt(locks, &name)?;
    Ok(file.map(|file| ContentLock { file, locks: locks.clone(), name, remove: true }))
}

fn attempt(locks: &Dir, name: &str) -> Result<Result<File, String>, StoreError> {
    loop {
        let file = locks.lock_file(name)?;
        match file.try_lock() {
            Ok(()) if locks.is_name_of(name, &file) => return Ok(Ok(file)),
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
    fn temporary_lock_excludes_others_and_removes_its_file() {
        let temp = tempfile::tempdir().unwrap();
        let locks = || Dir::open(temp.path()).unwrap().unwrap();
        let held = try_temporary(&locks(), "blob-x".to_owned()).unwrap().unwrap();
        let holder = try_temporary(&locks(), "blob-x".to_owned()).unwrap().unwrap_err();
        assert!(holder.starts_with("process "), "{holder}");
        drop(held);
        assert_eq!(locks().list().unwrap(), [""; 0]);
        // A process that another test starts briefly has a copy of this process's descriptors.
        lock::wait(&|_| {}, || try_temporary(&locks(), "blob-x".to_owned())).unwrap();
    }
}
