//! File operations that are atomic, durable where asked, and whose errors name the path.

use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use data_encoding::HEXLOWER;

/// Bytes of one of the [`buffers`] at most.
const BUFFER_SIZE: usize = 256 << 10;

/// Bytes that a small file of a store has at most; larger ones are read in several steps.
const SMALL: usize = 4096;

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {op} {}: {source}", path.display())]
pub struct FsError {
    /// What was done: `write`, `open`.
    pub op: &'static str,
    /// To which file.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

/// Gives an io result its operation and path.
pub trait At<T> {
    /// Names what was done to which path.
    ///
    /// # Errors
    /// The same error, named.
    fn at(self, op: &'static str, path: &Path) -> Result<T, FsError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, op: &'static str, path: &Path) -> Result<T, FsError> {
        self.map_err(|e| FsError { op, path: path.to_owned(), source: e.into() })
    }
}

/// `Read::read` for a reader that keeps a buffer anyway.
///
/// # Errors
/// The reader's own.
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

/// Random bytes as lower-case hex.
///
/// # Errors
/// The kernel's generator failed.
pub fn random_hex<const N: usize>() -> io::Result<String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(HEXLOWER.encode(&bytes))
}

/// Makes the directory with exactly `mode`, whatever the umask; one that is there is left
/// as it is.
///
/// # Errors
/// [`FsError`].
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
/// [`FsError`].
pub fn set_mode(path: &Path, mode: u32) -> Result<(), FsError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).at("set the mode of", path)
}

/// Replaces the file at `path` by `bytes`: readers see the old content or the new, and
/// after a crash one of them is whole (moby atomicwriter: temporary file, fsync, chmod,
/// rename; the directory's fsync is ours).
///
/// # Errors
/// [`FsError`]; the temporary file is gone.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FsError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temp = dir.join(format!(".tmp-{name}{}", random_hex::<6>().at("write", path)?));
    let done =
        write_new(&temp, bytes, mode).and_then(|()| fs::rename(&temp, path).at("write", path));
    if done.is_err() {
        let _ = fs::remove_file(&temp);
    }
    done?;
    sync_dir(dir)
}

/// Writes a file that must not exist yet, and syncs it.
///
/// # Errors
/// [`FsError`].
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FsError> {
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().at("write", path)
}

/// Makes renames and new names in `dir` durable.
///
/// # Errors
/// [`FsError`].
pub fn sync_dir(dir: &Path) -> Result<(), FsError> {
    File::open(dir).and_then(|dir| dir.sync_all()).at("sync", dir)
}

/// The file's text, or `None` if there is no such file. Bytes that are not UTF-8 become
/// U+FFFD, so that damaged content fails where it is parsed.
///
/// # Errors
/// [`FsError`].
pub fn read_optional(path: &Path) -> Result<Option<String>, FsError> {
    let bytes = read_optional_bytes(path)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// The file's bytes, or `None` if there is no such file.
///
/// # Errors
/// [`FsError`].
pub fn read_optional_bytes(path: &Path) -> Result<Option<Vec<u8>>, FsError> {
    // Most files of a store are tiny, and a look at an image reads hundreds: with a buffer at
    // hand, none of them has to be asked for its size first.
    let mut buffer = [0; SMALL];
    let read = File::open(path).and_then(|mut file| {
        let mut bytes = Vec::new();
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(bytes),
                n => bytes.extend_from_slice(&buffer[..n]),
            }
        }
    });
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).at("read", path),
    }
}

/// The names in a directory, sorted; none if there is no such directory.
///
/// # Errors
/// [`FsError`].
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

/// Removes a file or a whole directory; that nothing is there is fine.
///
/// # Errors
/// [`FsError`].
pub fn remove(path: &Path) -> Result<(), FsError> {
    let gone = |result: io::Result<()>| match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    let directory = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    if !directory {
        return gone(fs::remove_file(path)).at("remove", path);
    }
    match gone(fs::remove_dir_all(path)) {
        // Without root, a layer's own modes can forbid removing what is ours.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path);
            gone(fs::remove_dir_all(path)).at("remove", path)
        }
        other => other.at("remove", path),
    }
}

fn open_up(dir: &Path) {
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        open_up(&entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_file_has_its_mode_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_atomic(&path, b"one", 0o600).unwrap();
        write_atomic(&path, b"two", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(names_in(dir.path()).unwrap(), ["f"]);
    }

    #[test]
    fn error_of_a_file_operation_names_the_path() {
        let error = write_atomic(Path::new("/nonexistent/f"), b"", 0o600).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/"), "{error}");
    }
}
