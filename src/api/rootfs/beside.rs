//! Directories for files that are not complete.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::error::Error;
use crate::fsutil::{self, At, is_at, names_in, random_hex};

/// What the names begin with. Sixteen hexadecimal digits follow.
const PREFIX: &str = ".rpull-";

/// A directory beside a file, for what becomes the file. It is removed when it is dropped. Its lock
/// (flock) tells it from one that a killed process has left.
pub struct Beside {
    path: PathBuf,
    _lock: File,
}

impl Beside {
    /// Creates a directory beside `file`, and removes those of killed processes of this user.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn new(file: &Path) -> Result<Self, Error> {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        sweep(parent);
        loop {
            let name = format!("{PREFIX}{}", random_hex::<8>().at("create", file)?);
            let path = parent.join(name);
            // Copies have the modes and owners of the image.
            fsutil::ensure_dir(&path, 0o700)?;
            // A sweep may have seen the directory before it was locked, and removed it.
            if let Some(lock) = lock(&path) {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    /// Returns the path of a file in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = fsutil::remove(&self.path);
    }
}

/// Removes the directories of killed processes. Those of other users stay, and errors do not matter, since
/// nothing needs their names.
fn sweep(parent: &Path) {
    let user = rustix::process::geteuid().as_raw();
    for name in names_in(parent).unwrap_or_default() {
        let random = name.strip_prefix(PREFIX).unwrap_or_default();
        if random.len() != 16 || !random.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            continue;
        }
        let path = parent.join(&name);
        let lock = lock(&path);
        if lock.is_some_and(|dir| dir.metadata().is_ok_and(|meta| meta.uid() == user)) {
            let _ = fsutil::remove(&path);
        }
    }
}

/// Locks the directory `path`; `None` if it is not a directory, was removed, or is in use.
fn lock(path: &Path) -> Option<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let dir =
        File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path).ok()?;
    dir.try_lock().ok()?;
    is_at(&dir, path).then_some(dir)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn directory_of_a_killed_process_is_removed_by_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let left = dir.path().join(".rpull-0123456789abcdef");
        fs::create_dir_all(left.join("rootfs")).unwrap();
        let other = dir.path().join(".rpull-of-another");
        fs::create_dir(&other).unwrap();
        let plain = dir.path().join(".rpull-fedcba9876543210");
        fs::write(&plain, "").unwrap();
        let one = Beside::new(&file).unwrap();
        let two = Beside::new(&file).unwrap();
        assert!(!left.exists() && other.is_dir() && plain.is_file());
        assert!(one.path("").is_dir() && two.path("").is_dir());
        drop((one, two));
        assert_eq!(names_in(dir.path()).unwrap().len(), 2);
    }
}
