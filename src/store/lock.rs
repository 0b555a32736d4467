//! Locks between processes, and the protocol of every command that uses a root.
//!
//! | file | mode | taken by | held while |
//! | --- | --- | --- | --- |
//! | `queue` | shared, exclusive | a command that adds, a removal | it waits for `store` |
//! | `store` | shared | a command that reads | it reads |
//! | | shared | a command that adds (pull, tag) | from before it plans until its names are written |
//! | | exclusive | a removal | from before it looks up the image until all of it is gone |
//! | `layer-<digest>` | exclusive | a pull | it fetches and unpacks that blob |
//! | `blob-<digest>` | exclusive | a pull with `--keep-blobs` | it fetches and keeps that blob |
//! | `index` | exclusive | pull, removal | it changes the content's `index.json` or trims it |
//! | `commit` | exclusive | pull, removal, sweep | it commits, repairs or gives up one layer |
//! | `names` | exclusive | pull, tag, removal | it replaces `repositories.json` |
//!
//! They are taken in the order of the table. `layer-*` is released before
//! anything is committed, so their holder waits for no other lock but `blob-*`, whose holder
//! waits for the network alone, and the last three, which are held for moments. That is why
//! no cycle of waiting processes can form.
//!
//! `blob-*` and `index` lie in the content directory, which may belong to several roots; all
//! others lie in the root. See `content`.
//!
//! What a command decides under `store` stays true until it has written its result, because
//! only a removal takes anything away, and a removal holds `store` alone. A removal that waits
//! holds `queue`, so pulls that start later wait behind it, and it behind those that run: no
//! side starves the other. A command that only reads passes `queue` by: it is done in
//! milliseconds, and must not wait for a removal that waits for a long pull.
//!
//! A file is locked with flock(2), which the kernel releases with its process. A dockerd knows
//! none of these locks: a root that has a running one is refused (see `live`).

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::StoreError;
use super::layout::Layout;
use crate::fsutil::At;

/// How often a lock that another process holds is tried again.
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
        // It is still locked: a process that opened the file before sees that its name is gone.
        if self.remove {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether other processes may hold the lock as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Others may hold it in this mode too.
    Shared,
    /// This process alone.
    Exclusive,
}

/// The way to the `store` lock: first the queue, then the lock itself.
#[derive(Debug)]
pub struct Entrance {
    layout: Layout,
    mode: Mode,
    queue: Option<Lock>,
}

impl Entrance {
    /// Waits for nothing yet.
    pub fn new(layout: &Layout, mode: Mode) -> Self {
        Self { layout: layout.clone(), mode, queue: None }
    }

    /// Tries once; the holder's description if another process is in the way.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the lock files cannot be opened.
    pub fn attempt(&mut self) -> Result<Result<Lock, String>, StoreError> {
        if self.queue.is_none() {
            let path = self.layout.lock("queue");
            self.queue = attempt(&path, self.mode, false)?;
            if self.queue.is_none() {
                return Ok(Err(held("queue", &path)));
            }
        }
        let path = self.layout.lock("store");
        Ok(match attempt(&path, self.mode, false)? {
            Some(lock) => {
                self.queue = None;
                Ok(lock)
            }
            None => Err(held("store", &path)),
        })
    }
}

/// Tries once to take `store` as a command that only reads; the holder's description if a
/// removal is running. Without a lock file that this user can open nothing is locked: the root
/// is dockerd's alone, read-only or another user's, and no removal can run in it.
///
/// # Errors
/// [`StoreError::Fs`] if locking fails.
pub fn attempt_to_read(layout: &Layout) -> Result<Result<Option<Lock>, String>, StoreError> {
    let path = layout.lock("store");
    match attempt(&path, Mode::Shared, false) {
        Ok(Some(lock)) => Ok(Ok(Some(lock))),
        Ok(None) => Ok(Err(held("store", &path))),
        Err(StoreError::Fs(e)) if is_out_of_reach(&e.source) => Ok(Ok(None)),
        Err(e) => Err(e),
    }
}

fn is_out_of_reach(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied | ReadOnlyFilesystem)
}

/// Waits for a lock alone. `waiting` is called once, with a description of the holder, if
/// another process has it.
///
/// # Errors
/// [`StoreError::Fs`] if the lock file cannot be opened.
pub fn exclusive(path: &Path, waiting: &dyn Fn(&str)) -> Result<Lock, StoreError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    wait(waiting, || {
        let lock = attempt(path, Mode::Exclusive, false)?;
        Ok(lock.ok_or_else(|| held(&name, path)))
    })
}

/// Whether this process was told to stop waiting.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Ends every wait of this process for a lock, now and later: the user interrupted it.
pub fn stop_waiting() {
    STOPPED.store(true, Ordering::Relaxed);
}

/// Waits for the lock under which a layer is committed, repaired or given up. It is held for
/// moments, so nothing tells that it is waited for.
///
/// # Errors
/// [`StoreError::Fs`] if the lock file cannot be opened.
pub fn commit(layout: &Layout) -> Result<Lock, StoreError> {
    exclusive(&layout.lock("commit"), &|_| {})
}

