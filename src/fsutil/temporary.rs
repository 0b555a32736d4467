//! Temporary files for atomic replacements, in one directory per root. A writer keeps its file
//! locked (flock), so the file of a killed process is told from one that is being written.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{At, FsError, is_at, names_in, random_hex, remove, rename_over, sync_dir};

/// Whether a replaced file must survive a power failure when the call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It does: the file and its directory are synced.
    Synced,
    /// It may be lost or damaged, which its reader notices.
    Unsynced,
}

/// A directory for temporary files, on the file system of the files that they replace.
#[derive(Debug, Clone)]
pub struct Temporary(PathBuf);

impl Temporary {
    /// Uses the directory `path`, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Replaces the file at `path` by `bytes`, atomically: readers see the old content or the new
    /// (moby atomicwriter: temporary file, fsync, chmod, rename).
    ///
    /// # Errors
    /// [`FsError`] if it cannot be written; the temporary file is removed.
    pub fn replace(
        &self,
        path: &Path,
        bytes: &[u8],
        mode: u32,
        durability: Durability,
    ) -> Result<(), FsError> {
        self.write(path, bytes, mode, durability)?.rename()?;
        match (durability, path.parent()) {
            (Durability::Synced, Some(dir)) => sync_dir(dir),
            _ => Ok(()),
        }
    }

    /// Writes the file that will replace that at `path`, so that only the rename remains.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be written; the temporary file is removed.
    pub fn write<'a>(
        &self,
        path: &'a Path,
        bytes: &[u8],
        mode: u32,
        durability: Durability,
    ) -> Result<Replacement<'a>, FsError> {
        let (file, temporary) = self.create(mode)?;
        let replacement = Replacement { file, temporary, path, renamed: false };
        write(&replacement.file, bytes, durability).at("write", path)?;
        Ok(replacement)
    }

    /// Creates a file without a name, of which nothing is left when it is closed.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be created.
    pub fn unnamed(&self) -> Result<File, FsError> {
        let flags = rustix::fs::OFlags::TMPFILE.bits().cast_signed();
        let mut options = File::options();
        options.read(true).write(true).mode(0o600);
        if let Ok(file) = options.clone().custom_flags(flags).open(&self.0) {
            return Ok(file);
        }
        // The file system does not support it. The sweep removes the name after a kill.
        let path = self.0.join(random_hex::<8>().at("create", &self.0)?);
        let file = options.create_new(true).open(&path).at("create", &path)?;
        fs::remove_file(&path).at("remove", &path)?;
        Ok(file)
    }

    /// Creates a locked file with a new name.
    fn create(&self, mode: u32) -> Result<(File, PathBuf), FsError> {
        loop {
            let path = self.0.join(random_hex::<8>().at("create", &self.0)?);
            let mut options = File::options();
            let file = options.write(true).create_new(true).mode(mode).open(&path);
            let file = file.at("create", &path)?;
            file.set_permissions(fs::Permissions::from_mode(mode)).at("create", &path)?;
            match file.try_lock() {
                // A sweep may have seen the file before it was locked, and removed it.
                Ok(()) if is_at(&file, &path) => return Ok((file, path)),
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => {
                    let _ = fs::remove_file(&path);
                    return Err(e).at("lock", &path);
                }
            }
        }
    }

    /// Removes the files of dead processes.
    ///
    /// # Errors
    /// [`FsError`] if the directory cannot be read or a file cannot be removed.
    pub fn sweep(&self) -> Result<(), FsError> {
        for name in names_in(&self.0)? {
            let path = self.0.join(name);
            let nofollow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
            let flags = nofollow.bits().cast_signed();
            let Ok(file) = File::options().read(true).custom_flags(flags).open(&path) else {
                continue;
            };
            let dead = file.metadata().is_ok_and(|meta| meta.is_file()) && file.try_lock().is_ok();
            if dead && is_at(&file, &path) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// A written file that replaces another one. It is removed when dropped before.
#[derive(Debug)]
pub struct Replacement<'a> {
    file: File,
    temporary: PathBuf,
    path: &'a Path,
    renamed: bool,
}

impl Replacement<'_> {
    /// Replaces the file, or a directory in its place, which survives a power failure once its directory is synced.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be renamed.
    pub fn rename(mut self) -> Result<(), FsError> {
        rename_over(&self.temporary, self.path).at("write", self.path)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Replacement<'_> {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

fn write(mut file: &File, bytes: &[u8], durability: Durability) -> io::Result<()> {
    file.write_all(bytes)?;
    match durability {
        Durability::Synced => file.sync_all(),
        Durability::Unsynced => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_file_has_its_mode_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let temporary = Temporary::new(dir.path().join("tmp"));
        fs::create_dir(dir.path().join("tmp")).unwrap();
        let path = dir.path().join("f");
        temporary.replace(&path, b"one", 0o600, Durability::Synced).unwrap();
        temporary.replace(&path, b"two", 0o644, Durability::Unsynced).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(names_in(dir.path()).unwrap(), ["f", "tmp"]);
        assert_eq!(names_in(&dir.path().join("tmp")).unwrap(), [""; 0]);
    }

    #[test]
    fn sweep_removes_files_of_dead_processes_only() {
        let dir = tempfile::tempdir().unwrap();
        let temporary = Temporary::new(dir.path().to_owned());
        let (live, path) = temporary.create(0o600).unwrap();
        fs::write(dir.path().join("dead"), "").unwrap();
        fs::create_dir(dir.path().join("directory")).unwrap();
        temporary.sweep().unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut left = vec!["directory", name];
        left.sort_unstable();
        assert_eq!(names_in(dir.path()).unwrap(), left);
        drop(live);
    }

    #[test]
    fn error_names_the_path() {
        let temporary = Temporary::new("/nonexistent".into());
        let error = temporary.replace(Path::new("/f"), b"", 0o600, Durability::Synced);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("/nonexistent/"), "{error}");
    }
}
