//! Copies of files of an image on this machine.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, Timespec};

use super::files::{Files, LastLink, is_content, name_in_archive};
use crate::error::Error;
use crate::fsutil::{self, At};
use crate::overlay::{CopyMetadata, CopyOut, Entry, NotCopied};

/// The owners of copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyOwners {
    /// Those of the files in the image, as far as this process may set them.
    Keep,
    /// The user who copies.
    This,
}

impl Files {
    /// Copies the file or directory at `path` to `to`, by the rules of `docker cp`: into `to` if it is a
    /// directory, and otherwise as `to`, whose parent exists. A path that ends with `/.` stands for the
    /// content of a directory. A directory that exists keeps its own owner, mode and times.
    ///
    /// # Errors
    /// There is no such file, it would replace a directory by a file or a file by a directory, or it cannot
    /// be read or written.
    pub fn copy(
        &self,
        path: impl AsRef<Path>,
        link: LastLink,
        to: impl AsRef<Path>,
        owners: CopyOwners,
    ) -> Result<NotCopied, Error> {
        let (path, to) = (path.as_ref(), to.as_ref());
        let entry = self.find(path, link)?;
        let mtime = |entry: &Entry| self.mtime(entry);
        let metadata = match owners {
            CopyOwners::Keep => CopyMetadata::Owners,
            CopyOwners::This => CopyMetadata::NoOwners,
        };
        let copy = CopyOut::new(&self.tree, metadata, &mtime);
        match fs::metadata(to) {
            Ok(meta) if meta.is_dir() && entry.is_dir() && is_content(path) => {
                Ok(copy.copy_content(&entry, open_dir(to)?, false)?)
            }
            Ok(meta) if meta.is_dir() => {
                Ok(copy.copy(&entry, open_dir(to)?.as_fd(), &name_in_archive(path, &entry))?)
            }
            Ok(_) if entry.is_dir() => Err(Error::Usage(format!(
                "cannot copy a directory to {}, which is a file",
                to.display()
            ))),
            Err(_) if !entry.is_dir() && to.as_os_str().as_bytes().ends_with(b"/") => {
                Err(Error::Usage(format!("the directory {} does not exist", to.display())))
            }
            _ => {
                // What a symbolic link leads to is replaced, as in docker.
                let to = fs::canonicalize(to).unwrap_or_else(|_| to.to_owned());
                let (parent, name) = parent_and_name(&to)?;
                Ok(copy.copy(&entry, open_dir(&parent)?.as_fd(), &name)?)
            }
        }
    }

    /// Copies all files to the directory `to`, which is empty or does not exist, with owners, as a root file
    /// system.
    ///
    /// # Errors
    /// The directory is not empty, or a file cannot be read or written. A directory that did not exist is
    /// then removed again.
    pub fn export_to_dir(&self, to: impl AsRef<Path>) -> Result<NotCopied, Error> {
        self.copy_all(to.as_ref(), CopyMetadata::Owners)
    }

    pub(super) fn copy_all(&self, to: &Path, metadata: CopyMetadata) -> Result<NotCopied, Error> {
        let is_new = !to.is_dir();
        if is_new {
            fs::create_dir(to).at("create", to)?;
        }
        if fs::read_dir(to).at("list", to)?.next().is_some() {
            return Err(Error::Usage(format!("the directory {} is not empty", to.display())));
        }
        let mtime = |entry: &Entry| self.mtime(entry);
        let copy = CopyOut::new(&self.tree, metadata, &mtime);
        let copied = copy.copy_content(&self.tree.root()?, open_dir(to)?, true);
        if copied.is_err() && is_new {
            // A part of the files must not be taken for all of them, nor fill a full disk.
            let _ = fsutil::remove(to);
        }
        Ok(copied?)
    }

    fn mtime(&self, entry: &Entry) -> Timespec {
        let time = self.latest_times().limit(entry);
        Timespec { tv_sec: time.0, tv_nsec: time.1.into() }
    }
}

fn open_dir(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty()).at("open", path)?)
}

fn parent_and_name(path: &Path) -> Result<(PathBuf, Vec<u8>), Error> {
    let name = path.file_name().map(|name| name.as_bytes().to_vec());
    let name = name.ok_or_else(|| Error::Usage(format!("{} is not a name", path.display())))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((parent.unwrap_or(Path::new(".")).to_owned(), name))
}
