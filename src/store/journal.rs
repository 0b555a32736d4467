//! What is staged, and by which process. A journal is a file that its process holds locked;
//! it has one line per staged layer:
//!
//! ```text
//! <cache id> <link id> write-set-<random>\n
//! ```
//!
//! A journal that no process holds locked belongs to one that died.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::StoreError;
use super::layout::Layout;
use super::lock;
use crate::fsutil::{self, At};
use crate::overlay::{CacheId, LinkId};

/// One staged layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its directory in `overlay2`.
    pub cache_id: CacheId,
    /// Its symlink in `overlay2/l`.
    pub link_id: LinkId,
    /// The end of its write set's name: ten hex digits.
    pub random: String,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (cache, link, set) = (words.next()?, words.next()?, words.next()?);
        let random = set.strip_prefix("write-set-")?;
        let plain = !random.is_empty() && random.bytes().all(|b| b.is_ascii_hexdigit());
        let random = plain.then(|| random.to_owned())?;
        Some(Self { cache_id: cache.parse().ok()?, link_id: link.parse().ok()?, random })
    }
}

/// This process's journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    open: usize,
    left_over: bool,
}

impl Journal {
    /// Starts a journal.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the file cannot be made.
    pub fn start(layout: &Layout) -> Result<Self, StoreError> {
        let random = fsutil::random_hex::<8>().map_err(StoreError::Random)?;
        let path = layout.journals().join(format!("{}-{random}", std::process::id()));
        // Without the lock, another process could see the file before it is locked, take it
        // for a dead process's and remove it.
        let _commit = lock::commit(layout)?;
        let file = File::options()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .at("create", &path)?;
        file.lock().at("lock", &path)?;
        let state = Mutex::new(State { file, open: 0, left_over: false });
        Ok(Self { path, state })
    }

    pub(super) fn add(&self, entry: &Entry) -> Result<(), StoreError> {
        let line = format!("{} {} write-set-{}\n", entry.cache_id, entry.link_id, entry.random);
        let mut state = self.state();
        state.file.write_all(line.as_bytes()).at("write", &self.path)?;
        state.file.sync_data().at("sync", &self.path)?;
        state.open += 1;
        Ok(())
    }

    pub(super) fn settle(&self, clean: bool) {
        let mut state = self.state();
        state.open -= 1;
        state.left_over |= !clean;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let state = self.state();
        if state.open == 0 && !state.left_over {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The journal of a process that died; locked, so that one process alone acts on it.
pub(super) struct Dead {
    _file: File,
    path: PathBuf,
    /// What it staged.
    pub entries: Vec<Entry>,
}

impl Dead {
    /// All journals of dead processes. What is not a regular file is left alone. The caller
    /// holds the `commit` lock, so that no journal is just being started.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the directory or a journal cannot be read.
    pub fn all(layout: &Layout) -> Result<Vec<Self>, StoreError> {
        let dir = layout.journals();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).at("list", &dir)?,
        };
        let files = entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_file()));
        // Names may be any bytes: somebody else's file must not stop every command.
        files.filter_map(|entry| Self::open(&entry.path()).transpose()).collect()
    }

    /// The journal at `path`, unless a process holds it or has just removed it.
    fn open(path: &Path) -> Result<Option<Self>, StoreError> {
        let Ok(file) = File::open(path) else { return Ok(None) };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e).at("lock", path)?,
        }
        let bytes = fs::read(path).at("read", path)?;
        let text = String::from_utf8_lossy(&bytes);
        let entries = text.lines().filter_map(Entry::parse).collect();
        Ok(Some(Self { _file: file, path: path.to_owned(), entries }))
    }

    /// Removes the journal: nothing that it names is left.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if it cannot be removed.
    pub fn remove(self) -> Result<(), StoreError> {
        Ok(fsutil::remove(&self.path)?)
    }
}
