//! Locks between processes, and the protocol of every command that uses a root.
//!
//! | file | mode | taken by | held while |
//! | --- | --- | --- | --- |
//! | `queue` | shared, exclusive | a command that adds, a removal | it waits for `store` |
//! | `store` | shared | a command that reads | it reads |
//! | | shared | a command that adds (pull, push, tag, commit) | from before it plans until its names are written |
//! | | exclusive | a removal | from before it looks up the image until all of it is gone |
//! | `use` | shared, exclusive | a pull, a trim of a shared content directory | from before it plans until its names are written; it removes blobs |
//! | `layer-<digest>` | exclusive | a pull | it fetches and unpacks that blob |
//! | `blob-<digest>` | exclusive | a pull with `--keep-blobs` | it fetches and keeps that blob |
//! | `index` | exclusive | pull, push, removal | it changes the content's `index.json` or trims it |
//! | `commit` | exclusive | pull, removal, sweep, `mount --rw` | it commits, repairs or discards one layer |
//! | | | check | it confirms damage that it found |
//! | | exclusive | any command | it rebuilds the index of layers, after another program changed them |
//! | `names` | exclusive | pull, push, tag, removal | it replaces `repositories.json` |
//!
//! They are taken in the order of the table. `layer-*` is released before a commit, so its
//! holder waits only for `blob-*`, whose holder waits only for the network, and for the last
//! three, which are held briefly. Therefore no cycle of waiting processes can form.
//!
//! `use`, with a `queue` of its own, `blob-*` and `index` are in the content directory, which several roots may share (see
//! `content`); all others are in the root.
//!
//! What a command decides under `store` stays true until it has written its result, because
//! only a removal removes anything, and it holds `store` in exclusive mode. A waiting removal
//! holds `queue`, so later pulls wait for it, and it waits for running pulls: neither starves
//! the other. A command that only reads does not take `queue`: it takes milliseconds, and must
//! not wait for a removal that waits for a long pull.
//!
//! A file is locked with flock(2), which the kernel releases with its process. dockerd uses
//! none of these locks, so the root of a live daemon is refused (see `daemon`).

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::StoreError;
use super::layout::Layout;
use crate::fsutil::{At, is_at};

/// The interval between attempts to take a lock that another process holds.
pub const POLL: Duration = Duration::from_millis(20);

/// A lock; released when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    path: PathBuf,
    remove: bool,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while locked: a process that opened the file before notices it.
        if self.remove {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether other processes may hold the lock at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Others may hold it in this mode, too.
    Shared,
    /// Only this process holds it.
    Exclusive,
}

/// The state of taking the `store` lock: first `queue`, then `store`.
#[derive(Debug)]
pub struct PendingLock {
    layout: Layout,
    mode: Mode,
    queue: Option<Lock>,
}

impl PendingLock {
    /// Creates the state without taking a lock.
    pub fn new(layout: &Layout, mode: Mode) -> Self {
        Self { layout: layout.clone(), mode, queue: None }
    }

    /// Tries once. Returns a description of the holder if another process has a lock.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the lock files cannot be opened.
    pub fn attempt(&mut self) -> Result<Result<Lock, String>, StoreError> {
        if self.queue.is_none() {
            let path = self.layout.lock("queue");
            self.queue = attempt(&path, self.mode, false)?;
            if self.queue.is_none() {
                return Ok(Err(describe("queue", &path)));
            }
        }
        let path = self.layout.lock("store");
        Ok(match attempt(&path, self.mode, false)? {
            Some(lock) => {
                self.queue = None;
                Ok(lock)
            }
            None => Err(describe("store", &path)),
        })
    }
}

