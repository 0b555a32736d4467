//! Owners, times, devices and extended attributes of entries.

use std::fs::File;
use std::io;
use std::sync::LazyLock;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::omissions::Omissions;
use crate::layer::LayerError;
use crate::layer::tar::header::Time;
use crate::layer::tar::reader::{Entry, Kind};
use crate::overlay::DirHandle;

/// The last second that Go's clock knows (moby pkg/system `chtimes.go`): later times become
/// the epoch there, and so here.
const LAST_SECOND: i64 = i64::MAX / 1_000_000_000;

/// Whose the files become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// The archive's owners; this process may set them.
    Keep,
    /// All files are this process's: it may not give them away.
    Single,
}

impl Owners {
    /// What this process may do.
    pub fn of_this_process() -> Self {
        if rustix::process::geteuid().is_root() { Self::Keep } else { Self::Single }
    }

    /// Whether owners are left alone.
    pub fn ignored(self) -> bool {
        self == Self::Single
    }

    /// Whether directories stay writable until the end: without root, their modes bind us.
    pub fn late_modes(self) -> bool {
        self == Self::Single
    }

    /// The owner that a new file must be given; none if it has the right one by birth.
    pub fn of_new(self, entry: &Entry, parent_gid: u32) -> Option<(Uid, Gid)> {
        let right = self.ignored() || born_right(entry, parent_gid);
        (!right).then(|| ids(entry))
    }

    /// Sets the owner of what stands at a name, not followed; `old` if it may have had another
    /// one.
    pub fn own(
        self,
        dir: &DirHandle,
        last: &[u8],
        entry: &Entry,
        old: bool,
        parent_gid: u32,
    ) -> io::Result<()> {
        let owner =
            if old && !self.ignored() { Some(ids(entry)) } else { self.of_new(entry, parent_gid) };
        let Some((uid, gid)) = owner else { return Ok(()) };
        Ok(fs::chownat(dir, last, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// What is set on a new file after its data.
pub struct FileMeta {
    /// The owner, if it has another one.
    pub owner: Option<(Uid, Gid)>,
    /// The mode, if it was not created with it.
    pub mode: Option<Mode>,
    /// The times.
    pub times: Timestamps,
}

impl FileMeta {
    /// Sets all in dockerd's order; `xattrs` sets what comes between owner and mode.
    ///
    /// # Errors
    /// [`LayerError::Write`], and those of `xattrs`.
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

/// A file made by root in a directory of group 0 is 0:0, whether or not the directory or
/// the file system hands its group down.
fn born_right(entry: &Entry, parent_gid: u32) -> bool {
    static ROOTS: LazyLock<bool> = LazyLock::new(|| rustix::process::getegid().is_root());
    entry.uid == 0 && entry.gid == 0 && parent_gid == 0 && *ROOTS
}

/// Whether `stat` has the owner that `entry` wants.
pub fn same_owner(stat: &Stat, entry: &Entry) -> bool {
    i64::from(stat.st_uid) == entry.uid && i64::from(stat.st_gid) == entry.gid
}

/// The owner that `entry` wants.
pub fn ids(entry: &Entry) -> (Uid, Gid) {
    // `check` has seen that they fit.
    let id = |value: i64| u32::try_from(value).unwrap_or(0);
    (Uid::from_raw(id(entry.uid)), Gid::from_raw(id(entry.gid)))
}

/// Refuses what no file can have.
///
/// # Errors
/// [`LayerError::Refused`].
pub fn check(entry: &Entry) -> Result<(), LayerError> {
    for (what, id) in [("owner", entry.uid), ("group", entry.gid)] {
        // The last value means "leave it" to chown(2).
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
            format!("it carries the attribute {name}, which is overlayfs's own"),
        ));
    }
    Ok(())
}

/// The file type and device number of a node.
///
/// # Errors
/// [`LayerError::Refused`] for numbers that Linux does not have, and for 0:0, which
/// overlayfs would take for a whiteout.
pub fn device(entry: &Entry) -> Result<(FileType, fs::Dev), LayerError> {
    let kind = match entry.kind {
        Kind::Char => FileType::CharacterDevice,
        Kind::Block => FileType::BlockDevice,
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
            "a character device 0:0, which overlayfs takes for a whiteout",
        ));
    }
    let number = |n: i64| u32::try_from(n).unwrap_or(0);
    Ok((kind, fs::makedev(number(major), number(minor))))
}

/// Access and modification time as dockerd sets them: the later of the two, and the
/// archive's; what lies before 1970 is 1970.
pub fn times(entry: &Entry) -> Timestamps {
    let modified = bound(entry.mtime);
    let accessed = entry.atime.map_or(modified, bound);
    let accessed = if key(accessed) < key(modified) { modified } else { accessed };
    Timestamps { last_access: spec(accessed), last_modification: spec(modified) }
}

fn bound(time: Time) -> Time {
    if (0..LAST_SECOND).contains(&time.seconds) { time } else { Time::default() }
}

fn key(time: Time) -> (i64, u32) {
    (time.seconds, time.nanos)
}

fn spec(time: Time) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() }
}

/// Sets the entry's attributes through `set`. One that this process may not set, or that the
/// file system or the type of file cannot have, is left out with a warning, as dockerd does.
///
/// # Errors
/// [`LayerError::Refused`] for a name or value that no file system takes;
/// [`LayerError::Write`] for every other failure.
pub fn set_xattrs(
    entry: &Entry,
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
