//! The owner, times, device number and extended attributes of an entry.

use std::fs::File;
use std::io;
use std::sync::LazyLock;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::omissions::Omissions;
use crate::layer::LayerError;
use crate::layer::tar::entry::{EntryType, TarEntry};
use crate::layer::tar::header::Time;
use crate::overlay::DirHandle;

/// The last second of Go's clock. Later times become the epoch, as in dockerd (moby pkg/system
/// `chtimes.go`).
const LAST_SECOND: i64 = i64::MAX / 1_000_000_000;

/// Who owns the files of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// The owners in the archive; this process may set them.
    Keep,
    /// This process, because it may not set another owner.
    Single,
}

impl Owners {
    /// Returns what this process may do: only root may set owners.
    pub fn of_this_process() -> Self {
        if rustix::process::geteuid().is_root() { Self::Keep } else { Self::Single }
    }

    /// Whether the owners in the archive are ignored.
    pub fn ignored(self) -> bool {
        self == Self::Single
    }

    /// Whether directories stay writable until all entries exist: without root, a mode may forbid
    /// writing.
    pub fn defers_dir_modes(self) -> bool {
        self == Self::Single
    }

    /// Returns the owner to set on a new file, or `None` if it was created with the right one.
    pub fn of_new(self, entry: &TarEntry, parent_gid: u32) -> Option<(Uid, Gid)> {
        let right = self.ignored() || created_with_owner(entry, parent_gid);
        (!right).then(|| ids(entry))
    }