/// Tries once to take `store` for a command that only reads. Returns a description of the holder
/// if a removal is running. Takes no lock if this user cannot open the lock file: then the root
/// is dockerd's, read-only or another user's, and no removal can run in it.
///
/// # Errors
/// [`StoreError::Fs`] if locking fails.
pub fn attempt_to_read(layout: &Layout) -> Result<Result<Option<Lock>, String>, StoreError> {
    let path = layout.lock("store");
    match attempt(&path, Mode::Shared, false) {
        Ok(Some(lock)) => Ok(Ok(Some(lock))),
        Ok(None) => Ok(Err(describe("store", &path))),
        Err(StoreError::Fs(e)) if is_inaccessible(&e.source) => Ok(Ok(None)),
        Err(e) => Err(e),
    }
}

/// Returns whether an error means that this user cannot have the file in this root: the root is
/// dockerd's, read-only or another user's.
pub fn is_inaccessible(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied | ReadOnlyFilesystem)
}

/// Waits for a lock in exclusive mode. Calls `on_wait` once, with a description of the holder, if
/// another process has it.
///
/// # Errors
/// [`StoreError::Fs`] if the lock file cannot be opened.
pub fn exclusive(path: &Path, on_wait: &dyn Fn(&str)) -> Result<Lock, StoreError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    wait(on_wait, || {
        let lock = attempt(path, Mode::Exclusive, false)?;
        Ok(lock.ok_or_else(|| describe(&name, path)))
    })
}

/// Whether this process must stop waiting for locks.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Ends every wait of this process for a lock, now and later, after an interrupt by the user.
pub fn stop_waiting() {
    STOPPED.store(true, Ordering::Relaxed);
}

/// Returns whether the user interrupted this process, so that long work ends.
pub fn is_stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

/// Waits for the lock under which a layer is committed, repaired or discarded. It is held only
/// briefly, so the wait is not reported.
///
/// # Errors
/// [`StoreError::Fs`] if the lock file cannot be opened.
pub fn commit_lock(layout: &Layout) -> Result<Lock, StoreError> {
    exclusive(&layout.lock("commit"), &|_| {})
}

/// Calls `attempt` until it returns a lock. Calls `on_wait` once, with the description of the
/// holder from the first attempt.
///
/// # Errors
/// The first error of `attempt`; [`StoreError::Interrupted`] after [`stop_waiting`].
pub fn wait<T>(
    on_wait: &dyn Fn(&str),
    mut attempt: impl FnMut() -> Result<Result<T, String>, StoreError>,
) -> Result<T, StoreError> {
    let (mut reported, mut _span) = (false, None);
    loop {
        match attempt()? {
            Ok(lock) => return Ok(lock),
            Err(holder) if !reported => {
                _span = Some(tracing::info_span!("wait", "for" = %holder));
                on_wait(&holder);
                reported = true;
            }
            Err(_) if is_stopped() => return Err(StoreError::Interrupted),
            Err(_) => {}
        }
        std::thread::sleep(POLL);
    }
}

/// Tries once to take a lock whose file is removed with it. Returns the holder if another process
/// has it.
///
/// # Errors
/// [`StoreError::Fs`] if the lock file cannot be opened.
pub fn try_temporary(path: &Path) -> Result<Result<Lock, String>, StoreError> {
    Ok(attempt(path, Mode::Exclusive, true)?.ok_or_else(|| holder(path)))
}

fn attempt(path: &Path, mode: Mode, remove: bool) -> Result<Option<Lock>, StoreError> {
    loop {
        let file = open(path).at("open", path)?;
        let locked = match mode {
            Mode::Shared => file.try_lock_shared(),
            Mode::Exclusive => file.try_lock(),
        };
        match locked {
            Ok(()) if is_at(&file, path) => {
                return Ok(Some(Lock { _file: file, path: path.to_owned(), remove }));
            }
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e).at("lock", path)?,
        }
    }
}

/// Opens or creates a lock file. An existing one need only be readable.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let mut options = File::options();
    options.read(true).custom_flags(flags.bits().cast_signed());
    match options.open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    options.write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn describe(name: &str, path: &Path) -> String {
    format!("the {name} lock, held by {}", holder(path))
}