/// Calls `attempt` until it gives a lock. `waiting` is called once, with the description of
/// the holder that the first attempt gave.
///
/// # Errors
/// The first error of `attempt`; [`StoreError::Interrupted`] after [`stop_waiting`].
pub fn wait<T>(
    waiting: &dyn Fn(&str),
    mut attempt: impl FnMut() -> Result<Result<T, String>, StoreError>,
) -> Result<T, StoreError> {
    let mut told = false;
    loop {
        match attempt()? {
            Ok(lock) => return Ok(lock),
            Err(holder) if !told => {
                waiting(&holder);
                told = true;
            }
            Err(_) if STOPPED.load(Ordering::Relaxed) => return Err(StoreError::Interrupted),
            Err(_) => {}
        }
        std::thread::sleep(POLL);
    }
}

/// Tries once to take a lock whose file is removed with it; the holder if another has it.
///
/// # Errors
/// [`StoreError::Fs`] if the lock file cannot be opened.
pub fn try_passing(path: &Path) -> Result<Result<Lock, String>, StoreError> {
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
            Ok(()) if same_file(&file, path) => {
                return Ok(Some(Lock { _file: file, path: path.to_owned(), remove }));
            }
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e).at("lock", path)?,
        }
    }
}

/// Opens a lock file, making it if it is missing. One that exists needs to be readable only.
fn open(path: &Path) -> io::Result<File> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = File::options();
    options.read(true).custom_flags(nofollow);
    match options.open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    options.write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn same_file(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(named)) = (file.metadata(), path.metadata()) else { return false };
    (ours.dev(), ours.ino()) == (named.dev(), named.ino())
}

fn held(name: &str, path: &Path) -> String {
    format!("the {name} lock, held by {}", holder(path))
}

/// The holder of a lock: `process 4242`, or `another process` if it is not known.
pub fn holder(path: &Path) -> String {
    // The kernel passes over a lock if others are released while the file is read.
    const READS: usize = 5;
    match (0..READS).find_map(|_| holder_in_proc(path)) {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

/// The process id of a lock's holder, from /proc/locks:
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

    fn layout() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path(), None);
        layout.create().unwrap();
        (dir, layout)
    }

    /// Takes a lock that was just released. It may take a moment: a process that another test
    /// starts has a copy of our file descriptors until its program runs.
    fn soon<T>(attempt: impl FnMut() -> Result<Result<T, String>, StoreError>) -> T {
        wait(&|_| {}, attempt).unwrap()
    }

    fn enter(layout: &Layout, mode: Mode) -> (Entrance, Result<Lock, String>) {
        let mut entrance = Entrance::new(layout, mode);
        let attempted = entrance.attempt().unwrap();
        (entrance, attempted)
    }

    #[test]
    fn passing_lock_excludes_names_its_holder_and_removes_its_file() {
        let (_dir, layout) = layout();
        let path = layout.lock("layer-x");
        let alone = try_passing(&path).unwrap().unwrap();
        let holder = try_passing(&path).unwrap().unwrap_err();
        assert!(holder.starts_with("process "), "{holder}");
        drop(alone);
        assert!(!path.exists());
        soon(|| try_passing(&path));
    }

    #[test]
    fn adders_share_the_store_and_a_removal_waits_for_them() {
        let (_dir, layout) = layout();
        let one = enter(&layout, Mode::Shared).1.unwrap();
        let two = enter(&layout, Mode::Shared).1.unwrap();
        let (mut removal, waiting) = enter(&layout, Mode::Exclusive);
        assert!(waiting.unwrap_err().starts_with("the store lock, held by process "));
        drop((one, two));
        soon(|| removal.attempt());
    }

    #[test]
    fn removal_that_waits_goes_before_adders_that_come_later() {
        let (_dir, layout) = layout();
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
    fn adder_that_waits_goes_before_removals_that_come_later() {
        let (_dir, layout) = layout();
        let first = enter(&layout, Mode::Exclusive).1.unwrap();
        let (mut adder, _) = enter(&layout, Mode::Shared);
        let (mut second, _) = enter(&layout, Mode::Exclusive);
        drop(first);
        assert!(second.attempt().unwrap().is_err(), "the adder is next");
        soon(|| adder.attempt());
    }

    #[test]
    fn reader_passes_a_removal_that_waits_but_not_one_that_runs() {
        let (_dir, layout) = layout();
        let running = enter(&layout, Mode::Shared).1.unwrap();
        let (mut removal, _) = enter(&layout, Mode::Exclusive);
        assert!(attempt_to_read(&layout).unwrap().unwrap().is_some());
        drop(running);
        let _removing = soon(|| removal.attempt());
        assert!(attempt_to_read(&layout).unwrap().is_err());
    }

    #[test]
    fn reader_of_a_root_without_locks_needs_none() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path(), None);
        assert!(attempt_to_read(&layout).unwrap().unwrap().is_none());
    }
}
