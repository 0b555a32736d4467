//! Atomic and durable file operations, with errors that contain the path.

#[cfg(debug_assertions)]
mod failpoint;
mod new_file;
mod read;
mod temporary;

use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use data_encoding::HEXLOWER;

pub use new_file::NewFile;
pub use read::{is_absent, is_damage, open, read, read_optional, read_optional_bytes};
pub use temporary::{Durability, Temporary};

/// Bytes per buffer of [`buffers`] at most.
const BUFFER_SIZE: usize = 256 << 10;

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {op} {}: {source}", path.display())]
pub struct FsError {
    /// The operation: `write`, `open`.
    pub op: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

/// Adds operation and path to an I/O error.
pub trait At<T> {
    /// Adds the operation and the path to the error.
    ///
    /// # Errors
    /// The error with operation and path.
    fn at(self, op: &'static str, path: &Path) -> Result<T, FsError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, op: &'static str, path: &Path) -> Result<T, FsError> {
        #[cfg(debug_assertions)]
        failpoint::pass(op, path);
        self.map_err(|e| FsError { op, path: path.to_owned(), source: e.into() })
    }
}

/// Returns whether an error means that this user may not write there.
pub fn is_read_only(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem)
}

/// Returns whether `path` names the open file `file`, which it may not after another process
/// removed or replaced it. A symbolic link at `path` is another file.
pub fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), path.symlink_metadata()) else { return false };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

/// Returns whether two paths lead to the same file or directory.
pub fn is_same(a: &Path, b: &Path) -> bool {
    let (Ok(a), Ok(b)) = (a.metadata(), b.metadata()) else { return false };
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Implements `Read::read` by the buffer of `reader`.
///
/// # Errors
/// The error of the reader.
pub fn read_buffered(reader: &mut impl BufRead, out: &mut [u8]) -> io::Result<usize> {
    let buffer = reader.fill_buf()?;
    let n = buffer.len().min(out.len());
    out[..n].copy_from_slice(&buffer[..n]);
    reader.consume(n);
    Ok(n)
}

/// A source of bytes, in buffers that can be shared without a copy.
pub trait Buffers: Iterator<Item = io::Result<Bytes>> {}

impl<I: Iterator<Item = io::Result<Bytes>>> Buffers for I {}

/// Returns the bytes of `reader` in buffers of up to 256 KiB, to its end or its first error.
pub fn buffers(mut reader: impl Read) -> impl Buffers {
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed {
            return None;
        }
        let mut bytes = Vec::with_capacity(BUFFER_SIZE);
        match reader.by_ref().take(BUFFER_SIZE as u64).read_to_end(&mut bytes) {
            Ok(0) => None,
            Ok(_) => Some(Ok(bytes.into())),
            Err(e) => {
                failed = true;
                Some(Err(e))
            }
        }
    })
}

/// Returns `N` random bytes as lower-case hex.
///
/// # Errors
/// The kernel's random generator failed.
pub fn random_hex<const N: usize>() -> io::Result<String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(HEXLOWER.encode(&bytes))
}

/// Creates a directory with exactly `mode`, regardless of the umask. Does nothing if it exists.
///
/// # Errors
/// [`FsError`] if it cannot be created.
pub fn ensure_dir(path: &Path, mode: u32) -> Result<(), FsError> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        Err(e) => return Err(e).at("create directory", path),
    }
    set_mode(path, mode)
}

/// Sets the permission bits.
///
/// # Errors
/// [`FsError`] if chmod(2) fails.
pub fn set_mode(path: &Path, mode: u32) -> Result<(), FsError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).at("set the mode of", path)
}

/// Writes a file that must not exist yet.
///
/// # Errors
/// [`FsError`] if it exists or cannot be written.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FsError> {
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)
    };
    write().at("write", path)
}

/// Makes renames and new names in `dir` durable.
///
/// # Errors
/// [`FsError`] if fsync(2) fails.
pub fn sync_dir(dir: &Path) -> Result<(), FsError> {
    File::open(dir).and_then(|dir| dir.sync_all()).at("sync", dir)
}

/// Renames a file to `to`, where it replaces what is there, also a directory.
///
/// # Errors
/// The error of rename(2), or of removing the directory.
pub fn rename_over(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::IsADirectory => {
            remove(to).map_err(|e| e.source)?;
            fs::rename(from, to)
        }
        other => other,
    }
}

/// Returns the names in a directory, sorted; none if the directory does not exist.
///
/// # Errors
/// [`FsError`] if it cannot be read.
pub fn names_in(dir: &Path) -> Result<Vec<String>, FsError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).at("list", dir),
    };
    let name = |entry: io::Result<fs::DirEntry>| {
        entry.map(|e| e.file_name().to_string_lossy().into_owned())
    };
    let mut names = entries.map(name).collect::<io::Result<Vec<_>>>().at("list", dir)?;
    names.sort();
    Ok(names)
}

/// Checks that a directory can be listed, if it exists.
///
/// # Errors
/// [`FsError`] if it cannot be read.
pub fn must_be_readable(dir: &Path) -> Result<(), FsError> {
    match fs::read_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("list", dir),
        _ => Ok(()),
    }
}

/// Removes a file or a directory tree. Does nothing if it does not exist.
///
/// # Errors
/// [`FsError`] if it cannot be removed.
pub fn remove(path: &Path) -> Result<(), FsError> {
    let ignore_missing = |result: io::Result<()>| match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    let directory = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    if !directory {
        return ignore_missing(fs::remove_file(path)).at("remove", path);
    }
    match ignore_missing(fs::remove_dir_all(path)) {
        // Without root, the modes of a layer's directories can prevent their removal.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            make_accessible(path);
            ignore_missing(fs::remove_dir_all(path)).at("remove", path)
        }
        other => other.at("remove", path),
    }
}

fn make_accessible(dir: &Path) {
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        make_accessible(&entry.path());
    }
}
