//! Manifests, indexes and configs as they were served, and kept blobs: an OCI image layout
//! (OCI image-spec image-layout.md) that a CI cache can save and restore as plain files, and
//! that any number of roots share.
//!
//! ```text
//! <content>/                                0755
//! ├── oci-layout                      file  0644  makes it an image layout
//! ├── index.json                      file  0644  IndexFile; replaced whole under locks/index
//! ├── blobs/sha256/<digest>           file  0644  renamed into place whole, never changed
//! ├── ingest/<digest>-<random>        file  0644  Ingest; locked by its writer
//! ├── ingest/<digest>.{partial,ranges} file 0644  Partial; what arrived of a blob
//! ├── locks/{index,queue,use}         file  0644  ContentLock
//! ├── locks/blob-<digest>             file  0644  ContentLock
//! └── shared                          file  0644  marks use by several roots: trimmed on demand only
//! ```
//!
//! Directories below it and files in it that are symbolic links are never followed (see
//! `dir`). The locks are described in `store/lock`.

mod check;
mod dir;
mod index;
mod ingest;
mod layout_file;
mod locks;
mod orphans;
mod partial;
mod trim;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, FileType, StatxAttributes, StatxFlags};

use super::StoreError;
use super::layout::Layout;
use crate::digest::Digest;
use crate::fsutil::{self, At};
use crate::oci::Descriptor;
use crate::reference::Reference;

use dir::Dir;
use index::IndexFile;

pub use ingest::Ingest;
pub use locks::ContentLock;
pub use partial::Partial;

const BLOBS: &str = "blobs";
const SHA256: &str = "sha256";
const INGEST: &str = "ingest";
const LOCKS: &str = "locks";
const INDEX_LOCK: &str = "index";
const BLOB_LOCK: &str = "blob-";
const INDEX: &str = "index.json";
const SHARED: &str = "shared";

/// The files beside the directories. They are written through `ingest/`.
const FILES: [&str; 3] = [INDEX, layout_file::NAME, SHARED];

const WHY_SHARED: &[u8] =
    b"Several roots may use this directory: only `rpull gc --trim-content` removes from it.\n";

/// Bytes of a manifest or config at most; the limits of `registry` are lower.
const MAX_DOCUMENT_SIZE: u64 = 32 << 20;

/// Bytes of `index.json` at most.
const MAX_INDEX_SIZE: u64 = 256 << 20;

/// The content store of a root.
#[derive(Debug)]
pub struct Content {
    layout: Layout,
    swept: AtomicBool,
    refused: AtomicBool,
}

/// The open directories of a content store.
struct Dirs {
    root: Dir,
    blobs: Dir,
    ingest: Dir,
    locks: Dir,
}

/// The content of `index.json`.
enum IndexState {
    Valid(IndexFile),
    /// Something that is not an index, or not even a file.
    Damaged,
}

