//! Files that appear whole at a path of the user's choice.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, OFlags, linkat};

use super::{At, FsError, random_hex};

/// A file that is being written, and replaces what is at its path when it is committed. Until then it has
/// no name, where the file system allows that, so that nothing of it is left after a kill.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    target: PathBuf,
    temporary: Option<PathBuf>,
}

impl NewFile {
    /// Creates the file that will be at `target`.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be created.
    pub fn create(target: &Path, mode: u32) -> Result<Self, FsError> {
        let (file, temporary) = match unnamed(directory(target), mode) {
            Ok(file) => (file, None),
            // The file system does not support it, or there is no /proc.
            Err(_) => {
                let path = temporary_name(target)?;
                let mut options = File::options();
                let file = options.write(true).create_new(true).mode(mode).open(&path);
                (file.at("create", target)?, Some(path))
            }
        };
        let new = Self { file, target: target.to_owned(), temporary };
        new.file.set_permissions(fs::Permissions::from_mode(mode)).at("create", target)?;
        Ok(new)
    }

    /// Puts the file at its path.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be renamed; nothing is left then.
    pub fn commit(mut self) -> Result<(), FsError> {
        if self.temporary.is_none() {
            match link(&self.file, &self.target) {
                Ok(()) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).at("write", &self.target),
            }
            let path = temporary_name(&self.target)?;
            link(&self.file, &path).at("write", &self.target)?;
            self.temporary = Some(path);
        }
        if let Some(path) = &self.temporary {
            fs::rename(path, &self.target).at("write", &self.target)?;
            self.temporary = None;
        }
        Ok(())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(path) = &self.temporary {
            let _ = fs::remove_file(path);
        }
    }
}

fn directory(target: &Path) -> &Path {
    target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens a file without a name in `dir`, which [`link`] can give one.
fn unnamed(dir: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlags::TMPFILE.bits().cast_signed();
    let file = File::options().write(true).custom_flags(flags).mode(mode).open(dir)?;
    proc_path(&file).metadata()?;
    Ok(file)
}

fn link(file: &File, target: &Path) -> io::Result<()> {
    Ok(linkat(CWD, proc_path(file), CWD, target, AtFlags::SYMLINK_FOLLOW)?)
}

fn proc_path(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn temporary_name(target: &Path) -> Result<PathBuf, FsError> {
    let random = random_hex::<8>().at("create", target)?;
    Ok(directory(target).join(format!(".rpull-{random}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_file_appears_whole_and_replaces_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("n".repeat(255));
        for text in ["one", "two"] {
            let mut file = NewFile::create(&target, 0o640).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            assert_ne!(fs::read_to_string(&target).unwrap_or_default(), text);
            file.commit().unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), text);
        }
        drop(NewFile::create(&target, 0o600).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(target.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
        assert!(NewFile::create(&dir.path().join("absent/file"), 0o600).is_err());
    }
}
