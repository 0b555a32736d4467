//! Where an archive is written: a tar stream, or a directory.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::ArchiveError;
use crate::fsutil::{self, At, NewFile};
use crate::layer::{EntryType, NewEntry, TarWriter};

/// The names that a layout has, and that an interrupted save can have left.
const BLOBS: &str = "blobs";
const SHA256: &str = "sha256";
const LAYOUT: &str = "oci-layout";

/// Takes the files of an archive, one after the other.
pub trait Sink {
    /// Whether a file that refers to others must come after them.
    const REFERRERS_LAST: bool;

    /// Begins a file of `size` bytes at `path`.
    ///
    /// # Errors
    /// [`ArchiveError`] if it cannot be created.
    fn begin(&mut self, path: &str, size: u64) -> Result<(), ArchiveError>;

    /// Writes the next bytes of the file.
    ///
    /// # Errors
    /// [`ArchiveError::Write`].
    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError>;

    /// Ends the file, which has all its bytes.
    ///
    /// # Errors
    /// [`ArchiveError`] if it cannot be written.
    fn end(&mut self) -> Result<(), ArchiveError>;

    /// Ends the archive.
    ///
    /// # Errors
    /// [`ArchiveError`] if it cannot be written.
    fn finish(&mut self) -> Result<(), ArchiveError>;
}

/// Writes a tar, whose owners, modes and times are fixed, so that the same images give the same bytes.
pub struct TarSink<W> {
    tar: TarWriter<W>,
    dirs: Vec<String>,
}

impl<W: Write> TarSink<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { tar: TarWriter::new(out), dirs: Vec::new() }
    }

    /// Returns the output.
    pub fn into_inner(self) -> W {
        self.tar.into_inner()
    }

    fn entry(&mut self, path: &str, kind: EntryType, mode: u32, size: u64) -> io::Result<()> {
        let name = path.as_bytes();
        self.tar.entry(&NewEntry { name, kind, mode, size, ..NewEntry::file() })
    }
}

impl<W: Write> Sink for TarSink<W> {
    const REFERRERS_LAST: bool = false;

    fn begin(&mut self, path: &str, size: u64) -> Result<(), ArchiveError> {
        for (at, _) in path.match_indices('/') {
            let dir = path[..=at].to_owned();
            if !self.dirs.contains(&dir) {
                self.entry(&dir, EntryType::Dir, 0o755, 0).map_err(ArchiveError::Write)?;
                self.dirs.push(dir);
            }
        }
        self.entry(path, EntryType::File, 0o644, size).map_err(ArchiveError::Write)
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.tar.bytes(bytes).map_err(ArchiveError::Write)
    }

    fn end(&mut self) -> Result<(), ArchiveError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), ArchiveError> {
        self.tar.end().map_err(ArchiveError::Write)
    }
}

/// Writes a directory. Each file appears whole, and `index.json` after the blobs: without it, the
/// directory is not a layout, and a later save continues.
pub struct DirSink {
    dir: PathBuf,
    file: Option<NewFile>,
}

impl DirSink {
    /// Writes to `dir`, which is created if it is missing.
    ///
    /// # Errors
    /// [`ArchiveError::NotEmpty`] if it has other files than those of an interrupted save.
    pub fn new(dir: &Path) -> Result<Self, ArchiveError> {
        if let Ok(meta) = dir.symlink_metadata()
            && !meta.is_dir()
            && !dir.is_dir()
        {
            return Err(not_empty(dir, "it is not a directory"));
        }
        for name in fsutil::names_in(dir)? {
            let path = dir.join(&name);
            // Nothing is written through a symbolic link.
            let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
            match name.as_str() {
                BLOBS if is_dir => {}
                LAYOUT if !is_dir => {}
                _ => return Err(not_empty(dir, &format!("it contains {name}"))),
            }
        }
        let blobs = dir.join(BLOBS);
        if fsutil::names_in(&blobs)?.iter().any(|name| name != SHA256)
            || blobs.join(SHA256).is_symlink()
        {
            return Err(not_empty(dir, "its blobs are not those of an interrupted save"));
        }
        fs::create_dir_all(blobs.join(SHA256)).at("create directory", &blobs)?;
        Ok(Self { dir: dir.to_owned(), file: None })
    }
}

impl Sink for DirSink {
    const REFERRERS_LAST: bool = true;

    fn begin(&mut self, path: &str, _size: u64) -> Result<(), ArchiveError> {
        self.file = Some(NewFile::create(&self.dir.join(path), 0o644)?);
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let closed = || io::Error::other("no file is open");
        let file = self.file.as_mut().ok_or_else(closed).map_err(ArchiveError::Write)?;
        file.write_all(bytes).map_err(ArchiveError::Write)
    }

    fn end(&mut self) -> Result<(), ArchiveError> {
        Ok(self.file.take().map_or(Ok(()), NewFile::commit)?)
    }

    fn finish(&mut self) -> Result<(), ArchiveError> {
        Ok(())
    }
}

fn not_empty(dir: &Path, why: &str) -> ArchiveError {
    ArchiveError::NotEmpty { dir: dir.to_owned(), why: why.to_owned() }
}
