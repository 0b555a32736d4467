//! Whether a file system can hold layers. dockerd does not use overlay2 where it cannot.

use std::ffi::CStr;
use std::io;
use std::path::Path;

use rustix::fs::{self, Dir, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::XattrSpace;
use crate::fsutil::{self, At, FsError};

/// The name of the whiteout that the probe creates.
const WHITEOUT: &CStr = c"whiteout";

/// Types of file systems for messages: the magic number of statfs(2) and the name.
const NAMES: [(u64, &str); 9] = [
    (0x794c_7630, "overlayfs"),
    (0x6969, "NFS"),
    (0x4d44, "FAT"),
    (0x2011_bab0, "exFAT"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9p"),
    (0xf15f, "eCryptfs"),
    (0x8584_58f6, "ramfs"),
    (0xff53_4d42, "CIFS"),
];

/// Checks what layers need of the file system of `dir`, a path that does not exist: whiteouts,
/// extended attributes and types in directories. Creates `dir` and removes it; one that a killed
/// process left is removed first. Returns what is missing.
///
/// # Errors
/// [`FsError`] if nothing can be created there for another reason, such as a full disk.
pub fn missing_for_layers(dir: &Path, space: XattrSpace) -> Result<Option<String>, FsError> {
    fsutil::remove(dir)?;
    fsutil::ensure_dir(dir, 0o700)?;
    let missing = probe(dir, space);
    fsutil::remove(dir)?;
    missing
}

/// Returns the name of the file system of `path`, for messages.
pub fn file_system(path: &Path) -> String {
    let magic = fs::statfs(path).map_or(0, |stat| stat.f_type.cast_unsigned());
    match NAMES.iter().find(|(known, _)| *known == magic) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("a file system of type {magic:#x}"),
    }
}

fn probe(dir: &Path, space: XattrSpace) -> Result<Option<String>, FsError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = fs::open(dir, flags, Mode::empty()).at("open", dir)?;
    // overlayfs refuses one with EPERM, because it hides files itself; FAT has no devices.
    match fs::mknodat(&fd, WHITEOUT, FileType::CharacterDevice, Mode::empty(), 0) {
        Err(e @ (Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS)) => {
            let e = io::Error::from(e);
            return Ok(Some(format!("it has no whiteouts (character devices 0:0): {e}")));
        }
        other => other.at("create a whiteout in", dir)?,
    }
    let name = space.opaque();
    match fs::setxattr(dir, name, b"y", XattrFlags::empty()) {
        Err(e @ Errno::OPNOTSUPP) => {
            let e = io::Error::from(e);
            return Ok(Some(format!("it has no extended attributes {name}: {e}")));
        }
        // Root without the capability for it can still unpack layers without opaque directories.
        Err(Errno::PERM) => {}
        other => other.at("set an attribute of", dir)?,
    }
    for entry in Dir::read_from(&fd).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        if entry.file_name() == WHITEOUT && entry.file_type() == FileType::Unknown {
            return Ok(Some("its directories do not have the types of files (d_type)".to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_of_a_usable_file_system_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("probe");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("whiteout"), "of a killed process").unwrap();
        let missing = missing_for_layers(&dir, XattrSpace::of_this_process()).unwrap();
        assert_eq!(missing, None);
        assert!(!dir.exists());
    }

    #[test]
    fn file_system_is_named() {
        assert!(file_system(Path::new("/proc")).starts_with("a file system of type 0x9fa0"));
    }
}
