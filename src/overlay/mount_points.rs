//! The places in a container's root file system at which a runtime mounts something.
//!
//! dockerd creates them in a layer of their own between the image and the changes (moby
//! daemon/initlayer), so that they are not among the changes of the container.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

const DIRECTORIES: [&str; 4] = ["dev", "etc", "proc", "sys"];
const FILES_OF_ETC: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// Creates the missing ones below `root`, where an image is mounted. A link in their place is
/// replaced, because it could lead out of the image.
///
/// # Errors
/// The error of a system call.
pub fn create_mount_points(root: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = fs::open(root, flags, Mode::empty())?;
    for name in DIRECTORIES {
        directory(&root, name)?;
    }
    let etc = directory(&root, "etc")?;
    for name in FILES_OF_ETC {
        file(&etc, name)?;
    }
    if kind(&etc, "mtab")? != Some(FileType::Symlink) {
        remove(&etc, "mtab")?;
        fs::symlinkat("/proc/mounts", &etc, "mtab")?;
    }
    Ok(())
}

/// Opens or creates a directory.
fn directory(parent: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    if kind(&parent, name)? != Some(FileType::Directory) {
        remove(&parent, name)?;
        fs::mkdirat(&parent, name, mode())?;
        // The process can have another umask. Nothing else changes the image here.
        fs::chmodat(&parent, name, mode(), AtFlags::empty())?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(&parent, name, flags, Mode::empty())?)
}

/// Creates an empty file, unless there is one.
fn file(parent: impl AsFd, name: &str) -> io::Result<()> {
    if kind(&parent, name)? == Some(FileType::RegularFile) {
        return Ok(());
    }
    remove(&parent, name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = fs::openat(&parent, name, flags, mode())?;
    Ok(fs::fchmod(&file, mode())?)
}

fn kind(parent: impl AsFd, name: &str) -> io::Result<Option<FileType>> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Removes what is not a directory. A directory stays, and then creating fails.
fn remove(parent: impl AsFd, name: &str) -> io::Result<()> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn mode() -> Mode {
    Mode::from_raw_mode(0o755)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn mount_points_are_created_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(root.join("etc/hosts"), "kept").unwrap();
        symlink("../../outside/file", root.join("etc/resolv.conf")).unwrap();
        symlink(&outside, root.join("proc")).unwrap();
        std::fs::write(root.join("sys"), "a file").unwrap();
        for _ in 0..2 {
            create_mount_points(&root).unwrap();
        }
        assert_eq!(std::fs::read(root.join("etc/hosts")).unwrap(), b"kept");
        for path in ["etc/resolv.conf", "etc/hostname"] {
            assert!(root.join(path).symlink_metadata().unwrap().is_file(), "{path}");
        }
        for path in ["proc", "sys", "dev"] {
            let meta = root.join(path).symlink_metadata().unwrap();
            assert!(meta.is_dir() && meta.permissions().mode() & 0o7777 == 0o755, "{path}");
        }
        assert_eq!(std::fs::read_link(root.join("etc/mtab")).unwrap(), Path::new("/proc/mounts"));
        assert_eq!(std::fs::read_dir(outside).unwrap().count(), 0);
    }
}
