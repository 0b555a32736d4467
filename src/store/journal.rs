//! Journals of staged layers and removals, for cleanup after a killed process. Each process keeps
//! its own journal file locked; it has one line per staged layer and per image that is removed:
//!
//! ```text
//! <cache id> <link id> write-set-<random>\n
//! remove <image id> <chain id>...\n          its layers, base first
//! ```
//!
//! An unlocked journal belongs to a process that died.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::StoreError;
use super::layout::Layout;
use super::lock;
use crate::digest::Digest;
use crate::fsutil::{self, At};
use crate::oci::{ChainId, ImageId};
use crate::overlay::{CacheId, LinkId};

/// Bytes of a journal at most.
pub(super) const MAX_SIZE: u64 = 64 << 20;

/// One staged layer of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// Its directory in `overlay2`.
    pub cache_id: CacheId,
    /// Its symlink in `overlay2/l`.
    pub link_id: LinkId,
    /// The end of its write set's name: ten hex digits.
    pub random: String,
}

impl JournalEntry {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (cache, link, set) = (words.next()?, words.next()?, words.next()?);
        let random = set.strip_prefix("write-set-")?;
        let plain = !random.is_empty() && random.bytes().all(|b| b.is_ascii_hexdigit());
        let random = plain.then(|| random.to_owned())?;
        Some(Self { cache_id: cache.parse().ok()?, link_id: link.parse().ok()?, random })
    }
}

/// An image that is being removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovalEntry {
    /// The image.
    pub image: ImageId,
    /// Its layers, base first.
    pub chains: Vec<ChainId>,
}

impl RemovalEntry {
    fn parse(line: &str) -> Option<Self> {
        let mut ids = line.strip_prefix("remove ")?.split(' ').map(Digest::from_hex);
        let image = ImageId(ids.next()?.ok()?);
        let chains = ids.map(|id| id.map(ChainId)).collect::<Result<_, _>>().ok()?;
        Some(Self { image, chains })
    }

    fn line(&self) -> String {
        let chains = self.chains.iter().map(|chain| format!(" {}", chain.hex()));
        format!("remove {}{}\n", self.image.hex(), chains.collect::<String>())
    }
}

/// This process's journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    state: Mutex<JournalState>,
}

#[derive(Debug)]
struct JournalState {
    file: File,
    open_entries: usize,
    incomplete_removal: bool,
}

impl Journal {
    /// Creates the journal of this process.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the file cannot be created.
    pub fn start(layout: &Layout) -> Result<Self, StoreError> {
        let random = fsutil::random_hex::<8>().map_err(StoreError::Random)?;
        let path = layout.journals().join(format!("{}-{random}", std::process::id()));
        // Without the commit lock, another process could find the file before it is locked, and
        // remove it as the journal of a dead process.
        let _commit = lock::commit_lock(layout)?;
        let file = File::options()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .at("create", &path)?;
        file.lock().at("lock", &path)?;
        let state = Mutex::new(JournalState { file, open_entries: 0, incomplete_removal: false });
        Ok(Self { path, state })
    }

    pub(super) fn add(&self, entry: &JournalEntry) -> Result<(), StoreError> {
        let line = format!("{} {} write-set-{}\n", entry.cache_id, entry.link_id, entry.random);
        self.write(&line)
    }

    /// Announces a removal. The caller closes the entry when all of the image is gone.
    pub(super) fn add_removal(&self, removal: &RemovalEntry) -> Result<(), StoreError> {
        self.write(&removal.line())
    }

    fn write(&self, line: &str) -> Result<(), StoreError> {
        let mut state = self.state();
        state.file.write_all(line.as_bytes()).at("write", &self.path)?;
        state.open_entries += 1;
        Ok(())
    }

    pub(super) fn close_entry(&self, removed: bool) {
        let mut state = self.state();
        state.open_entries -= 1;
        state.incomplete_removal |= !removed;
    }

    fn state(&self) -> MutexGuard<'_, JournalState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let state = self.state();
        if state.open_entries == 0 && !state.incomplete_removal {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The journal of a process that died, locked so that only one process handles it.
pub(super) struct DeadJournal {
    _file: File,
    path: PathBuf,
    /// The layers that the process staged.
    pub entries: Vec<JournalEntry>,
    /// The removals that it began.
    pub removals: Vec<RemovalEntry>,
}

impl DeadJournal {
    /// Returns all journals of dead processes. Files that are not regular are ignored. The caller
    /// holds the `commit` lock, so that no journal is being created.
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
        // Names may be any bytes: a foreign file must not stop every command.
        files.filter_map(|entry| Self::open(&entry.path()).transpose()).collect()
    }

    /// Opens the journal at `path`, unless it is locked or was just removed.
    fn open(path: &Path) -> Result<Option<Self>, StoreError> {
        let Ok(file) = fsutil::open(path) else { return Ok(None) };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e).at("lock", path)?,
        }
        let bytes = fsutil::read(path, MAX_SIZE).at("read", path)?;
        let text = String::from_utf8_lossy(&bytes);
        let entries = text.lines().filter_map(JournalEntry::parse).collect();
        let removals = text.lines().filter_map(RemovalEntry::parse).collect();
        Ok(Some(Self { _file: file, path: path.to_owned(), entries, removals }))
    }

    /// Removes the journal, after all its layers were removed.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if it cannot be removed.
    pub fn remove(self) -> Result<(), StoreError> {
        Ok(fsutil::remove(&self.path)?)
    }
}
