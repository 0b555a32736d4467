//! The mounts that this thread sees, from /proc/thread-self/mountinfo (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// The ID of the mount.
    pub id: u64,
    /// The directory of the file system that is the root of the mount.
    pub root: PathBuf,
    /// The mount point.
    pub target: PathBuf,
    /// Whether the mount itself is read-only.
    pub read_only: bool,
    /// The type of the file system, such as `overlay`.
    pub fs_type: String,
    /// What is mounted: a device, or a name that the mounting program chose.
    pub source: String,
    options: Vec<Vec<u8>>,
}

/// The directories of an overlay mount, as the mounting program gave them: they may be relative
/// to its working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayDirs {
    /// The layers, topmost first.
    pub lower: Vec<PathBuf>,
    /// The directory of changes, if the mount is writable.
    pub upper: Option<PathBuf>,
}

impl MountEntry {
    /// Returns the directories of an overlay mount; `None` for another type.
    pub fn overlay_dirs(&self) -> Option<OverlayDirs> {
        if self.fs_type != "overlay" {
            return None;
        }
        let mut dirs = OverlayDirs { lower: Vec::new(), upper: None };
        for option in &self.options {
            // Set with mount(2), as one list; or with fsconfig(2), one by one.
            if let Some(list) = option.strip_prefix(b"lowerdir=") {
                dirs.lower.extend(split_list(list));
            } else if let Some(one) = option.strip_prefix(b"lowerdir+=") {
                dirs.lower.push(path(one.to_vec()));
            } else if let Some(upper) = option.strip_prefix(b"upperdir=") {
                dirs.upper = Some(path(upper.to_vec()));
            }
        }
        Some(dirs)
    }

    fn parse(line: &[u8]) -> Option<Self> {
        let words: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
        let dash = words.iter().position(|word| *word == b"-")?;
        let text = |word: &[u8]| String::from_utf8_lossy(&unescape(word)).into_owned();
        let flags = words.get(5)?;
        let super_options = words.get(dash + 3).copied().unwrap_or_default();
        Some(Self {
            id: text(words.first()?).parse().ok()?,
            root: path(unescape(words.get(3)?)),
            target: path(unescape(words.get(4)?)),
            read_only: flags.split(|&b| b == b',').any(|flag| flag == b"ro"),
            fs_type: text(words.get(dash + 1)?),
            source: text(words.get(dash + 2)?),
            options: super_options.split(|&b| b == b',').map(unescape).collect(),
        })
    }
}

/// Returns all mounts that this process sees.
///
/// # Errors
/// /proc cannot be read.
pub fn mounts() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&fs::read("/proc/thread-self/mountinfo")?))
}

/// Returns the mount whose root `target` is: the topmost one, if several are stacked there.
///
/// # Errors
/// `target` cannot be accessed, or /proc cannot be read.
pub fn mount_at(target: &Path) -> io::Result<Option<MountEntry>> {
    let target = fs::canonicalize(target)?;
    let stat = rustix::fs::statx(CWD, &target, AtFlags::empty(), StatxFlags::MNT_ID)?;
    let same = |mount: &MountEntry| mount.id == stat.stx_mnt_id && mount.target == target;
    Ok(mounts()?.into_iter().find(same))
}

/// Returns the upper directories of all overlay mounts of all processes, and whether /proc shows
/// all processes of this machine and the mounts of all that this user runs: a process in a user namespace
/// cannot see into another one, also of the same user.
pub fn uppers_everywhere() -> (Vec<PathBuf>, bool) {
    let mut all = fs::read_link("/proc/self/ns/pid").is_ok_and(|ns| ns == Path::new(FIRST_PID_NS));
    let user = rustix::process::geteuid();
    let in_first =
        fs::read_link("/proc/self/ns/user").is_ok_and(|ns| ns == Path::new(FIRST_USER_NS));
    let is_root = user.is_root() && in_first;
    let mut namespaces = std::collections::HashSet::new();
    let mut uppers = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let dir = process.path();
        let namespace = match fs::read_link(dir.join("ns/mnt")) {
            Ok(namespace) => namespace,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                // One with more capabilities than this process, such as the first one of a virtual
                // machine, is not in another user namespace.
                let owner = process.metadata().map(|meta| meta.uid());
                all &= is_root || owner.is_ok_and(|uid| uid != user.as_raw());
                continue;
            }
            // Not a process, or one that ended.
            Err(_) => continue,
        };
        if namespaces.insert(namespace) {
            let mounts = parse(&fs::read(dir.join("mountinfo")).unwrap_or_default());
            uppers.extend(mounts.iter().filter_map(|mount| mount.overlay_dirs()?.upper));
        }
    }
    (uppers, all)
}

/// The PID namespace of the machine (PROC_PID_INIT_INO of the kernel).
const FIRST_PID_NS: &str = "pid:[4026531836]";

/// The user namespace of the machine (PROC_USER_INIT_INO of the kernel).
const FIRST_USER_NS: &str = "user:[4026531837]";

fn parse(mountinfo: &[u8]) -> Vec<MountEntry> {
    mountinfo.split(|&b| b == b'\n').filter_map(MountEntry::parse).collect()
}

/// Replaces `\040` and other octal escapes.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| first == b'\\').and_then(octal);
        out.push(octal.unwrap_or(first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    out
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

/// Splits `lowerdir`, whose paths are separated by colons; a backslash escapes a character.
fn split_list(list: &[u8]) -> Vec<PathBuf> {
    let mut paths = vec![Vec::new()];
    let mut bytes = list.iter();
    while let Some(&byte) = bytes.next() {
        match (byte, paths.last_mut()) {
            (b':', _) => paths.push(Vec::new()),
            (b'\\', Some(path)) => path.extend(bytes.next()),
            (_, Some(path)) => path.push(byte),
            (_, None) => {}
        }
    }
    paths.into_iter().filter(|bytes| !bytes.is_empty()).map(path).collect()
}

fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> MountEntry {
        parse(line.as_bytes()).remove(0)
    }

    #[test]
    fn overlay_line_with_escapes_is_parsed() {
        let line = r"36 35 0:40 / /mnt\040a\011b rw,relatime shared:1 - overlay x\040y rw,lowerdir=/a\134:b:/c\054d,upperdir=/u\040p,workdir=/w";
        let mount = one(line);
        assert_eq!((mount.id, mount.source.as_str()), (36, "x y"));
        assert_eq!(mount.target, Path::new("/mnt a\tb"));
        assert!(!mount.read_only);
        let dirs = mount.overlay_dirs().unwrap();
        assert_eq!(dirs.lower, [Path::new("/a:b"), Path::new("/c,d")]);
        assert_eq!(dirs.upper.unwrap(), Path::new("/u p"));
    }

    #[test]
    fn layers_that_were_set_one_by_one_are_all_found() {
        let line =
            r"47 27 0:39 / /m ro,relatime - overlay none ro,lowerdir+=/a:b,lowerdir+=l/C,userxattr";
        let dirs = one(line).overlay_dirs().unwrap();
        assert_eq!(dirs.lower, [Path::new("/a:b"), Path::new("l/C")]);
        assert_eq!(dirs.upper, None);
    }

    #[test]
    fn other_mounts_have_no_overlay_directories() {
        let mount = one("30 1 8:1 /dir /b ro - ext4 /dev/sda1 rw,lowerdir=/no");
        assert_eq!((mount.root.as_path(), mount.read_only), (Path::new("/dir"), true));
        assert_eq!(mount.overlay_dirs(), None);
        assert!(parse(b"\n1 2\nx\n").is_empty());
    }
}
