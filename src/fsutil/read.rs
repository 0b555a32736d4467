//! Whole files of a root, in which any path can lead to something that is not a file: a FIFO blocks
//! its reader, and a device may have no end.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{At, FsError};

/// Bytes that are read per step; most files of a store are smaller.
const STEP_SIZE: usize = 4096;

/// Bytes of a record or a list of a store at most.
const MAX_TEXT_SIZE: u64 = 64 << 20;

/// Opens a regular file for reading, or what a symbolic link to one leads to.
///
/// # Errors
/// The error of open(2); [`io::ErrorKind::InvalidData`] if something else is there.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        // A symbolic link to itself, a socket, or a device without a driver.
        Err(e) if is_one_of(&e, &[Errno::LOOP, Errno::NXIO, Errno::NODEV]) => {
            return Err(irregular());
        }
        other => other?,
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(irregular()) }
}

/// Returns the bytes of a regular file.
///
/// # Errors
/// As of [`open`], and [`io::ErrorKind::InvalidData`] if it has more than `max_size` bytes.
pub fn read(path: &Path, max_size: u64) -> io::Result<Vec<u8>> {
    // Most files of a store are tiny, and checking an image reads hundreds.
    let mut buffer = [0; STEP_SIZE];
    let mut file = open(path)?;
    let mut bytes = Vec::new();
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(bytes),
            n => bytes.extend_from_slice(&buffer[..n]),
        }
        if bytes.len() as u64 > max_size {
            let why = format!("it is larger than {max_size} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
    }
}

/// Returns the text of a record; `None` if it does not exist. Bytes that are not UTF-8 become U+FFFD,
/// and so does something that is not a regular file, so that parsing damaged content fails.
///
/// # Errors
/// [`FsError`] if it cannot be read.
pub fn read_optional(path: &Path) -> Result<Option<String>, FsError> {
    match read_optional_bytes(path, MAX_TEXT_SIZE) {
        Ok(bytes) => Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if is_damage(&e.source) => Ok(Some(char::REPLACEMENT_CHARACTER.to_string())),
        Err(e) => Err(e),
    }
}

/// Returns the bytes of a regular file; `None` if it does not exist.
///
/// # Errors
/// [`FsError`] if it cannot be read, is not a regular file or has more than `max_size` bytes.
pub fn read_optional_bytes(path: &Path, max_size: u64) -> Result<Option<Vec<u8>>, FsError> {
    match read(path, max_size) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if is_absent(&e) => Ok(None),
        Err(e) => Err(e).at("read", path),
    }
}

/// Returns whether an error of [`open`] means that there is nothing: also below a file.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Returns whether an error of [`read`] means that what is there is not such a file.
pub fn is_damage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

fn irregular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file")
}

fn is_one_of(error: &io::Error, codes: &[Errno]) -> bool {
    codes.iter().any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_not_a_regular_file_is_damage_and_a_missing_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let kind = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), kind, mode, 0).unwrap();
        symlink("/dev/zero", at("device")).unwrap();
        symlink("loop", at("loop")).unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for name in ["fifo", "device", "loop", "directory", "socket"] {
            let error = read_optional_bytes(&at(name), 10).unwrap_err();
            assert!(is_damage(&error.source), "{name}: {error}");
            assert_eq!(read_optional(&at(name)).unwrap().as_deref(), Some("\u{fffd}"), "{name}");
        }
        std::fs::write(at("file"), "0123456789").unwrap();
        symlink("file", at("link")).unwrap();
        assert_eq!(read_optional(&at("link")).unwrap().as_deref(), Some("0123456789"));
        assert_eq!(read_optional_bytes(&at("file"), 10).unwrap().unwrap(), b"0123456789");
        assert!(is_damage(&read_optional_bytes(&at("file"), 9).unwrap_err().source));
        for name in ["absent", "file/below"] {
            assert_eq!(read_optional_bytes(&at(name), 10).unwrap(), None, "{name}");
        }
    }
}