impl Content {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, swept: AtomicBool::new(false), refused: AtomicBool::new(false) }
    }

    /// Returns the path of the content directory.
    pub fn path(&self) -> &Path {
        self.layout.content()
    }

    /// Opens a blob for reading, if it is a regular file that this user can read. Its bytes are
    /// not verified.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if it cannot be opened, or a directory is a symbolic link.
    pub fn open(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        let Some(root) = Dir::open(self.path())? else { return Ok(None) };
        let Some(blobs) = root.dir(BLOBS)? else { return Ok(None) };
        let Some(blobs) = blobs.dir(SHA256)? else { return Ok(None) };
        match blobs.file(&digest.hex()) {
            Err(e) if e.source.kind() == io::ErrorKind::PermissionDenied => Ok(None),
            other => Ok(other?),
        }
    }

    /// Returns whether there is a blob of this size. Its bytes are not verified.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if it cannot be opened.
    pub fn has(&self, digest: &Digest, size: u64) -> Result<bool, StoreError> {
        let Some(file) = self.open(digest)? else { return Ok(false) };
        Ok(file.metadata().at("look at", self.path())?.len() == size)
    }

    /// Returns the digests that `index.json` lists for a reference, in its order.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the file cannot be read.
    pub fn lookup(&self, reference: &Reference) -> Result<Vec<Digest>, StoreError> {
        let Some(root) = Dir::open(self.path())? else { return Ok(Vec::new()) };
        Ok(match read_index(&root)? {
            IndexState::Valid(index) => index.lookup(reference),
            IndexState::Damaged => Vec::new(),
        })
    }

    /// Tries once to take the right to use the content: a trim waits until it is released. Returns a
    /// description of the holder if a trim is running or waits, and `None` if the directory is
    /// read-only.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the lock files cannot be opened or locked.
    pub fn try_use(&self) -> Result<Result<Option<ContentLock>, String>, StoreError> {
        let Some(dirs) = self.dirs()? else { return Ok(Ok(None)) };
        Ok(locks::try_use(&dirs.locks)?.map(Some))
    }

    /// Returns the bytes of a document. A damaged one counts as absent: it can be fetched again.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if it cannot be read.
    pub fn get(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        let Some(file) = self.open(digest)? else { return Ok(None) };
        let bytes = read(&file, MAX_DOCUMENT_SIZE).at("read", self.path())?;
        Ok(bytes.filter(|bytes| Digest::of(bytes) == *digest).map(Bytes::from))
    }

    /// Stores bytes under their digest. Does nothing if the content directory is read-only.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if they cannot be written.
    pub fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let Some(dirs) = self.dirs()? else { return Ok(()) };
        if self.get(digest)?.is_none() {
            Ingest::new(&dirs.ingest, &dirs.blobs, digest.hex())?.write_and_commit(bytes)?;
        }
        Ok(())
    }

    /// Creates a blob whose bytes the caller writes and verifies; `None` if the content
    /// directory is read-only.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if its file cannot be created.
    pub fn ingest(&self, digest: &Digest) -> Result<Option<Ingest>, StoreError> {
        let Some(dirs) = self.dirs()? else { return Ok(None) };
        Ok(Some(Ingest::new(&dirs.ingest, &dirs.blobs, digest.hex())?))
    }

    /// Tries once to lock a blob for fetching and keeping it. Returns a description of the holder
    /// if another process has the lock, and `None` if the directory is read-only.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the lock file cannot be opened or locked.
    pub fn try_lock_blob(
        &self,
        digest: &Digest,
    ) -> Result<Option<Result<ContentLock, String>>, StoreError> {
        let Some(dirs) = self.dirs()? else { return Ok(None) };
        locks::try_temporary(&dirs.locks, format!("{BLOB_LOCK}{}", digest.hex())).map(Some)
    }

    /// Returns whether this is the first call: the warning about a read-only directory is sent
    /// once.
    pub fn is_first_refusal(&self) -> bool {
        !self.refused.swap(true, Ordering::Relaxed)
    }

    /// Lists a manifest or index in `index.json` under its names. Does nothing if the content
    /// directory is read-only.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the file cannot be read or written.
    pub fn add_names(
        &self,
        descriptor: &Descriptor,
        names: &[Reference],
    ) -> Result<(), StoreError> {
        let Some(dirs) = self.dirs()? else { return Ok(()) };
        let _lock = dirs.lock_index()?;
        let mut index = match dirs.index()? {
            IndexState::Valid(index) => index,
            IndexState::Damaged => dirs.set_index_aside()?,
        };
        let names: Vec<String> = names.iter().map(Reference::canonical).collect();
        let changed = index.set(descriptor, &names);
        if changed.map_err(|e| dirs.damaged(&e))? { dirs.write_index(&index) } else { Ok(()) }
    }

    /// Replaces a damaged `index.json` by an empty one. Does nothing if the content directory is
    /// read-only.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if the file cannot be read or written.
    pub fn repair_index(&self) -> Result<(), StoreError> {
        let Some(dirs) = self.dirs()? else { return Ok(()) };
        let _lock = dirs.lock_index()?;
        match dirs.index()? {
            IndexState::Valid(_) => Ok(()),
            IndexState::Damaged => dirs.write_index(&dirs.set_index_aside()?),
        }
    }

    /// Removes what killed processes left, as far as the directory exists and can be written.
    pub(super) fn sweep(&self) {
        if matches!(Dir::open(self.path()), Ok(Some(_))) {
            // A command that does not use the content does not fail by it.
            let _ = self.dirs();
        }
    }

    /// Opens the directories and creates missing ones; `None` if the content directory exists
    /// and is read-only. The first call removes what killed processes left.
    fn dirs(&self) -> Result<Option<Dirs>, StoreError> {
        let root = match Dir::open(self.path())? {
            Some(root) => root,
            None => self.create()?,
        };
        let dirs = match self.open_or_make(root) {
            Err(StoreError::Fs(e)) if fsutil::is_read_only(&e.source) => return Ok(None),
            other => other?,
        };
        if !self.swept.swap(true, Ordering::Relaxed) {
            ingest::sweep(&dirs.ingest, &dirs.locks);
            partial::sweep(&dirs.ingest, &dirs.locks);
        }
        Ok(Some(dirs))
    }

    fn create(&self) -> Result<Dir, StoreError> {
        let path = self.path();
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).at("create directory", parent)?;
        }
        fsutil::ensure_dir(path, 0o755)?;
        Ok(Dir::open(path)?
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
            .at("open", path)?)
    }

    fn open_or_make(&self, root: Dir) -> Result<Dirs, StoreError> {
        let dirs = Dirs {
            blobs: root.ensure_dir(BLOBS)?.ensure_dir(SHA256)?,
            ingest: root.ensure_dir(INGEST)?,
            locks: root.ensure_dir(LOCKS)?,
            root,
        };
        for dir in [&dirs.root, &dirs.blobs, &dirs.ingest, &dirs.locks] {
            dir.must_be_writable()?;
        }
        let mark = dirs.root.stat(SHARED).is_none() && !self.is_own();
        let (lay_out, begin) =
            (!layout_file::is_valid(&dirs.root)?, dirs.root.stat(INDEX).is_none());
        if !(mark || lay_out || begin) {
            return Ok(dirs);
        }
        // Without the lock, a trim could see the directory unmarked and remove from it later.
        let _lock = dirs.lock_index()?;
        if mark {
            dirs.write(SHARED, WHY_SHARED)?;
        }
        if lay_out {
            dirs.write(layout_file::NAME, layout_file::TEXT)?;
        }
        if begin && dirs.root.stat(INDEX).is_none() {
            dirs.write_index(&IndexFile::empty().map_err(|e| dirs.damaged(&e))?)?;
        }
        Ok(dirs)
    }

    /// Returns whether only this root uses the content directory: it is at the default path, and
    /// neither a symbolic link nor a mount point, through which other roots could share it.
    fn is_own(&self) -> bool {
        let own = self.layout.own_content();
        let (Ok(ours), Ok(used)) = (own.canonicalize(), self.path().canonicalize()) else {
            return false;
        };
        let (flags, mask) = (AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE);
        let Ok(stat) = rustix::fs::statx(CWD, &own, flags, mask) else { return false };
        ours == used
            && FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory
            && !stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
    }
}

