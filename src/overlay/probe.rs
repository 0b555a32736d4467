//! Whether a file system can hold layers, and what this process may do there. dockerd does not use
//! overlay2 on a file system that cannot.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self, Dir, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::abilities::{Abilities, Capability, Owners, XattrSpace, in_user_namespace};
use crate::fsutil::{self, At, FsError};

/// The name of the whiteout that the probe creates.
const WHITEOUT: &CStr = c"whiteout";
/// The name of the device.
const DEVICE: &CStr = c"device";
/// The name of the directory that the probe gives to another user.
const FOREIGN: &str = "foreign";

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

/// Tries what unpacking layers needs in `dir`, a path that does not exist. Creates `dir` and removes
/// it; one that a killed process left is removed first. Returns what this process may do, or what
/// the file system lacks.
///
/// # Errors
/// [`FsError`] if nothing can be created there for another reason, such as a full disk.
pub fn probe(dir: &Path) -> Result<Result<Abilities, String>, FsError> {
    remove_probe(dir)?;
    fsutil::ensure_dir(dir, 0o700)?;
    let found = probe_in(dir);
    remove_probe(dir)?;
    found
}

/// Removes what a killed process left of a probe.
///
/// # Errors
/// [`FsError`] if it cannot be removed.
pub fn remove_probe(dir: &Path) -> Result<(), FsError> {
    // It is always empty, and another user may own it.
    let _ = std::fs::remove_dir(dir.join(FOREIGN));
    fsutil::remove(dir)
}

/// Returns the name of the file system of `path`, for messages.
pub fn file_system(path: &Path) -> String {
    let magic = fs::statfs(path).map_or(0, |stat| stat.f_type.cast_unsigned());
    match NAMES.iter().find(|(known, _)| *known == magic) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("a file system of type {magic:#x}"),
    }
}

fn probe_in(dir: &Path) -> Result<Result<Abilities, String>, FsError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = fs::open(dir, flags, Mode::empty()).at("open", dir)?;
    // overlayfs refuses one with EPERM, because it hides files itself; FAT has no devices.
    match fs::mknodat(&fd, WHITEOUT, FileType::CharacterDevice, Mode::empty(), 0) {
        Err(e @ (Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS)) => {
            let e = io::Error::from(e);
            return Ok(Err(format!("it has no whiteouts (character devices 0:0): {e}")));
        }
        other => other.at("create a whiteout in", dir)?,
    }
    let mark = |space: XattrSpace| {
        let name = space.opaque();
        match fs::setxattr(dir, name, b"y", XattrFlags::empty()) {
            Ok(()) => Ok(Ok(Some(space))),
            Err(Errno::PERM) => Ok(Ok(None)),
            Err(e @ Errno::OPNOTSUPP) => {
                let e = io::Error::from(e);
                Ok(Err(format!("it has no extended attributes {name}: {e}")))
            }
            Err(e) => Err(e).at("set an attribute of", dir),
        }
    };
    let space = match mark(XattrSpace::Trusted)? {
        Ok(None) => mark(XattrSpace::User)?,
        other => other,
    };
    let space = match space {
        Ok(Some(space)) => space,
        Ok(None) => return Ok(Err("this user may not set extended attributes there".to_owned())),
        Err(why) => return Ok(Err(why)),
    };
    for entry in Dir::read_from(&fd).at("list", dir)? {
        let entry = entry.at("list", dir)?;
        if entry.file_name() == WHITEOUT && entry.file_type() == FileType::Unknown {
            return Ok(Err("its directories do not have the types of files (d_type)".to_owned()));
        }
    }
    // Linux allows a device 0:0 without a capability, so another one is tried.
    let number = fs::makedev(1, 3);
    let made = fs::mknodat(&fd, DEVICE, FileType::CharacterDevice, Mode::empty(), number);
    let devices = match made {
        Err(Errno::PERM) => false,
        other => other.at("create a device in", dir).map(|()| true)?,
    };
    let owners = owners(&fd).at("set an owner in", dir)?;
    let file_capabilities = file_capabilities(&fd).at("set an attribute in", dir)?;
    let in_user_namespace = in_user_namespace();
    Ok(Ok(Abilities { space, devices, file_capabilities, owners, in_user_namespace }))
}

/// Gives a directory and a file to another user and group, and uses them as unpacking does. If any
/// step fails, all files belong to this process: it could not finish files of other owners.
fn owners(dir: &OwnedFd) -> Result<Owners, Errno> {
    let all = Owners::mapped();
    let (uid, gid) = all.others();
    fs::mkdirat(dir, FOREIGN, Mode::RWXU)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let foreign = fs::openat(dir, FOREIGN, flags, Mode::empty())?;
    // A mode without any right needs the same capability as a file of another owner.
    fs::fchmod(&foreign, Mode::empty())?;
    let lacking = |result: Result<(), Errno>, capability| match result {
        Ok(()) => Ok(None),
        Err(Errno::PERM | Errno::ACCESS | Errno::INVAL) => Ok(Some(Owners::none(capability))),
        Err(e) => Err(e),
    };
    if let Some(none) = lacking(fs::fchown(&foreign, uid, gid), Capability::Chown)? {
        return Ok(none);
    }
    // Unnamed, so that the directory stays empty.
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file = match fs::openat(&foreign, ".", flags, Mode::RUSR | Mode::WUSR) {
        Err(Errno::ACCESS) => return Ok(Owners::none(Capability::DacOverride)),
        other => other?,
    };
    if let Some(none) = lacking(fs::fchown(&file, uid, gid), Capability::Chown)? {
        return Ok(none);
    }
    let mode = Mode::from_raw_mode(0o6755);
    if let Some(none) = lacking(fs::fchmod(&file, mode), Capability::Fowner)? {
        return Ok(none);
    }
    // The kernel clears the bit without an error.
    if fs::fstat(&file)?.st_mode & 0o2000 == 0 {
        return Ok(Owners::none(Capability::Fsetid));
    }
    Ok(all)
}

/// Returns whether this process may set capabilities of files. A file system without the attribute
/// does not prevent it.
fn file_capabilities(dir: &OwnedFd) -> Result<bool, Errno> {
    /// CAP_NET_RAW, permitted (`struct vfs_cap_data` of the kernel, version 2).
    const NET_RAW: [u8; 20] = [0, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file = fs::openat(dir, ".", flags, Mode::RUSR | Mode::WUSR)?;
    match fs::fsetxattr(&file, "security.capability", &NET_RAW, XattrFlags::empty()) {
        Err(Errno::PERM) => Ok(false),
        Err(e) if e != Errno::OPNOTSUPP => Err(e),
        _ => Ok(true),
    }
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
        let found = super::probe(&dir).unwrap();
        assert_eq!(found, Ok(Abilities::expected()));
        assert!(!dir.exists());
    }

    #[test]
    fn file_system_is_named() {
        assert!(file_system(Path::new("/proc")).starts_with("a file system of type 0x9fa0"));
    }
}
