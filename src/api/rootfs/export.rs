//! File systems made of the files of an image, by the tools of each file system.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use super::beside::Beside;
use super::tool::{reads_tar, run};
use crate::api::files::Files;
use crate::digest::Digest;
use crate::error::Error;
use crate::fsutil::{self, At};
use crate::layer::TreeTarOptions;
use crate::overlay::{CopyMetadata, NotCopied};

/// The package of mkfs.erofs.
const EROFS_UTILS: &str = "erofs-utils";

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileSystem {
    Ext4,
    Erofs,
    Squashfs,
}

impl FileSystem {
    fn of(path: &Path) -> Option<Self> {
        Some(match path.extension().and_then(OsStr::to_str)? {
            "ext4" => Self::Ext4,
            "erofs" => Self::Erofs,
            "squashfs" | "sqfs" => Self::Squashfs,
            _ => return None,
        })
    }
}

impl Files {
    /// Makes a root file system of all files at `to`: a file system in a file with the suffix `.ext4` (by
    /// mke2fs), `.erofs` (by mkfs.erofs) or `.squashfs` (by sqfstar), or otherwise a directory, which is empty
    /// or does not exist. The same image and the same version of the tool give the same bytes.
    ///
    /// sqfstar reads a stream, and so do newer versions of the other tools, so owners and devices are kept
    /// without root. mke2fs before 1.47.1 and mkfs.erofs before 1.7 read a copy of the files beside `to`. Of
    /// an ext4, debugfs sets then what this process may not set on the copy. An erofs lacks what the result
    /// counts.
    ///
    /// # Errors
    /// The tool is not installed or fails, or a file cannot be read or written.
    pub fn export_rootfs(&self, to: impl AsRef<Path>) -> Result<NotCopied, Error> {
        let to = to.as_ref();
        let Some(kind) = FileSystem::of(to).filter(|_| !to.is_dir()) else {
            return self.export_to_dir(to);
        };
        if to.metadata().is_ok_and(|meta| !meta.is_file()) {
            return Err(Error::Usage(format!("{} is not a regular file", to.display())));
        }
        let beside = Beside::new(to)?;
        let made = beside.path("image");
        let not_copied = match kind {
            FileSystem::Squashfs => self.squashfs(&made, &beside).map(|()| NotCopied::default())?,
            FileSystem::Erofs => self.erofs(&made, &beside)?,
            FileSystem::Ext4 => self.ext4(&made, &beside).map(|()| NotCopied::default())?,
        };
        fs::rename(&made, to).at("create", to)?;
        Ok(not_copied)
    }

    fn squashfs(&self, to: &Path, beside: &Beside) -> Result<(), Error> {
        let root = self.tree.root()?;
        let mut command = Command::new("sqfstar");
        command.args(["-quiet", "-no-progress", "-exit-on-error"]);
        command.args(["-root-mode", &format!("{:o}", root.stat.st_mode & 0o7777)]);
        command.args(["-root-uid", &root.stat.st_uid.to_string()]);
        command.args(["-root-gid", &root.stat.st_gid.to_string()]);
        // Version 4.5 gives the root directory the current time, which only this variable limits.
        command.env("SOURCE_DATE_EPOCH", self.epoch().to_string());
        // It ignores the options for the root, and takes owner and mode from the current directory.
        let dir = beside.path("root");
        fsutil::ensure_dir(&dir, root.stat.st_mode & 0o7777 | 0o700)?;
        // An ordinary user may not.
        let _ = chown(&dir, Some(root.stat.st_uid), Some(root.stat.st_gid));
        let name = to.file_name().unwrap_or_default();
        command.current_dir(dir).arg(Path::new("..").join(name));
        run(command, "squashfs-tools", |out| {
            let options = TreeTarOptions { sparse: false, latest: self.latest_times() };
            self.write_tar(out, options)
        })?;
        Ok(())
    }

    /// Makes an erofs in the file `to`. mkfs.erofs since 1.7 reads a stream, an older one a copy.
    fn erofs(&self, to: &Path, beside: &Beside) -> Result<NotCopied, Error> {
        let mut probe = Command::new("mkfs.erofs");
        probe.args(["-d0", "--tar=f"]).arg(beside.path("probe"));
        let reads_tar = reads_tar(probe, EROFS_UTILS)?;
        let mut command = Command::new("mkfs.erofs");
        command.args(["-d0", "-U", &self.uuid(), "-T", &self.epoch().to_string()]);
        if reads_tar {
            command.arg("--tar=f").arg(to);
            run(command, EROFS_UTILS, |out| {
                let options = TreeTarOptions { sparse: false, latest: self.latest_times() };
                self.write_tar_with_root(out, options)
            })?;
            return Ok(NotCopied::default());
        }
        let dir = beside.path("rootfs");
        let not_copied = self.copy_all(&dir, CopyMetadata::Owners)?;
        command.arg(to).arg(dir);
        run(command, EROFS_UTILS, |_| Ok(()))?;
        Ok(not_copied)
    }

    /// Returns the time of the file system: `SOURCE_DATE_EPOCH`, or that of the image, or 1970.
    pub(super) fn epoch(&self) -> i64 {
        let latest = self.latest_times();
        let time = if latest.of_files == i64::MAX { latest.of_dirs } else { latest.of_files };
        if (0..=i64::from(u32::MAX)).contains(&time) { time } else { 0 }
    }

    /// Returns a UUID that depends on the name of the image only.
    pub(super) fn uuid(&self) -> String {
        let hex = Digest::of(self.identity.as_bytes()).to_string().replace("sha256:", "");
        let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default().to_owned();
        format!(
            "{}-{}-8{}-a{}-{}",
            part(0..8),
            part(8..12),
            part(13..16),
            part(17..20),
            part(20..32)
        )
    }
}