impl Dirs {
    fn lock_index(&self) -> Result<ContentLock, StoreError> {
        locks::exclusive(&self.locks, INDEX_LOCK)
    }

    fn index(&self) -> Result<IndexState, StoreError> {
        read_index(&self.root)
    }

    /// Keeps a damaged index under another name, and returns an empty one. The blobs stay.
    fn set_index_aside(&self) -> Result<IndexFile, StoreError> {
        let random = fsutil::random_hex::<8>().map_err(StoreError::Random)?;
        self.root.rename_from(&self.root, INDEX, &format!("{INDEX}.damaged-{random}"))?;
        IndexFile::empty().map_err(|e| self.damaged(&e))
    }

    fn write_index(&self, index: &IndexFile) -> Result<(), StoreError> {
        let text = index.to_bytes().map_err(|e| self.damaged(&e))?;
        self.write(INDEX, &text)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        Ok(Ingest::new(&self.ingest, &self.root, name.to_owned())?.write_and_commit(bytes)?)
    }

    fn damaged(&self, error: &serde_json::Error) -> StoreError {
        StoreError::Damaged { path: self.root.path().join(INDEX), why: error.to_string() }
    }
}

/// Reads `index.json` of the content directory `root`. One that is missing or blank is an empty index.
fn read_index(root: &Dir) -> Result<IndexState, StoreError> {
    let path = root.path().join(INDEX);
    let empty = || {
        IndexFile::empty()
            .map(IndexState::Valid)
            .map_err(|e| StoreError::Damaged { path: path.clone(), why: e.to_string() })
    };
    let Some(file) = root.file(INDEX)? else {
        return if root.stat(INDEX).is_some() { Ok(IndexState::Damaged) } else { empty() };
    };
    let text = read(&file, MAX_INDEX_SIZE).at("read", &path)?;
    let Some(text) = text else { return Ok(IndexState::Damaged) };
    match text.trim_ascii().is_empty() {
        true => empty(),
        false => Ok(IndexFile::parse(&text).map_or(IndexState::Damaged, IndexState::Valid)),
    }
}

/// Reads the file to its end; `None` if it is larger than `max_size` bytes.
fn read(file: &File, max_size: u64) -> io::Result<Option<Vec<u8>>> {
    // Large enough to read most documents in one step.
    let mut bytes = Vec::with_capacity(8 << 10);
    file.take(max_size + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= max_size).then_some(bytes))
}
