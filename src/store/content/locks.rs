//! Locks in the content directory, for all roots that share it. The table in `store/lock` has
//! their users and their order.

use std::fs::{File, TryLockError};

use super::dir::Dir;
use crate::fsutil::At;
use crate::store::lock::Mode;
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

/// The lock that a command holds while it reads and writes the content, and a trim in exclusive mode.
const USE: &str = "use";

/// The lock that precedes it, so that a trim that waits is not overtaken.
const QUEUE: &str = "queue";

/// Tries once to take the right to use the content. Returns a description of the holder if a trim is
/// running or waits.
///
/// # Errors
/// [`StoreError::Fs`] if a lock file cannot be opened or locked.
pub fn try_use(locks: &Dir) -> Result<Result<ContentLock, String>, StoreError> {
    let waiting = |holder: String| format!("the content store, which {holder} is trimming");
    let queue = match attempt(locks, QUEUE, Mode::Shared)? {
        Ok(queue) => queue,
        Err(holder) => return Ok(Err(waiting(holder))),
    };
    let file = attempt(locks, USE, Mode::Shared)?.map_err(waiting);
    drop(queue);
    Ok(file.map(|file| lasting(locks, USE, file)))
}

/// Waits until nothing uses the content, and keeps it so.
///
/// # Errors
/// [`StoreError::Fs`] if a lock file cannot be opened or locked.
pub fn end_use(locks: &Dir, on_wait: &dyn Fn(&str)) -> Result<ContentLock, StoreError> {
    let waiting = |holder: String| format!("the content store, which {holder} uses");
    let take =
        |name| lock::wait(on_wait, || Ok(attempt(locks, name, Mode::Exclusive)?.map_err(waiting)));
    let _queue = take(QUEUE)?;
    Ok(lasting(locks, USE, take(USE)?))
}

/// Returns whether a command uses the content at this moment.
///
/// # Errors
/// [`StoreError::Fs`] if the lock file cannot be opened or locked.
pub fn is_in_use(locks: &Dir) -> Result<bool, StoreError> {
    Ok(attempt(locks, USE, Mode::Exclusive)?.is_err())
}

fn lasting(locks: &Dir, name: &str, file: File) -> ContentLock {
    ContentLock { file, locks: locks.clone(), name: name.to_owned(), remove: false }
}

/// Waits for a lock that is held only briefly. Its file is kept.
///
/// # Errors
/// [`StoreError::Fs`] if the lock file cannot be opened or locked.
pub fn exclusive(locks: &Dir, name: &str) -> Result<ContentLock, StoreError> {
    let file = lock::wait(&|_| {}, || attempt(locks, name, Mode::Exclusive))?;
    Ok(lasting(locks, name, file))
}

/// Tries once to take a lock whose file is removed with it. Returns a description of the holder
/// if another process has it.
///
/// # Errors
/// [`StoreError::Fs`] if the lock file cannot be opened or locked.
pub fn try_temporary(locks: &Dir, name: String) -> Result<Result<ContentLock, String>, StoreError> {
    let file = attempt(locks, &name, Mode::Exclusive)?;
    Ok(file.map(|file| ContentLock { file, locks: locks.clone(), name, remove: true }))
}

fn attempt(locks: &Dir, name: &str, mode: Mode) -> Result<Result<File, String>, StoreError> {
    loop {
        let file = locks.lock_file(name)?;
        let locked = match mode {
            Mode::Shared => file.try_lock_shared(),
            Mode::Exclusive => file.try_lock(),
        };
        match locked {
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
    fn trim_waits_for_users_and_precedes_later_ones() {
        let temp = tempfile::tempdir().unwrap();
        let locks = || Dir::open(temp.path()).unwrap().unwrap();
        let one = try_use(&locks()).unwrap().unwrap();
        let two = try_use(&locks()).unwrap().unwrap();
        assert!(is_in_use(&locks()).unwrap());
        std::thread::scope(|scope| {
            let (waits, waiting) = std::sync::mpsc::channel();
            let dir = locks();
            let trim = scope.spawn(move || end_use(&dir, &|_| waits.send(()).unwrap()).unwrap());
            waiting.recv().unwrap();
            let later = try_use(&locks()).unwrap().unwrap_err();
            assert!(later.ends_with(" is trimming"), "{later}");
            drop((one, two));
            let trim = trim.join().unwrap();
            assert!(try_use(&locks()).unwrap().is_err(), "the trim is running");
            drop(trim);
        });
        lock::wait(&|_| {}, || try_use(&locks())).unwrap();
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
