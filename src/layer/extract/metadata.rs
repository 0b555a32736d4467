//! The owner, times, device number and extended attributes of an entry.

use std::fs::File;
use std::io;

use rustix::fs::{self, AtFlags, FileType, Mode, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::omissions::Omissions;
use crate::layer::LayerError;
use crate::layer::tar::entry::{EntryType, TarEntry};
use crate::layer::tar::header::Time;
use crate::overlay::{DirHandle, NewOwner, Owners};

/// The last second of Go's clock. Later times become the epoch, as in dockerd (moby pkg/system
/// `chtimes.go`).
const LAST_SECOND: i64 = i64::MAX / 1_000_000_000;

/// The metadata that is set on a new file after its data.
pub struct FileMetadata {
    /// The owner, if the file was created with another one.
    pub owner: Option<NewOwner>,
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
            fs::fchown(file, uid, gid).map_err(failed("set the owner of"))?;
        }
        xattrs()?;
        if let Some(mode) = self.mode {
            fs::fchmod(file, mode).map_err(failed("set the mode of"))?;
        }
        fs::futimens(file, &self.times).map_err(failed("set the times of"))
    }
}

/// Sets the owner of `name` in `dir` without following a symlink.
///
/// # Errors
/// The error of fchownat(2).
pub fn set_owner(dir: &DirHandle, name: &[u8], owner: Option<NewOwner>) -> io::Result<()> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    Ok(fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Returns the owner to set on the file with `stat`; `None` if it has the owner of `entry`, as far
/// as that can be set.
pub fn owner_to_change(owners: &Owners, stat: &Stat, entry: &TarEntry) -> Option<NewOwner> {
    let (uid, gid) = ids(entry);
    let (uid, gid) = owners.to_set(uid, gid)?;
    let same_uid = uid.is_none_or(|uid| uid.as_raw() == stat.st_uid);
    let same_gid = gid.is_none_or(|gid| gid.as_raw() == stat.st_gid);
    (!same_uid || !same_gid).then_some((uid, gid))
}

/// Returns the user and the group of `entry`.
pub fn ids(entry: &TarEntry) -> (u32, u32) {
    // `check` refuses other values.
    let id = |value: i64| u32::try_from(value).unwrap_or(0);
    (id(entry.uid), id(entry.gid))
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
            Err(e @ (Errno::PERM | Errno::ACCESS | Errno::NOTSUP)) => {
                omissions.attribute(name, &entry.name, e);
            }
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