/// Returns the holder of a lock: `process 4242`, or `another process` if it is unknown.
pub fn holder(path: &Path) -> String {
    // The kernel may omit a lock if others are released while the file is read.
    const READS: usize = 5;
    match (0..READS).find_map(|_| holder_in_proc(path)) {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

/// Returns the process ID of a lock's holder, from /proc/locks:
/// `1: FLOCK ADVISORY WRITE 4242 fd:01:1234 0 EOF`.
fn holder_in_proc(path: &Path) -> Option<String> {
    let inode = path.metadata().ok()?.ino().to_string();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().filter(|line| !line.contains("->")).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let of = words.get(5)?.rsplit(':').next()?;
        (*words.get(1)? == "FLOCK" && of == inode)
            .then(|| words.get(4).map(|pid| (*pid).to_owned()))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a lock that was just released. This may take a moment: a process that another test
    /// starts has a copy of this process's file descriptors until its program runs.
    fn soon<T>(attempt: impl FnMut() -> Result<Result<T, String>, StoreError>) -> T {
        wait(&|_| {}, attempt).unwrap()
    }

    fn enter(layout: &Layout, mode: Mode) -> (PendingLock, Result<Lock, String>) {
        let mut pending = PendingLock::new(layout, mode);
        let attempted = pending.attempt().unwrap();
        (pending, attempted)
    }

    #[test]
    fn temporary_lock_excludes_others_and_removes_its_file() {
        let (_dir, layout) = Layout::scratch();
        let path = layout.lock("layer-x");
        let alone = try_temporary(&path).unwrap().unwrap();
        let holder = try_temporary(&path).unwrap().unwrap_err();
        assert!(holder.starts_with("process "), "{holder}");
        drop(alone);
        assert!(!path.exists());
        soon(|| try_temporary(&path));
    }

    #[test]
    fn removal_waits_until_adders_release_the_store() {
        let (_dir, layout) = Layout::scratch();
        let one = enter(&layout, Mode::Shared).1.unwrap();
        let two = enter(&layout, Mode::Shared).1.unwrap();
        let (mut removal, waiting) = enter(&layout, Mode::Exclusive);
        assert!(waiting.unwrap_err().starts_with("the store lock, held by process "));
        drop((one, two));
        soon(|| removal.attempt());
    }

    #[test]
    fn removal_that_waits_precedes_later_adders() {
        let (_dir, layout) = Layout::scratch();
        let running = enter(&layout, Mode::Shared).1.unwrap();
        let (mut removal, _) = enter(&layout, Mode::Exclusive);
        let (mut later, waiting) = enter(&layout, Mode::Shared);
        assert!(waiting.unwrap_err().starts_with("the queue lock"));
        drop(running);
        assert!(later.attempt().unwrap().is_err(), "the removal is next");
        let removing = soon(|| removal.attempt());
        assert!(later.attempt().unwrap().is_err(), "the removal is running");
        drop(removing);
        soon(|| later.attempt());
    }

    #[test]
    fn adder_that_waits_precedes_later_removals() {
        let (_dir, layout) = Layout::scratch();
        let first = enter(&layout, Mode::Exclusive).1.unwrap();
        let (mut adder, _) = enter(&layout, Mode::Shared);
        let (mut second, _) = enter(&layout, Mode::Exclusive);
        drop(first);
        assert!(second.attempt().unwrap().is_err(), "the adder is next");
        soon(|| adder.attempt());
    }

    #[test]
    fn reader_waits_only_for_a_running_removal() {
        let (_dir, layout) = Layout::scratch();
        let running = enter(&layout, Mode::Shared).1.unwrap();
        let (mut removal, _) = enter(&layout, Mode::Exclusive);
        assert!(attempt_to_read(&layout).unwrap().unwrap().is_some());
        drop(running);
        let _removing = soon(|| removal.attempt());
        assert!(attempt_to_read(&layout).unwrap().is_err());
    }

    #[test]
    fn reader_of_a_root_without_lock_files_takes_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path(), None);
        assert!(attempt_to_read(&layout).unwrap().unwrap().is_none());
    }
}