    /// Sets the owner of `name` in `dir` without following a symlink. `existing` if it may have had
    /// another owner before.
    ///
    /// # Errors
    /// The error of fchownat(2).
    pub fn set(
        self,
        dir: &DirHandle,
        name: &[u8],
        entry: &TarEntry,
        existing: bool,
        parent_gid: u32,
    ) -> io::Result<()> {
        let owner = if existing && !self.ignored() {
            Some(ids(entry))
        } else {
            self.of_new(entry, parent_gid)
        };
        let Some((uid, gid)) = owner else { return Ok(()) };
        Ok(fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// The metadata that is set on a new file after its data.
pub struct FileMetadata {
    /// The owner, if the file was created with another one.
    pub owner: Option<(Uid, Gid)>,
    /// The mode, if the file was created with another one.
    pub mode: Option<Mode>,
    /// The times.
    pub times: Timestamps,
}

impl FileMetadata {
    /// Sets the metadata in dockerd's order. `xattrs` sets the extended attributes, which come
    /// between owner and mode.
    ///
    /// # Errors
    /// [`LayerError::Write`], or the error of `xattrs`.
    pub fn set(
        &self,
        file: &File,
        path: &[u8],
        xattrs: impl FnOnce() -> Result<(), LayerError>,
    ) -> Result<(), LayerError> {
        let failed = |op| move |e: Errno| LayerError::write(op, path, e);
        if let Some((uid, gid)) = self.owner {
            fs::fchown(file, Some(uid), Some(gid)).map_err(failed("set the owner of"))?;
        }
        xattrs()?;
        if let Some(mode) = self.mode {
            fs::fchmod(file, mode).map_err(failed("set the mode of"))?;
        }
        fs::futimens(file, &self.times).map_err(failed("set the times of"))
    }
}

/// Whether a new file has the owner of `entry` already. A file that root creates in a directory of
/// group 0 is 0:0, whether or not it inherits the directory's group.
fn created_with_owner(entry: &TarEntry, parent_gid: u32) -> bool {
    static IS_ROOT_GROUP: LazyLock<bool> = LazyLock::new(|| rustix::process::getegid().is_root());
    entry.uid == 0 && entry.gid == 0 && parent_gid == 0 && *IS_ROOT_GROUP
}

/// Whether `stat` has the owner of `entry`.
pub fn same_owner(stat: &Stat, entry: &TarEntry) -> bool {
    i64::from(stat.st_uid) == entry.uid && i64::from(stat.st_gid) == entry.gid
}

/// Returns the owner of `entry`.
pub fn ids(entry: &TarEntry) -> (Uid, Gid) {
    // `check` refuses other values.
    let id = |value: i64| u32::try_from(value).unwrap_or(0);
    (Uid::from_raw(id(entry.uid)), Gid::from_raw(id(entry.gid)))
}

/// Refuses owners that no file can have and attributes that belong to overlayfs.
///
/// # Errors
/// [`LayerError::Refused`].
pub fn check(entry: &TarEntry) -> Result<(), LayerError> {
    for (what, id) in [("owner", entry.uid), ("group", entry.gid)] {
        // The last value means "do not change" to chown(2).
        if !(0..i64::from(u32::MAX)).contains(&id) {
            return Err(LayerError::refused(
                &entry.name,
                format!("its {what} {id} is out of range"),
            ));
        }
    }
    let overlay =
        |name: &[u8]| name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    if let Some((name, _)) = entry.xattrs.iter().find(|(name, _)| overlay(name)) {
        let name = crate::layer::error::show(name);
        return Err(LayerError::refused(
            &entry.name,
            format!("its attribute {name} is reserved for overlayfs"),
        ));
    }
    Ok(())
}

/// Returns the file type and device number of a device or named pipe.
///
/// # Errors
/// [`LayerError::Refused`] for numbers that Linux does not have, and for a character device 0:0,
/// which is a whiteout to overlayfs.
pub fn device(entry: &TarEntry) -> Result<(FileType, fs::Dev), LayerError> {
    let kind = match entry.kind {
        EntryType::Char => FileType::CharacterDevice,
        EntryType::Block => FileType::BlockDevice,
        _ => return Ok((FileType::Fifo, 0)),
    };
    let (major, minor) = entry.device;
    if !(0..1 << 12).contains(&major) || !(0..1 << 20).contains(&minor) {
        return Err(LayerError::refused(
            &entry.name,
            format!("its device number {major}:{minor} is out of range"),
        ));
    }
    if kind == FileType::CharacterDevice && (major, minor) == (0, 0) {
        return Err(LayerError::refused(
            &entry.name,
            "a character device 0:0, which is a whiteout to overlayfs",
        ));
    }
    let number = |n: i64| u32::try_from(n).unwrap_or(0);
    Ok((kind, fs::makedev(number(major), number(minor))))
}

/// Returns the times as dockerd sets them: the access time is not before the modification time,
/// and a time before 1970 is 1970.
pub fn times(entry: &TarEntry) -> Timestamps {
    let modified = in_range(entry.mtime);
    let accessed = entry.atime.map_or(modified, in_range);
    let accessed = if key(accessed) < key(modified) { modified } else { accessed };
    Timestamps { last_access: timespec(accessed), last_modification: timespec(modified) }
}

fn in_range(time: Time) -> Time {
    if (0..LAST_SECOND).contains(&time.seconds) { time } else { Time::default() }
}

fn key(time: Time) -> (i64, u32) {
    (time.seconds, time.nanos)
}

fn timespec(time: Time) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() }
}

/// Sets the entry's extended attributes with `set`. An attribute that this process may not set,
/// or that the file system or the file type does not support, is left out with a warning, as in
/// dockerd.
///
/// # Errors
/// [`LayerError::Refused`] for a name or value that no file system supports;
/// [`LayerError::Write`] for every other failure.
pub fn set_xattrs(
    entry: &TarEntry,
    omissions: &mut Omissions,
    mut set: impl FnMut(&[u8], &[u8]) -> Result<(), Errno>,
) -> Result<(), LayerError> {
    for (name, value) in &entry.xattrs {
        match set(name, value) {
            Ok(()) => {}
            Err(e @ (Errno::PERM | Errno::NOTSUP)) => omissions.attribute(name, &entry.name, e),
            Err(e @ (Errno::INVAL | Errno::RANGE | Errno::TOOBIG)) => {
                let name = crate::layer::error::show(name);
                let why = format!("its attribute '{name}' cannot be set: {}", io::Error::from(e));
                return Err(LayerError::refused(&entry.name, why));
            }
            Err(e) => return Err(LayerError::write("set an attribute of", &entry.name, e)),
        }
    }
    Ok(())
}
